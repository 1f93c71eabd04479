"""Conversations as files: JSON that can be imported again, and Markdown for people.

Only what belongs to the messages is exported. What the chat keeps beside them for its own use is
not: the lease and the idempotency key of a turn, the usage of replies that were removed, and links
to other conversations. So nothing of a turn comes back to life in a copy.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from chatledger.chat.lease import finished_event
from chatledger.conversations import MAX_REVISION, Conversation, Page
from chatledger.http.bodies import time_text
from chatledger.messages import StoredMessage
from chatledger.sansio import Steps
from chatledger.stores.contract import AnyStore
from chatledger.tool_calls import is_call, is_result, parse_call, parse_result
from chatledger.values import Json, dumps, now

FORMAT = "chatledger-conversation"
VERSION = 1
PAGE_SIZE = 100
"""The number of messages that are read at once."""
EXTRA_TYPES: dict[str, type[Any]] = {
    "tool_calls": list,
    "tool_call_id": str,
    "name": str,
    "status": str,
    "model": str,
    "stop_reason": str,
    "latency_ms": int,
    "usage": dict,
}
"""The fields in the ``extra`` of messages that are exported, if their values have these types."""
UNTITLED = "Conversation"
MAX_FILE_NAME_CHARACTERS = 80


class Export:
    """The text of a file that contains a conversation, made a part at a time.

    It contains the messages that the conversation has when the export begins, except those that are
    removed before they are read.

    Args:
        store: The store of the conversation.
        conversation: The conversation.
        owner: The owner whom the request names, if any.
        format: How the conversation is written.
    """

    def __init__(
        self, store: AnyStore, conversation: Conversation, *, owner: str | None, format: "Format"
    ) -> None:
        self._store = store
        self._owner = owner
        self._after: int | None = 0
        self._has_messages = False
        self.conversation = conversation
        self.format = format

    @property
    def is_complete(self) -> bool:
        """True if there are no further parts."""
        return self._after is None

    def next_part(self) -> Steps[str]:
        """Read a page of messages and return the next part of the text.

        Raises ``NotFound`` if the conversation was deleted meanwhile.
        """
        assert self._after is not None, "the export is complete"
        beginning = self.format.beginning(self.conversation) if self._after == 0 else ""
        page: Page = yield partial(
            self._store.page,
            self.conversation.id,
            after=self._after,
            before=min(self.conversation.revision + 1, MAX_REVISION),
            limit=PAGE_SIZE,
            owner=self._owner,
        )
        texts = []
        for message in page.messages:
            texts += [self.format.separator] if self._has_messages else []
            texts.append(self.format.message(message))
            self._has_messages = True
        self._after = page.next
        return "".join([beginning, *texts, self.format.end if self.is_complete else ""])

    @property
    def content_disposition(self) -> str:
        """The ``Content-Disposition`` header, with the title as the name of the file (RFC 6266)."""
        name = f"{_file_name(self.conversation.title)}.{self.format.extension}"
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^\w .()-]", "", plain, flags=re.ASCII).strip()
        plain = f"{UNTITLED}{plain}" if plain.startswith(".") else plain
        header = f'attachment; filename="{plain}"'
        return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='')}"


class Format(NamedTuple):
    """The form in which a conversation is written."""

    media_type: str
    extension: str
    beginning: Callable[[Conversation], str]
    message: Callable[[StoredMessage], str]
    separator: str
    """The text between two messages."""
    end: str


_RESERVED_NAMES = {"con", "prn", "aux", "nul"} | {
    f"{device}{n}" for device in ("com", "lpt") for n in range(1, 10)
}
"""The names that Windows gives no file, in lower case."""


def _file_name(title: str | None) -> str:
    """Return the title as a name that every file system takes, without an extension."""
    text = unicodedata.normalize("NFC", title or "")
    # Neither separators of paths, nor characters that one cannot see, such as those that turn the
    # direction of the text around.
    text = re.sub(r'[\s/\\:*?"<>|]+', " ", text)
    text = "".join(each for each in text if unicodedata.category(each)[0] != "C")
    text = " ".join(text.split()).strip(" .~")[:MAX_FILE_NAME_CHARACTERS]
    while len(text.encode()) > 2 * MAX_FILE_NAME_CHARACTERS:
        text = text[:-1]
    text = text.strip(" .~") or UNTITLED
    return f"{text}_" if text.partition(".")[0].lower() in _RESERVED_NAMES else text


# JSON ---------------------------------------------------------------------------------------------


def _json_beginning(conversation: Conversation) -> str:
    fields: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "title": conversation.title,
        "metadata": conversation.metadata,
        "created_at": time_text(conversation.created_at),
        "exported_at": time_text(now()),
    }
    return f'{dumps(fields)[:-1]},"messages":[\n'


def exported_message(message: StoredMessage) -> dict[str, Any]:
    """Return the message as a JSON file has it; a field without a value is left out."""
    body: dict[str, Any] = {
        "role": message.role,
        "content": message.content,
        "created_at": time_text(message.created_at),
        "id": message.id,
        "seq": message.seq,
    }
    if message.metadata:
        body["metadata"] = message.metadata
    for name, kind in EXTRA_TYPES.items():
        value = message.extra.get(name)
        if isinstance(value, kind) and not isinstance(value, bool):
            body[name] = value
    if not all(isinstance(call, dict) for call in body.get("tool_calls", [])):
        del body["tool_calls"]
    if "usage" in body:
        usage = finished_event(message).usage
        del body["usage"]
        if usage is not None and min(asdict(usage).values()) >= 0:
            body["usage"] = usage.counts
    return body


JSON = Format(
    media_type="application/json",
    extension="json",
    beginning=_json_beginning,
    message=lambda message: dumps(exported_message(message)),
    separator=",\n",
    end="\n]}\n",
)

# Markdown -----------------------------------------------------------------------------------------

_HEADINGS = {"user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def _markdown_beginning(conversation: Conversation) -> str:
    title = " ".join((conversation.title or UNTITLED).split())
    return f"# {_literal(title) or UNTITLED}\n\n"


def _markdown_message(message: StoredMessage) -> str:
    """Return the message below a heading of its own, its text as a quote.

    A quote ends with its lines. So whatever the text has, such as headings, HTML or a fence that is
    never closed, stays inside of it, and the text itself stays as it was written.
    """
    facts = [_minute(message.created_at)]
    model, reason = message.extra.get("model"), message.extra.get("stop_reason")
    facts += [_literal(model)] if isinstance(model, str) else []
    facts += [_literal(reason)] if isinstance(reason, str) and reason != "end_turn" else []
    parts = [f"## {_HEADINGS[message.role]}", f"*{' · '.join(facts)}*"]
    content = message.content if isinstance(message.content, list) else [message.content]
    parts += filter(None, map(_markdown_block, content))
    parts += map(_markdown_call, message.tool_calls)
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: str | dict[str, Json]) -> str:
    """Return a block of a message's content; of one that is not text only its kind."""
    if isinstance(block, str):
        return _quote(block)
    if is_call(block):
        return _markdown_call(block)
    if is_result(block):
        result = parse_result(block)
        content = [] if result is None else result.content
        return _fenced("Result", content if isinstance(content, str) else dumps(content))
    text = block.get("text")
    if isinstance(text, str):
        return _quote(text)
    kind = block.get("type", next(iter(block), ""))
    return f"*[{_literal(str(kind)[:50])}]*"


def _markdown_call(call: Json) -> str:
    _, name, args = parse_call(call)
    text = json.dumps(args, ensure_ascii=False, indent=2)
    return _fenced(f"Call of {_literal(name or 'a tool')}", text)


def _fenced(label: str, text: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"**{label}**\n\n{fence}\n{text}\n{fence}"


def _quote(text: str) -> str:
    if not text.strip():
        return ""
    # Where a renderer keeps HTML, this tag would end the quote.
    text = re.sub(r"<(?=/?blockquote)", "&lt;", text, flags=re.IGNORECASE)
    lines: Sequence[str] = re.split(r"\r\n|\r|\n", text)
    return "\n".join(f"> {line}" if line else ">" for line in lines)


def _literal(text: str) -> str:
    """Return text on one line that Markdown shows as it is."""
    text = "".join(each if unicodedata.category(each) != "Cc" else " " for each in text)
    return re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", text.strip())


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


MARKDOWN = Format(
    media_type="text/markdown",
    extension="md",
    beginning=_markdown_beginning,
    message=_markdown_message,
    separator="\n",
    end="",
)

FORMATS = {"json": JSON, "markdown": MARKDOWN}
"""The formats by the names that requests use."""
