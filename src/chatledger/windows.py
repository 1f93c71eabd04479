"""Windows, each of which selects the part of a conversation that a model sees."""

import json
from bisect import bisect
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import dropwhile
from typing import Any, NamedTuple, TypeAlias

from chatledger import tool_calls
from chatledger.conversations import MAX_LIMIT
from chatledger.errors import InvalidArgument
from chatledger.messages import Content, Message
from chatledger.stores.arguments import checked_number
from chatledger.tool_calls import ContentBlock
from chatledger.values import Json

__all__ = [
    "Window",
    "approximate_tokens",
    "last",
    "starting_with_user",
    "valid_for_models",
    "within_tokens",
]

# Token budgets ------------------------------------------------------------------------------------


OVERHEAD_TOKENS = 4
"""The tokens for a message's role and delimiters."""
MEDIA_TOKENS = 1_600
"""The approximate tokens of an image; a document or a recording may have many times more."""
_MEDIA_TYPES = frozenset(
    ["audio", "document", "file", "image", "image_url", "input_audio", "input_image", "video"]
)


def approximate_tokens(message: Message) -> int:
    """Return the approximate number of tokens of ``message`` for any model; it is never 0.

    An ASCII character counts as a quarter of a token, a Greek, Cyrillic or Arabic one as five
    eighths, and a Chinese, Japanese or Korean one as a whole token. Tool calls and results are
    included. An image or a document counts as ``MEDIA_TOKENS`` whatever its size, and other blocks
    count as their JSON. Each message has ``OVERHEAD_TOKENS`` more. The estimate is close for
    English prose, and about 20% too low for code and numbers: leave a margin, or count with the
    model's tokenizer.
    """
    blocks = [message.content] if isinstance(message.content, str) else message.content
    tool_data: Any = None
    if message.role == "assistant":
        tool_data = message.tool_calls
    elif message.role == "tool":
        tool_data = message.tool_call_id
    eighths = sum(map(_block_eighths, blocks))
    if tool_data:
        eighths += _text_eighths(_json(tool_data))
    return OVERHEAD_TOKENS + -(-eighths // 8)


def approximate_text_tokens(text: str) -> int:
    """Return the approximate number of tokens of ``text``, as ``approximate_tokens`` counts."""
    return -(-_text_eighths(text) // 8)


def _block_eighths(block: ContentBlock) -> int:
    """Return the eighths of a token in a block; the message's sum is rounded up only once."""
    if isinstance(block, str):
        return _text_eighths(block)
    kind, text = block.get("type"), block.get("text")
    if not _MEDIA_TYPES.isdisjoint([kind] if isinstance(kind, str) else block):
        return 8 * MEDIA_TOKENS
    if kind in (None, "text") and isinstance(text, str):
        return _text_eighths(text)
    return _text_eighths(_json(block))


def _text_eighths(text: str) -> int:
    # 2, 5, 8 and 11 for a character of one to four bytes in UTF-8, without a loop over characters.
    return 3 * len(text.encode(errors="surrogatepass")) - len(text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def longest_ending(
    messages: Sequence[Message], *, budget: int, count: Callable[[Message], int]
) -> list[Message]:
    """Return the longest ending that has at most ``budget`` tokens once it is valid for models.

    If none fits, return the shortest ending that is not empty. ``count`` returns the tokens of a
    message.
    """
    valid = ValidRuns(messages)
    runs, system_indexes = valid.runs, [part.message_index for part in valid.systems]
    # Two endings differ, once valid, only if the longer one has another user or system message,
    # and everything after its first run is the same in every longer ending. So the search goes
    # from the end to the start, joins and counts each run once, and never looks at messages far
    # before the first one that does not fit.
    user_parts = [
        (part.message_index, run, first)
        for run, parts in enumerate(runs)
        if parts[0].message.role == "user"
        for first, part in enumerate(parts)
    ]
    previous_indexes = [-1, *(index for index, _, _ in user_parts)][:-1]

    @cache
    def system_tokens(first: int) -> int:
        return count(joined_message(valid.systems[first:])) if first < len(system_indexes) else 0

    best: tuple[int, int, int] | None = None
    counted_tokens, first_counted = 0, len(runs)  # the tokens of runs[first_counted:]
    for (index, run, first), previous in zip(
        reversed(user_parts), reversed(previous_indexes), strict=True
    ):
        newly_counted = runs[run + 1 : first_counted]
        counted_tokens += sum(count(joined_message(parts)) for parts in newly_counted)
        tokens = counted_tokens + count(joined_message(runs[run][first:]))
        counted_tokens, first_counted = (tokens, run) if first == 0 else (counted_tokens, run + 1)
        # The endings that start between the previous user message and this one, shortest first:
        # each has one more system message.
        first_system = bisect(system_indexes, index)
        last_system = bisect(system_indexes, previous)
        for system in range(first_system, last_system - 1, -1):
            if best and tokens + system_tokens(system) > budget:
                return valid.ending(*best)
            best = (run, first, system)
    return valid.ending(*best) if best else []


# Windows ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """A rule that selects the part of a conversation that a model sees.

    ``window(messages)`` passes the last ``reads`` messages to ``choose`` and makes the result valid
    with ``valid_for_models``. The store therefore needs to read only the last ``reads`` messages,
    however long the conversation is.

    Args:
        choose: A function from the messages to those in the window.
        reads: The number of last messages that ``choose`` gets, 1 to 1,000.

    Raises:
        InvalidArgument: ``choose`` is not a function, or ``reads`` is out of range.
    """

    choose: Callable[[Sequence[Message]], list[Message]]
    reads: int

    def __post_init__(self) -> None:
        _check_function(self.choose, "choose", "from messages to those in the window")
        checked_number(self.reads, "reads", least=1, most=MAX_LIMIT)

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        return valid_for_models(self.choose(messages[-self.reads :]))


def last(n: int) -> Window:
    """Return the window of the last ``n`` messages (1 to 1,000), made valid for models.

    Raises:
        InvalidArgument: ``n`` is out of range.
    """
    checked_number(n, "n", least=1, most=MAX_LIMIT)
    return Window(list, n)


def within_tokens(
    budget: int, *, count: Callable[[Message], int] = approximate_tokens, reads: int = 200
) -> Window:
    """Return the window of the longest ending of a conversation that fits a token budget.

    The messages are counted as the model gets them, after ``valid_for_models``. If the user's last
    message and everything after it exceed the budget, the window is still those messages, and the
    model may report that they are too long.

    Args:
        budget: The most tokens that the window may have.
        count: A function from a message to its number of tokens, 0 or more. A longer message must
            not count less than a shorter one, because the search stops at the first ending that
            does not fit.
        reads: The number of last messages that are considered, 1 to 1,000.

    Raises:
        InvalidArgument: A number is out of range, or ``count`` is not a function.
    """
    checked_number(budget, "budget", least=1)
    _check_function(count, "count", "from a message to its number of tokens")
    return Window(partial(longest_ending, budget=budget, count=count), reads)


def starting_with_user(messages: Sequence[Message]) -> list[Message]:
    """Return the messages from the first user message on.

    Models refuse a conversation that starts with a reply.
    """
    return list(dropwhile(lambda message: message.role != "user", messages))


def _check_function(value: object, name: str, signature: str) -> None:
    if not callable(value):
        raise InvalidArgument(
            f"{name} is of type {type(value).__name__}; it must be a function {signature}."
        )


# Validity -----------------------------------------------------------------------------------------
#
# Models demand alternating roles, and a result for each tool call. A "run" is a stretch of
# neighbouring messages of one role, which become one message.


CallsById: TypeAlias = dict[str, dict[str, Json]]
"""Tool calls in normal form, by id."""


def valid_for_models(messages: Sequence[Message]) -> list[Message]:
    """Return ``messages`` in a form that models accept, whatever they contain.

    - The result is one system message, if there is any, and then the messages from the first user
      message on; earlier replies and tool messages are dropped. Without a user message, the result
      is empty.
    - All system messages are joined, and so are neighbouring messages of one role: their texts with
      a blank line in between, or their blocks if some have blocks. A joined message has the id and
      time of the last one.
    - A tool call is kept if its result comes before the assistant's next message. Calls are in the
      normal form of ``chatledger.tool_calls``. Results follow their calls directly, in the order of
      the calls, before the user's text. If several calls or results have the same id, the first is
      kept. Calls and results among the blocks of a message's content become calls and messages of
      their own.
    - Blank text is dropped, except in a tool's result, and the assistant's last message does not
      end in whitespace.

    The messages passed in are not changed. A message that is already valid is returned as the same
    object; a changed one keeps only the parts of its ``extra`` about tool calls.
    """
    return ValidRuns(messages).ending()


class Part(NamedTuple):
    """The valid form of one message, and the message's index in the conversation."""

    message_index: int
    message: Message


class ValidRuns:
    """The valid parts of a conversation, grouped into runs that are not joined yet.

    ``systems`` contains the parts of system messages. Each of ``runs`` contains the parts that are
    joined into one message: a user's, an assistant's, or one tool result. The first run is a
    user's.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.systems: list[Part] = []
        self.runs: list[list[Part]] = []
        for exchange in self._exchanges(messages):
            for reply in exchange.replies:
                calls = [call for id, call in reply.calls.items() if id in exchange.results]
                if reply.content or calls:
                    message = _with_content_and_calls(reply.message, reply.content, calls)
                    self._add(Part(reply.message_index, message))
            answered = [id for id in exchange.calls if id in exchange.results]
            self.runs += [[exchange.results[id]] for id in answered]
            for question in exchange.questions:
                self._add(question)
        if self.runs and self.runs[-1][0].message.role == "assistant":
            last_run = self.runs[-1]
            stripped = _right_stripped(joined_message(last_run))
            self.runs[-1] = [Part(last_run[-1].message_index, stripped)]

    def ending(self, run: int = 0, first: int = 0, system: int = 0) -> list[Message]:
        """Return the joined messages, from one part of a user's run to the end.

        They are also the valid form of the conversation's ending that starts with the message of
        that part: calls and their results lie between two user messages, so an ending has both or
        neither.

        Args:
            run: The index of a user's run.
            first: The index of the first part to take from that run.
            system: The index of the first system part to take.
        """
        if not self.runs:
            return []
        runs = [self.systems[system:], self.runs[run][first:], *self.runs[run + 1 :]]
        return [joined_message(parts) for parts in runs if parts]

    def _add(self, part: Part) -> None:
        if self.runs and self.runs[-1][0].message.role == part.message.role:
            self.runs[-1].append(part)
        else:
            self.runs.append([part])

    def _exchanges(self, messages: Sequence[Message]) -> "list[_Exchange]":
        """Return the exchanges from the user's first message on; collect system messages."""
        exchanges: list[_Exchange] = []
        for index, message in enumerate(messages):
            content = _cleaned(message.content)
            match message.role:
                case "system":
                    if any(_text(block) for block in _blocks(content)):
                        self.systems.append(Part(index, _with_content(message, content)))
                case "user" if exchanges or content:
                    exchanges = exchanges or [_Exchange()]
                    exchanges[-1].add_results(index, message)
                    if content:
                        question = Part(index, _with_content(message, content))
                        exchanges[-1].questions.append(question)
                case "tool" if exchanges:
                    exchanges[-1].add_results(index, message)
                case "assistant" if exchanges:
                    calls = _calls(message)
                    if not content and not calls:
                        continue
                    if exchanges[-1].results or exchanges[-1].questions:
                        exchanges.append(_Exchange())
                    exchanges[-1].add_reply(index, message, content, calls)
        return exchanges


class _Reply(NamedTuple):
    message_index: int
    message: Message
    content: Content
    calls: CallsById


@dataclass(slots=True)
class _Exchange:
    """Neighbouring messages of the assistant, and all messages up to its next one."""

    replies: list[_Reply] = field(default_factory=list)
    calls: CallsById = field(default_factory=dict)
    results: dict[str, Part] = field(default_factory=dict)
    questions: list[Part] = field(default_factory=list)

    def add_reply(self, index: int, message: Message, content: Content, calls: CallsById) -> None:
        calls = {id: call for id, call in calls.items() if id not in self.calls}
        self.calls |= calls
        self.replies.append(_Reply(index, message, content, calls))

    def add_results(self, index: int, message: Message) -> None:
        for id, result in _results(message):
            self.results.setdefault(id, Part(index, result))


def joined_message(parts: Sequence[Part]) -> Message:
    """Return the parts of a run as one message: the last one, with the content of all parts."""
    last_message = parts[-1].message
    if len(parts) == 1:
        return last_message
    contents = [part.message.content for part in parts if part.message.content]
    texts = [content for content in contents if isinstance(content, str)]
    content: Content = "\n\n".join(texts)
    if len(texts) < len(contents):
        content = [block for content in contents for block in _blocks(content)]
    if last_message.role != "assistant":
        return _copy_with(last_message, content=content, extra={})
    calls = [call for part in parts for call in part.message.tool_calls]
    return _with_content_and_calls(last_message, content, calls)


def _cleaned(content: Content) -> Content:
    """Return the content without blank texts, tool calls and results; it may be empty."""
    if isinstance(content, str):
        return content if content.strip() else ""
    blocks = [block for block in _blocks(_without_tools(content)) if block and not _is_blank(block)]
    return content if len(blocks) == len(content) else blocks


def _without_tools(content: Content) -> Content:
    if isinstance(content, str):
        return content
    return [
        block
        for block in content
        if not tool_calls.is_call(block) and not tool_calls.is_result(block)
    ]


def _calls(message: Message) -> CallsById:
    found: list[Json] = [*message.tool_calls]
    if isinstance(message.content, list):
        found += [block for block in message.content if tool_calls.is_call(block)]
    calls: CallsById = {}
    for call in filter(None, map(tool_calls.normalize_call, found)):
        calls.setdefault(str(call["id"]), call)
    return calls


def _results(message: Message) -> list[tuple[str, Message]]:
    """Return the tool results in a user's or a tool's message as call ids and tool messages."""
    found: list[tuple[str, Message]] = []
    content = message.content
    for result in map(tool_calls.parse_result, content if isinstance(content, list) else []):
        if result is None:
            continue
        extra: dict[str, Json] = {"tool_call_id": result.call_id}
        tool_message = _copy_with(
            message,
            role="tool",
            id=f"{message.id}/{result.call_id}",  # the same id each time; a new one would differ
            content=_without_tools(result.content),
            extra=extra | ({"status": "error"} if result.is_error else {}),
        )
        found.append((result.call_id, tool_message))
    id = message.tool_call_id
    if message.role == "tool" and id:
        own_content = _without_tools(content)
        if len(own_content) == len(content):
            found.append((id, message))
        else:
            tool_fields = {
                name: message.extra[name]
                for name in ("tool_call_id", "status")
                if name in message.extra
            }
            found.append((id, _copy_with(message, content=own_content, extra=tool_fields)))
    return found


def _with_content(message: Message, content: Content) -> Message:
    if content == message.content:
        return message
    return _copy_with(message, content=content, extra={})


def _with_content_and_calls(
    message: Message, content: Content, calls: list[dict[str, Json]]
) -> Message:
    if content == message.content and calls == message.tool_calls:
        return message
    return _copy_with(message, content=content, extra={"tool_calls": calls} if calls else {})


def _right_stripped(message: Message) -> Message:
    """Return the assistant's message without whitespace at the end of its last text."""
    if isinstance(message.content, str):
        return _with_content(message, message.content.rstrip())
    content = [*message.content]
    for n in reversed(range(len(content))):
        block, text = content[n], _text(content[n])
        if text is not None:
            content[n] = (
                text.rstrip() if isinstance(block, str) else block | {"text": text.rstrip()}
            )
            break
    return _with_content(message, content)


def _blocks(content: Content) -> list[ContentBlock]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _is_blank(block: ContentBlock) -> bool:
    text = _text(block)
    return text is not None and not text.strip()


def _text(block: ContentBlock) -> str | None:
    """Return the text of a text block, or None for another kind. Bedrock's blocks have no type."""
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind == "text" or (kind is None and "text" in block):
        text = block.get("text")
        return text if isinstance(text, str) else ""
    return None


def _copy_with(message: Message, **fields: object) -> Message:
    # This skips the checks of a new message: it was checked when it was stored, and a message that
    # another version stored under other limits must not make the conversation unusable.
    changed = copy(message)
    for name, value in fields.items():
        object.__setattr__(changed, name, value)
    return changed
