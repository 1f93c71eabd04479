"""What no store would take is refused, and nothing is written."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from chatledger.conversations import BATCH_MESSAGES, METADATA_BYTES, TITLE_CHARACTERS
from chatledger.errors import InvalidArgument
from chatledger.messages import Message, new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import begin, say, unchanged

NO_NUMBERS: list[Any] = [True, False, "3", 1.0, b"3", [3]]
NO_LIMITS: list[Any] = [*NO_NUMBERS, None, 0, -1, 1_001, 2**70]
NO_REVISIONS: list[Any] = [*NO_NUMBERS, -1, 2**53, 2**70]
NO_MESSAGES: list[Any] = [
    None,
    [],
    (),
    "hello",
    b"hello",
    Message.user("hello"),
    {"role": "user", "content": "hello"},
    [{"role": "user", "content": "hello"}],
    ["hello"],
    [*say("hello"), None],
    iter(say("hello")),
    say("hello") * (BATCH_MESSAGES + 1),
]
NO_MESSAGE: list[Any] = [None, "hello", {"role": "user", "content": "hello"}, say("hello")]
NO_TITLES: list[Any] = ["x" * (TITLE_CHARACTERS + 1), "\ud800", b"title", 7, True]
NO_METADATA: list[Any] = [
    "text",
    [],
    7,
    {1: "a"},
    {"a": b"bytes"},
    {"a": (1, 2)},
    {"a": {1, 2}},
    {"a": math.nan},
    {"a": math.inf},
    {"a": "\ud800"},
    {"a": 2**2_001},
    {"a": "x" * METADATA_BYTES},
]
NO_LIFETIMES: list[Any] = [
    timedelta(),
    timedelta(seconds=-60),
    timedelta(milliseconds=999),
    timedelta(days=36_501),
    3_600,
    "1h",
    True,
]

Call: TypeAlias = Callable[[Store, str, Any], object]

BAD: dict[str, tuple[list[Any], Call]] = {
    "append(messages)": (NO_MESSAGES, lambda store, where, bad: store.append(where, bad)),
    "append(after)": (
        NO_REVISIONS,
        lambda store, where, bad: store.append(where, say("refused"), after=bad),
    ),
    "append(truncate_after)": (
        NO_REVISIONS,
        lambda store, where, bad: store.append(where, say("refused"), truncate_after=bad),
    ),
    "tail(n)": (NO_LIMITS, lambda store, where, bad: store.tail(where, bad)),
    "page(limit)": (NO_LIMITS, lambda store, where, bad: store.page(where, limit=bad)),
    "page(after)": (NO_REVISIONS, lambda store, where, bad: store.page(where, after=bad)),
    "page(before)": (NO_REVISIONS, lambda store, where, bad: store.page(where, before=bad)),
    "list(limit)": (NO_LIMITS, lambda store, where, bad: store.list(new_id(), limit=bad)),
    "update(title)": (NO_TITLES, lambda store, where, bad: store.update(where, title=bad)),
    "update(metadata)": (NO_METADATA, lambda store, where, bad: store.update(where, metadata=bad)),
    "update(revision)": (
        NO_REVISIONS,
        lambda store, where, bad: store.update(where, title="refused", revision=bad),
    ),
    "truncate(after)": (
        [*NO_REVISIONS, None],
        lambda store, where, bad: store.truncate(where, after=bad),
    ),
    "pop(n)": (NO_LIMITS, lambda store, where, bad: store.pop(where, bad)),
    "replace(seq)": (
        [*NO_NUMBERS, None, 2**70],
        lambda store, where, bad: store.replace(where, bad, Message.user("refused")),
    ),
    "replace(message)": (NO_MESSAGE, lambda store, where, bad: store.replace(where, 1, bad)),
    "replace(revision)": (
        NO_REVISIONS,
        lambda store, where, bad: store.replace(where, 1, Message.user("refused"), revision=bad),
    ),
    "fork(at)": (NO_REVISIONS, lambda store, where, bad: store.fork(where, at=bad)),
    "create(title)": (NO_TITLES, lambda store, where, bad: store.create(where, title=bad)),
    "create(metadata)": (NO_METADATA, lambda store, where, bad: store.create(where, metadata=bad)),
    "create(expires_in)": (
        NO_LIFETIMES,
        lambda store, where, bad: store.create(where, expires_in=bad),
    ),
}
"""Each argument, what it does not take, and the call that passes it."""


class RefusingLaws:
    """``InvalidArgument`` for every argument but names, which ``NamingLaws`` are about."""

    @pytest.mark.parametrize(("values", "call"), BAD.values(), ids=BAD)
    def test_a_bad_argument_is_refused_and_nothing_is_written(
        self, subject: Store, values: list[Any], call: Call
    ) -> None:
        there, nowhere = begin(subject, "hello").id, new_id()
        for bad in values:
            for conversation_id in (there, nowhere):
                with unchanged(subject, conversation_id), pytest.raises(InvalidArgument):
                    call(subject, conversation_id, bad)
