"""What models take of a conversation: turns that alternate, each tool call with its result."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from chatledger import tool_calls
from chatledger.json_values import Json
from chatledger.messages import Content, Message
from chatledger.tool_calls import Block

Calls: TypeAlias = dict[str, dict[str, Json]]
"""Tool calls in the normal form, by their ids."""


def valid_for_models(messages: Sequence[Message]) -> list[Message]:
    """What models take of ``messages``, which stay as they are; never raises.

    - One system message, if any, then the user's first; what came before that is dropped. Without
      a message of the user's the list is empty.
    - The system's messages are joined, and so are neighbours of one role: texts by a blank line,
      or else their blocks. A joined message has the id, time and metadata of the last of them.
    - A tool call stays where its result comes before the assistant speaks again, in the normal
      form of ``chatledger.tool_calls``, and a result where its call stays: directly behind it, in
      the order of the calls, before what the user says. The first of one id counts. Calls and
      results among the blocks of a content are moved out of it.
    - Nothing is blank but a tool's result, and the assistant's last message does not end in white
      space.

    A message that needs no change is the very same object; of a changed one's ``extra`` only what
    it says of tool calls is left. What is valid stays as it is.
    """
    return Turns(messages).ending()


class Part(NamedTuple):
    """What models take of one message, and its place in the conversation."""

    place: int
    message: Message


class Turns:
    """What models take of a conversation and of its endings, not joined yet.

    ``systems`` are the system's messages. The ``turns`` are lists of what is to be joined: the
    user's, the assistant's, or one tool's result. The first is the user's.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.systems: list[Part] = []
        self.turns: list[list[Part]] = []
        for exchange in self._exchanges(messages):
            for reply in exchange.replies:
                calls = [call for id, call in reply.calls.items() if id in exchange.results]
                if reply.content or calls:
                    self._say(Part(reply.place, _reply(reply.message, reply.content, calls)))
            answered = [id for id in exchange.calls if id in exchange.results]
            self.turns += [[exchange.results[id]] for id in answered]
            for question in exchange.questions:
                self._say(question)
        if self.turns and self.turns[-1][0].message.role == "assistant":
            self.turns[-1] = [Part(self.turns[-1][-1].place, _ended(joined(self.turns[-1])))]

    def ending(self, turn: int = 0, first: int = 0, system: int = 0) -> list[Message]:
        """What models take from the part ``first`` of the user's ``turn`` on.

        With the system's messages from ``system`` on. It is what they take of the conversation's
        ending that starts there, as the assistant's calls and their results lie between two of the
        user's messages: an ending has both or neither.
        """
        if not self.turns:
            return []
        parts = [self.systems[system:], self.turns[turn][first:], *self.turns[turn + 1 :]]
        return [joined(said) for said in parts if said]

    def _say(self, part: Part) -> None:
        if self.turns and self.turns[-1][0].message.role == part.message.role:
            self.turns[-1].append(part)
        else:
            self.turns.append([part])

    def _exchanges(self, messages: Sequence[Message]) -> "list[_Exchange]":
        """What is said from the user's first message on; what is blank is passed over."""
        exchanges: list[_Exchange] = []
        for place, message in enumerate(messages):
            content = _said(message.content)
            match message.role:
                case "system":
                    if any(_text(block) for block in _blocks(content)):
                        self.systems.append(Part(place, _with(message, content)))
                case "user" if exchanges or content:
                    exchanges = exchanges or [_Exchange()]
                    exchanges[-1].add_results(place, message)
                    if content:
                        exchanges[-1].questions.append(Part(place, _with(message, content)))
                case "tool" if exchanges:
                    exchanges[-1].add_results(place, message)
                case "assistant" if exchanges:
                    calls = _calls(message)
                    if not content and not calls:
                        continue
                    if exchanges[-1].results or exchanges[-1].questions:
                        exchanges.append(_Exchange())
                    exchanges[-1].add_reply(place, message, content, calls)
        return exchanges


class _Reply(NamedTuple):
    place: int
    message: Message
    content: Content
    calls: Calls


