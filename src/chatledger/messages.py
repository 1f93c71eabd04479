"""Messages: frozen values that can be stored from the moment they are made."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, cast, get_args

import uuid_utils

from chatledger.errors import InvalidMessage, MessageTooLarge
from chatledger.json_values import Json, checked_json, checked_object, checked_text, dumps, loads

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Content: TypeAlias = str | list[str | dict[str, Json]]

ROLES = frozenset(get_args(Role))
MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message a store takes, as JSON in UTF-8."""
METADATA_BYTES = 16 * 1024
"""The largest ``metadata`` of a message, as JSON in UTF-8."""
MESSAGE_ID_BYTES = 1_000
_NOTHING: dict[str, Json] = {}


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and later ones sort behind earlier ones."""
    return str(uuid_utils.uuid7())


def now() -> datetime:
    """The time in UTC, to the millisecond: what is stored is what was seen."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def to_milliseconds(time: datetime) -> datetime:
    """``time`` in UTC, without the microseconds that no store keeps."""
    time = time.astimezone(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    ``content`` is text or a list of content blocks. ``metadata`` is yours (at most
    ``METADATA_BYTES``); ``extra`` is for what a framework adds beside role and content, tool calls
    among it. Both come back equal and of the same types. What could not be stored is refused here,
    with ``InvalidMessage``. Lists and dicts are copied, so that a later change of yours does not
    change the message.

    ``seq`` is the message's place in its conversation, which the store gives; it takes no part in
    ``==``.
    """

    role: Role
    content: Content = ""
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)
    metadata: dict[str, Json] = field(default_factory=dict)
    extra: dict[str, Json] = field(default_factory=dict)
    seq: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.role, str) or self.role not in ROLES:
            raise InvalidMessage(
                f"role is {self.role!r}; it must be one of {', '.join(sorted(ROLES))}."
            )
        values = {
            "role": str.__str__(self.role),
            "content": _checked_content(self.content),
            "id": _checked_id(self.id),
            "created_at": _checked_time(self.created_at),
            "metadata": checked_object(
                self.metadata, "metadata", limit=METADATA_BYTES, error=InvalidMessage
            ),
            "extra": checked_object(self.extra, "extra", limit=MESSAGE_BYTES, error=InvalidMessage),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def user(cls, content: Content, **fields: Any) -> "Message":
        return cls(role="user", content=content, **fields)

    @classmethod
    def assistant(
        cls,
        content: Content = "",
        *,
        tool_calls: Sequence[dict[str, Json]] = (),
        extra: dict[str, Json] = _NOTHING,
        **fields: Any,
    ) -> "Message":
        """A reply; its text may be empty where it holds only tool calls."""
        more: dict[str, Json] = {"tool_calls": list(tool_calls)} if tool_calls else {}
        return cls(role="assistant", content=content, extra=_joined(extra, more), **fields)

    @classmethod
    def system(cls, content: Content, **fields: Any) -> "Message":
        return cls(role="system", content=content, **fields)

    @classmethod
    def tool(
        cls,
        content: Content,
        *,
        tool_call_id: str,
        extra: dict[str, Json] = _NOTHING,
        **fields: Any,
    ) -> "Message":
        """The result of the tool call with that id."""
        more: dict[str, Json] = {"tool_call_id": tool_call_id}
        return cls(role="tool", content=content, extra=_joined(extra, more), **fields)

    @property
    def tool_calls(self) -> list[dict[str, Json]]:
        """The tool calls of an assistant's message, as the framework made them."""
        calls = self.extra.get("tool_calls")
        return cast(list[dict[str, Json]], calls) if isinstance(calls, list) else []

    @property
    def tool_call_id(self) -> str | None:
        """Which tool call a tool's message answers."""
        id = self.extra.get("tool_call_id")
        return id if isinstance(id, str) else None

    @property
    def text(self) -> str:
        """The text of the content; blocks of other kinds say nothing."""
        if isinstance(self.content, str):
            return self.content
        parts = (block if isinstance(block, str) else block.get("text") for block in self.content)
        return "".join(part for part in parts if isinstance(part, str))

    def at(self, seq: int) -> "Message":
        """The same message at that place."""
        return _trusted(
            self.role, self.content, self.id, self.created_at, self.metadata, self.extra, seq
        )


def encode(message: Message) -> str:
    """The message as the JSON text that stores keep; everything but its seq.

    Raises ``MessageTooLarge`` over ``MESSAGE_BYTES``.
    """
    body: dict[str, object] = {
        "role": message.role,
        "content": message.content,
        "id": message.id,
        "created_at": message.created_at.isoformat(timespec="milliseconds"),
    }
    if message.metadata:
        body["metadata"] = message.metadata
    if message.extra:
        body["extra"] = message.extra
    text = dumps(body)
    # A character is at most 4 bytes, so short texts need no second look.
    if len(text) * 4 > MESSAGE_BYTES and (size := len(text.encode())) > MESSAGE_BYTES:
        raise MessageTooLarge(f"Message {message.id!r}", size=size, limit=MESSAGE_BYTES)
    return text


def decode(text: str, *, seq: int) -> Message:
    """The message that ``encode`` made ``text`` of.

    What was stored is read back as it is: a rule that a later version adds to ``Message`` must not
    make yesterday's conversations unreadable.
    """
    return decode_body(loads(text), seq=seq)


def decode_body(body: dict[str, Any], *, seq: int) -> Message:
    """The message of which ``body`` is the JSON value."""
    return _trusted(
        body["role"],
        body["content"],
        body["id"],
        datetime.fromisoformat(body["created_at"]),
        body.get("metadata") or {},
        body.get("extra") or {},
        seq,
    )


def _trusted(
    role: str,
    content: Content,
    id: str,
    created_at: datetime,
    metadata: dict[str, Json],
    extra: dict[str, Json],
    seq: int,
) -> Message:
    """The message without its checks, which were made before it was stored."""
    message = object.__new__(Message)
    put = object.__setattr__
    put(message, "role", role)
    put(message, "content", content)
    put(message, "id", id)
    put(message, "created_at", created_at)
    put(message, "metadata", metadata)
    put(message, "extra", extra)
    put(message, "seq", seq)
    return message


def _checked_content(content: object) -> Content:
    match content:
        case str():
            return checked_text(content, "content", error=InvalidMessage)
        case list():
            for n, block in enumerate(content):
                if not isinstance(block, str | dict):
                    raise InvalidMessage(
                        f"content[{n}] is of type {type(block).__name__}; "
                        "a content block is a str or a dict."
                    )
            return cast(Content, checked_json(content, "content", error=InvalidMessage))
    raise InvalidMessage(
        f"content is of type {type(content).__name__}; it must be text or a list of content blocks."
    )


def _checked_id(value: object) -> str:
    text = checked_text(value, "id", error=InvalidMessage)
    if not text or len(text.encode()) > MESSAGE_ID_BYTES:
        raise InvalidMessage(f"id must have 1 to {MESSAGE_ID_BYTES:,} bytes in UTF-8.")
    return text


def _checked_time(value: object) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidMessage(
            "created_at must be an aware datetime, such as datetime.now(UTC); "
            "a time without a zone means another moment on another machine."
        )
    try:
        return to_milliseconds(value)
    except OverflowError:
        raise InvalidMessage("created_at is before the year 1 or behind 9999 in UTC.") from None


def _joined(extra: object, more: dict[str, Json]) -> dict[str, Json]:
    return extra | more if isinstance(extra, dict) else cast(dict[str, Json], extra)


__all__ = [
    "MESSAGE_BYTES",
    "METADATA_BYTES",
    "Content",
    "Message",
    "Role",
    "decode",
    "decode_body",
    "encode",
    "new_id",
    "now",
]
