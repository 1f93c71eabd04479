"""Laws of invalid arguments: they are rejected, and nothing is written."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from chatledger.conversations import MAX_BATCH_MESSAGES, MAX_METADATA_BYTES, MAX_TITLE_CHARACTERS
from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    start_conversation,
    user_messages,
)
from chatledger.values import new_id

BAD_NUMBERS: list[Any] = [True, False, "3", 1.0, b"3", [3]]
BAD_LIMITS: list[Any] = [*BAD_NUMBERS, None, 0, -1, 1_001, 2**70]
BAD_REVISIONS: list[Any] = [*BAD_NUMBERS, -1, 2**53, 2**70]
BAD_MESSAGES: list[Any] = [
    None,
    [],
    (),
    "hello",
    b"hello",
    Message.user("hello"),
    {"role": "user", "content": "hello"},
    [{"role": "user", "content": "hello"}],
    ["hello"],
    [*user_messages("hello"), None],
    iter(user_messages("hello")),
    user_messages("hello") * (MAX_BATCH_MESSAGES + 1),
]
BAD_MESSAGE: list[Any] = [
    None,
    "hello",
    {"role": "user", "content": "hello"},
    user_messages("hello"),
]
BAD_TITLES: list[Any] = ["x" * (MAX_TITLE_CHARACTERS + 1), "\ud800", b"title", 7, True]
BAD_METADATA: list[Any] = [
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
    {"a": "x" * MAX_METADATA_BYTES},
]
BAD_LIFETIMES: list[Any] = [
    timedelta(),
    timedelta(seconds=-60),
    timedelta(milliseconds=999),
    timedelta(days=36_501),
    3_600,
    "1h",
    True,
]

Call: TypeAlias = Callable[[Store, str, Any], object]

BAD_ARGUMENTS: dict[str, tuple[list[Any], Call]] = {
    "append(messages)": (
        BAD_MESSAGES,
        lambda store, conversation_id, bad: store.append(conversation_id, bad),
    ),
    "append(after)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.append(
            conversation_id, user_messages("rejected"), revision=bad
        ),
    ),
    "append(truncate_after)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.append(
            conversation_id, user_messages("rejected"), truncate_after=bad
        ),
    ),
    "append(title)": (
        BAD_TITLES,
        lambda store, conversation_id, bad: store.append(
            conversation_id, user_messages("rejected"), title=bad
        ),
    ),
    "append(metadata)": (
        BAD_METADATA,
        lambda store, conversation_id, bad: store.append(
            conversation_id, user_messages("rejected"), metadata=bad
        ),
    ),
    "append(expires_in)": (
        BAD_LIFETIMES,
        lambda store, conversation_id, bad: store.append(
            conversation_id, user_messages("rejected"), expires_in=bad
        ),
    ),
    "tail(n)": (BAD_LIMITS, lambda store, conversation_id, bad: store.tail(conversation_id, bad)),
    "page(limit)": (
        BAD_LIMITS,
        lambda store, conversation_id, bad: store.page(conversation_id, limit=bad),
    ),
    "page(after)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.page(conversation_id, after=bad),
    ),
    "page(before)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.page(conversation_id, before=bad),
    ),
    "iter_messages(after)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: list(store.iter_messages(conversation_id, after=bad)),
    ),
    "iter_messages(before)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: list(store.iter_messages(conversation_id, before=bad)),
    ),
    "list(limit)": (
        BAD_LIMITS,
        lambda store, conversation_id, bad: store.list(new_id(), limit=bad),
    ),
    "update(title)": (
        BAD_TITLES,
        lambda store, conversation_id, bad: store.update(conversation_id, title=bad),
    ),
    "update(metadata)": (
        BAD_METADATA,
        lambda store, conversation_id, bad: store.update(conversation_id, metadata=bad),
    ),
    "update(revision)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.update(
            conversation_id, title="rejected", revision=bad
        ),
    ),
    "update(metadata_revision)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.update(
            conversation_id, title="rejected", metadata_revision=bad
        ),
    ),
    "truncate(after)": (
        [*BAD_REVISIONS, None],
        lambda store, conversation_id, bad: store.truncate(conversation_id, after=bad),
    ),
    "pop(n)": (BAD_LIMITS, lambda store, conversation_id, bad: store.pop(conversation_id, bad)),
    "replace(seq)": (
        [*BAD_NUMBERS, None, 2**70],
        lambda store, conversation_id, bad: store.replace(
            conversation_id, bad, Message.user("rejected")
        ),
    ),
    "replace(message)": (
        BAD_MESSAGE,
        lambda store, conversation_id, bad: store.replace(conversation_id, 1, bad),
    ),
    "replace(revision)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.replace(
            conversation_id, 1, Message.user("rejected"), revision=bad
        ),
    ),
    "remove(seq)": (
        [*BAD_NUMBERS, None, 2**70],
        lambda store, conversation_id, bad: store.remove(conversation_id, bad),
    ),
    "remove(revision)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.remove(conversation_id, 1, revision=bad),
    ),
    "fork(at)": (
        BAD_REVISIONS,
        lambda store, conversation_id, bad: store.fork(conversation_id, at=bad),
    ),
    "create(title)": (
        BAD_TITLES,
        lambda store, conversation_id, bad: store.create(conversation_id, title=bad),
    ),
    "create(metadata)": (
        BAD_METADATA,
        lambda store, conversation_id, bad: store.create(conversation_id, metadata=bad),
    ),
    "create(expires_in)": (
        BAD_LIFETIMES,
        lambda store, conversation_id, bad: store.create(conversation_id, expires_in=bad),
    ),
    "fork(expires_in)": (
        BAD_LIFETIMES,
        lambda store, conversation_id, bad: store.fork(conversation_id, expires_in=bad),
    ),
}
"""Each argument with invalid values for it and a call that passes them."""


class InvalidArgumentLaws:
    """``InvalidArgument`` for every argument except names, for which see ``NamingLaws``."""

    @pytest.mark.parametrize(("values", "call"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
    def test_an_invalid_argument_is_rejected_and_nothing_is_written(
        self, subject: Store, values: list[Any], call: Call
    ) -> None:
        existing, missing = start_conversation(subject, "hello").id, new_id()
        for bad in values:
            for conversation_id in (existing, missing):
                with assert_unchanged(subject, conversation_id), pytest.raises(InvalidArgument):
                    call(subject, conversation_id, bad)