@dataclass(slots=True)
class _Exchange:
    """What the assistant says, and what it is told before it speaks again."""

    replies: list[_Reply] = field(default_factory=list)
    calls: Calls = field(default_factory=dict)
    results: dict[str, Part] = field(default_factory=dict)
    questions: list[Part] = field(default_factory=list)

    def add_reply(self, place: int, message: Message, content: Content, calls: Calls) -> None:
        calls = {id: call for id, call in calls.items() if id not in self.calls}
        self.calls |= calls
        self.replies.append(_Reply(place, message, content, calls))

    def add_results(self, place: int, message: Message) -> None:
        for id, result in _results(message):
            self.results.setdefault(id, Part(place, result))


def joined(parts: Sequence[Part]) -> Message:
    """The parts of a turn as one message: the last of them, with the content and calls of all."""
    last = parts[-1].message
    if len(parts) == 1:
        return last
    contents = [part.message.content for part in parts if part.message.content]
    texts = [content for content in contents if isinstance(content, str)]
    content: Content = "\n\n".join(texts)
    if len(texts) < len(contents):
        content = [block for content in contents for block in _blocks(content)]
    if last.role != "assistant":
        return _changed(last, content=content, extra={})
    return _reply(last, content, [call for part in parts for call in part.message.tool_calls])


def _said(content: Content) -> Content:
    """The content without blank text, tool calls and results; empty where nothing is left."""
    if isinstance(content, str):
        return content if content.strip() else ""
    said = [block for block in _blocks(_without_tools(content)) if block and not _is_blank(block)]
    return content if len(said) == len(content) else said


def _without_tools(content: Content) -> Content:
    if isinstance(content, str):
        return content
    return [
        block
        for block in content
        if not tool_calls.is_call(block) and not tool_calls.is_result(block)
    ]


def _calls(message: Message) -> Calls:
    found: list[Json] = [*message.tool_calls]
    if isinstance(message.content, list):
        found += [block for block in message.content if tool_calls.is_call(block)]
    calls: Calls = {}
    for call in filter(None, map(tool_calls.normal, found)):
        calls.setdefault(str(call["id"]), call)
    return calls


def _results(message: Message) -> list[tuple[str, Message]]:
    """The results of tool calls in a user's or a tool's message, each as a tool's message."""
    found: list[tuple[str, Message]] = []
    content = message.content
    for result in map(tool_calls.result, content if isinstance(content, list) else []):
        if result is None:
            continue
        extra: dict[str, Json] = {"tool_call_id": result.call_id}
        made = _changed(
            message,
            role="tool",
            id=f"{message.id}/{result.call_id}",  # the same each time, as a new one would not be
            content=_without_tools(result.content),
            extra=extra | ({"status": "error"} if result.failed else {}),
        )
        found.append((result.call_id, made))
    id = message.tool_call_id
    if message.role == "tool" and id:
        own = _without_tools(content)
        if len(own) == len(content):
            found.append((id, message))
        else:
            kept = {
                name: message.extra[name]
                for name in ("tool_call_id", "status")
                if name in message.extra
            }
            found.append((id, _changed(message, content=own, extra=kept)))
    return found


def _with(message: Message, content: Content) -> Message:
    return message if content == message.content else _changed(message, content=content, extra={})


def _reply(message: Message, content: Content, calls: list[dict[str, Json]]) -> Message:
    if content == message.content and calls == message.tool_calls:
        return message
    return _changed(message, content=content, extra={"tool_calls": calls} if calls else {})


def _ended(message: Message) -> Message:
    """The assistant's message without white space at the end of its text."""
    if isinstance(message.content, str):
        return _with(message, message.content.rstrip())
    content = [*message.content]
    for n in reversed(range(len(content))):
        block, text = content[n], _text(content[n])
        if text is not None:
            content[n] = (
                text.rstrip() if isinstance(block, str) else block | {"text": text.rstrip()}
            )
            break
    return _with(message, content)


def _blocks(content: Content) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _is_blank(block: Block) -> bool:
    text = _text(block)
    return text is not None and not text.strip()


def _text(block: Block) -> str | None:
    """The text of a block of text; None of another kind. Bedrock's blocks say no type."""
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind == "text" or (kind is None and "text" in block):
        text = block.get("text")
        return text if isinstance(text, str) else ""
    return None


def _changed(message: Message, **fields: object) -> Message:
    # Without a check, which was made when it was stored: what another version stored may have
    # been within other limits, and must not end a conversation here.
    changed = copy(message)
    for name, value in fields.items():
        object.__setattr__(changed, name, value)
    return changed
