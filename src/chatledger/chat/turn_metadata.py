"""The metadata that turns store in messages, for other turns to read.

The last message that a turn asks the model to answer is its question. ``extra["turn"]`` of a
question has these keys:

- ``reply``: the id that the reply to it has or will have;
- ``until``: the end of the turn's lease, in ms since 1970; or
- ``ended``: the outcome of a turn that ended without a reply;
- ``key`` and ``of``: the idempotency key, and the digest of the request that used it;
- ``spent``: the usage of the replies that were removed when the question was stored.

``extra`` of a reply has its ``model``, ``stop_reason``, ``latency_ms`` and ``usage``, and in
``spent`` the usage of all replies up to this one.

The names are short so that a message of a thousand characters and its metadata fit one write unit
of DynamoDB.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from chatledger.messages import Message
from chatledger.models.protocol import Finished, Usage
from chatledger.values import Json, dumps, new_id


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An idempotency key, and the digest of the request that uses it."""

    text: str
    digest: str


def request_digest(messages: Sequence[Message], *more: str | None) -> str:
    """Return the digest of a request, which reveals that a key is reused for another request."""
    return hashlib.sha256(dumps([*_contents(messages), *more]).encode()).hexdigest()[:24]


def with_lease(
    question: Message,
    until: int,
    *,
    key: RequestKey | None = None,
    removed_usage: Usage | None = None,
) -> Message:
    """Return ``question`` as the question of a new turn, with a lease that ends at ``until``.

    ``until`` is in ms since 1970. ``removed_usage`` is the usage of the replies that are removed
    when the question is stored.
    """
    more: dict[str, Json] = {} if key is None else {"key": key.text, "of": key.digest}
    if removed_usage is not None:
        more["spent"] = removed_usage.counts
    return _with_metadata(question, until=until, reply=new_id(), **more)


def with_lease_until(question: Message, until: int) -> Message:
    """Return ``question`` with its turn's lease extended to ``until``, in ms since 1970."""
    return _with_metadata(question, until=until)


def with_outcome(question: Message, outcome: str) -> Message:
    """Return ``question`` as the question of a turn that ended without a reply."""
    return _with_metadata(question, ended=outcome)


def is_running(question: Message, current: Message) -> bool:
    """Return whether the turn of ``question``, now stored as ``current``, is still running."""
    return "ended" not in _metadata(current) and is_same_turn(question, current)


def is_same_turn(question: Message, other: Message) -> bool:
    """Return whether both belong to the same turn; asking a question again starts a new turn."""
    return _metadata(question).get("reply") == _metadata(other).get("reply")


def without_metadata(message: Message) -> Message:
    """Return ``message`` without the metadata of its turn.

    A message that was read from a store and is sent again starts a new turn.
    """
    if not _metadata(message):
        return message
    extra = {name: value for name, value in message.extra.items() if name != "turn"}
    return replace(message, extra=extra)


def _with_metadata(question: Message, **changes: Json) -> Message:
    unchanged = {
        name: value for name, value in _metadata(question).items() if name not in ("until", "ended")
    }
    return replace(question, extra={**question.extra, "turn": {**unchanged, **changes}})


def _metadata(message: Message) -> dict[str, Any]:
    # Applications and other frameworks may store a "turn" of their own.
    metadata = message.extra.get("turn")
    if isinstance(metadata, dict) and isinstance(metadata.get("reply"), str):
        return metadata
    return {}


def reply_message(
    question: Message, text: str, finished: Finished, *, model: str, earlier_usage: Usage | None
) -> Message:
    """Return the reply to ``question`` as it is stored.

    ``earlier_usage`` is the usage of all replies before this one.
    """
    extra: dict[str, Json] = {"model": model, "stop_reason": finished.stop_reason}
    if finished.latency_ms is not None:
        extra["latency_ms"] = finished.latency_ms
    total = earlier_usage
    if finished.usage is not None:
        extra["usage"] = finished.usage.counts
        total = finished.usage if total is None else total + finished.usage
    if total is not None:
        extra["spent"] = total.counts
    id = _metadata(question)["reply"]
    return Message.assistant(text, id=id, tool_calls=finished.tool_calls, extra=extra)


def finished_event(reply: Message) -> Finished:
    """Return the ``Finished`` with which the stored reply ended."""
    latency = reply.extra.get("latency_ms")
    return Finished(
        str(reply.extra.get("stop_reason", "end_turn")),
        _usage(reply.extra.get("usage")),
        tuple(reply.tool_calls),
        latency if isinstance(latency, int) else None,
    )


def total_usage(messages: Sequence[Message]) -> Usage | None:
    """Return the usage of all replies so far, as stored in the last of ``messages`` to have it."""
    totals = (
        _usage(message.extra.get("spent") or _metadata(message).get("spent"))
        for message in reversed(messages)
    )
    return next(filter(None, totals), None)


def reply_to(question: Message, following: Sequence[Message]) -> Message | None:
    """Return the reply to ``question`` among the messages after it, or None."""
    id = _metadata(question).get("reply")
    return next((message for message in following if message.id == id), None)


def is_complete_reply(message: Message) -> bool:
    """Return whether the message is a reply, by any writer, that did not fail."""
    return message.role == "assistant" and message.extra.get("stop_reason") != "failed"


def last_question_index(messages: Sequence[Message]) -> int | None:
    """Return the index of the last message that is the question of a turn, or None."""
    return next((n for n in reversed(range(len(messages))) if _metadata(messages[n])), None)


def lease_end(messages: Sequence[Message]) -> int:
    """Return the end of the lease on the conversation that ends with ``messages``.

    It is in ms since 1970, and 0 if no turn has a lease.
    """
    n = last_question_index(messages)
    return 0 if n is None else lease_end_of(messages[n], messages[n + 1 :])


def lease_end_of(question: Message, following: Sequence[Message]) -> int:
    """Return the end of the lease that the turn of ``question`` has, or 0 if it has none."""
    if reply_to(question, following) is not None:
        return 0
    return cast(int, _metadata(question).get("until", 0))


def question_index_with_key(key: RequestKey, messages: Sequence[Message]) -> int | None:
    """Return the index of the last question that was stored with ``key``, or None."""
    numbers = reversed(range(len(messages)))
    return next((n for n in numbers if _metadata(messages[n]).get("key") == key.text), None)


def stored_digest(question: Message) -> str | None:
    """Return the digest of the request that was made with the question's key."""
    return _metadata(question).get("of")


def is_repetition(messages: Sequence[Message], last: Sequence[Message]) -> bool:
    """Return whether ``messages`` repeat ``last``, the messages of a turn that had no reply."""
    return bool(_metadata(last[-1])) and _contents(messages) == _contents(last)


def _contents(messages: Sequence[Message]) -> list[object]:
    return [[message.role, message.content, message.tool_call_id] for message in messages]


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = {name: value.get(name, 0) for name in Usage.__dataclass_fields__}
    return Usage(**counts) if all(isinstance(count, int) for count in counts.values()) else None
