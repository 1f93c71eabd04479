"""What turns write into the messages they keep, so that other turns can read it there.

A question's ``extra["turn"]`` says which id the ``reply`` to it has or will have; that its turn
holds the conversation ``until`` then (ms since 1970), or how it ``ended`` without a reply; with
which idempotency ``key`` it was asked, and what for (``of``, a digest); and what replies had
``spent`` that were removed as it was stored. A reply's ``extra`` says which ``model`` made it, its
``stop_reason`` and ``usage``, and what all replies have ``spent`` with it. All of it is brief: with
a thousand characters beside it, it is to fit one write unit.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from chatledger.json_values import Json, dumps
from chatledger.messages import Message, new_id
from chatledger.models.protocol import Finished, Usage


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the digest of what was asked with it."""

    text: str
    digest: str


def digest(messages: Sequence[Message], *more: str | None) -> str:
    """Tells apart what is asked with one key."""
    return hashlib.sha256(dumps([*_asked(messages), *more]).encode()).hexdigest()[:24]


def held(
    question: Message, until: int, key: Key | None = None, spent: Usage | None = None
) -> Message:
    """``question`` as that of a turn which holds its conversation until then.

    ``spent`` is what replies took that are removed as it is stored.
    """
    more: dict[str, Json] = {} if key is None else {"key": key.text, "of": key.digest}
    if spent is not None:
        more["spent"] = spent.counts
    return _marked(question, until=until, reply=new_id(), **more)


def renewed(question: Message, until: int) -> Message:
    """``question``, whose turn still runs."""
    return _marked(question, until=until)


def ended(question: Message, how: str) -> Message:
    """``question``, whose turn ended without a reply."""
    return _marked(question, ended=how)


def runs(question: Message, now: Message) -> bool:
    """Whether the turn of ``question``, which stands as ``now``, is still the one that runs."""
    return "ended" not in _mark(now) and are_of_one_turn(question, now)


def are_of_one_turn(question: Message, other: Message) -> bool:
    """Whether both are the question of the same turn: one that is asked anew is of another."""
    return _mark(question).get("reply") == _mark(other).get("reply")


def unmarked(message: Message) -> Message:
    """``message`` as it was before a turn marked it: who sends one that was read asks anew."""
    if not _mark(message):
        return message
    extra = {name: value for name, value in message.extra.items() if name != "turn"}
    return replace(message, extra=extra)


def _marked(question: Message, **how: Json) -> Message:
    kept = {
        name: value for name, value in _mark(question).items() if name not in ("until", "ended")
    }
    return replace(question, extra={**question.extra, "turn": {**kept, **how}})


def _mark(message: Message) -> dict[str, Any]:
    # Others may have a "turn" of their own there.
    mark = message.extra.get("turn")
    return mark if isinstance(mark, dict) and isinstance(mark.get("reply"), str) else {}


def answer(
    question: Message, text: str, finished: Finished, *, model: str, spent: Usage | None
) -> Message:
    """The reply to ``question`` as it is kept; ``spent`` is what the replies before took."""
    extra: dict[str, Json] = {"model": model, "stop_reason": finished.stop_reason}
    if finished.latency_ms is not None:
        extra["latency_ms"] = finished.latency_ms
    if finished.usage is not None:
        extra["usage"] = finished.usage.counts
        spent = finished.usage if spent is None else spent + finished.usage
    if spent is not None:
        extra["spent"] = spent.counts
    id = _mark(question)["reply"]
    return Message.assistant(text, id=id, tool_calls=finished.tool_calls, extra=extra)


def finished(reply: Message) -> Finished:
    """How the reply that was kept had ended."""
    latency = reply.extra.get("latency_ms")
    return Finished(
        str(reply.extra.get("stop_reason", "end_turn")),
        _usage(reply.extra.get("usage")),
        tuple(reply.tool_calls),
        latency if isinstance(latency, int) else None,
    )


def spent(messages: Sequence[Message]) -> Usage | None:
    """What all replies took up to the last of ``messages`` that says so."""
    sums = (
        _usage(message.extra.get("spent") or _mark(message).get("spent"))
        for message in reversed(messages)
    )
    return next(filter(None, sums), None)


def reply_to(question: Message, behind: Sequence[Message]) -> Message | None:
    """The reply to ``question`` among the messages behind it."""
    id = _mark(question).get("reply")
    return next((message for message in behind if message.id == id), None)


def is_whole_reply(message: Message) -> bool:
    """Whether it is a reply, of whomever, and not what was said of one that failed."""
    return message.role == "assistant" and message.extra.get("stop_reason") != "failed"


def last_asked(messages: Sequence[Message]) -> int | None:
    """The index of the last question of a turn."""
    return next((n for n in reversed(range(len(messages))) if _mark(messages[n])), None)


def held_until(messages: Sequence[Message]) -> int:
    """Until when (ms since 1970) a turn holds the conversation that ends so; 0: none does."""
    n = last_asked(messages)
    return 0 if n is None else holds_until(messages[n], messages[n + 1 :])


def holds_until(question: Message, behind: Sequence[Message]) -> int:
    """Until when the turn of ``question`` holds its conversation; 0: it does not."""
    if reply_to(question, behind) is not None:
        return 0
    return cast(int, _mark(question).get("until", 0))


def asked_with(key: Key, messages: Sequence[Message]) -> int | None:
    """The index of the question that was asked with that key."""
    numbers = reversed(range(len(messages)))
    return next((n for n in numbers if _mark(messages[n]).get("key") == key.text), None)


def digest_of(question: Message) -> str | None:
    """Of what was asked with the question's key."""
    return _mark(question).get("of")


def are_repeated(question: Sequence[Message], last: Sequence[Message]) -> bool:
    """Whether ``last``, to which nobody replied, asks the same in a turn that has ended."""
    return bool(_mark(last[-1])) and _asked(question) == _asked(last)


def _asked(messages: Sequence[Message]) -> list[object]:
    return [[message.role, message.content, message.tool_call_id] for message in messages]


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = {name: value.get(name, 0) for name in Usage.__dataclass_fields__}
    return Usage(**counts) if all(isinstance(count, int) for count in counts.values()) else None
