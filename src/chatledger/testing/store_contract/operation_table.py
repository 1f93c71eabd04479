"""The operations of the contract in one table: how each is called, what it does, what it rejects.

The laws select their cases from ``CALLS`` by what a call does. A new operation gets its calls
here; a new parameter gets the values that are invalid for it in ``INVALID_VALUES``.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from inspect import Parameter, signature
from typing import Any

import pytest

from chatledger.conversations import (
    MAX_BATCH_MESSAGES,
    MAX_ID_BYTES,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_LIMIT,
    MAX_QUERY_CHARACTERS,
    MAX_REVISION,
)
from chatledger.entries import MAX_ENTRY_BYTES, MAX_ENTRY_NAME_BYTES
from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.descriptions import ANOTHER, CLEARED, FIELDS
from chatledger.testing.store_contract.helpers import Started, foreign_conversation, user_messages
from chatledger.values import new_id


def parameters_of(operation: str) -> dict[str, Parameter]:
    """Return the parameters of an operation of ``Store``."""
    _, *parameters = signature(getattr(Store, operation)).parameters.values()
    return {parameter.name: parameter for parameter in parameters}


@dataclass(frozen=True, slots=True)
class Call:
    """A valid call of an operation, for a conversation that has messages."""

    operation: str
    arguments: Callable[[Started], dict[str, Any]] = lambda given: {}
    """Returns the arguments apart from ``conversation_id`` and the caller's ``owner``."""
    variant: str = ""
    """Distinguishes the calls of one operation."""
    prepare: Callable[[Store, Started], object] | None = None
    """What must be done first, if the conversation exists, so that the call is valid."""

    needs_conversation: bool = True
    """It raises ``NotFound`` if the conversation does not exist."""
    needs_free_id: bool = False
    """It raises ``AlreadyExists`` if the conversation exists."""
    takes_owner: bool = True
    """Its ``owner`` is the caller's, who sees no other owner's conversations."""
    is_read: bool = False
    is_activity: bool = False
    """It moves the revision and ``updated_at``, and renews the expiry."""
    removes_messages: bool = False
    changes_metadata: bool = False
    """It moves the ``metadata_revision``."""
    deletes: bool = False
    """It deletes the conversation, or its owner's."""
    is_listed_late: bool = False
    """``list`` may show it only after the next append."""

    @property
    def name(self) -> str:
        return f"{self.operation} {self.variant}".strip()

    def __call__(
        self, store: Store, given: Started, *, caller: str | None = None, **changes: Any
    ) -> object:
        """Call the operation of ``store``.

        Args:
            store: The store.
            given: The conversation.
            caller: The owner that the caller passes, if the operation takes one.
            changes: Arguments to pass instead of valid ones.
        """
        if self.prepare is not None:
            with suppress(NotFound):
                self.prepare(store, given)
        arguments = dict(self.arguments(given))
        if "conversation_id" in parameters_of(self.operation):
            arguments.setdefault("conversation_id", given.id)
        if self.takes_owner:
            arguments["owner"] = caller
        result: object = getattr(store, self.operation)(**{**arguments, **changes})
        return list(result) if isinstance(result, Iterator) else result


def update_of(field: str) -> Call:
    """Return the call that updates one field of the description."""
    return Call(
        "update", lambda given: {field: FIELDS[field].another}, variant=field, changes_metadata=True
    )


def put_topic(store: Store, given: Started) -> None:
    """Put the entry that some calls read or delete."""
    store.put_entry(given.id, "topic", "plans")


CALLS = (
    Call(
        "create",
        lambda given: {"owner": given.owner},
        needs_conversation=False,
        needs_free_id=True,
        takes_owner=False,
    ),
    Call(
        "create",
        lambda given: {"conversation_id": None, "owner": given.owner, "idempotency_key": new_id()},
        variant="with a key",
        needs_conversation=False,
        takes_owner=False,
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another")},
        needs_conversation=False,
        is_activity=True,
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another"), "revision": given.revision},
        variant="at a revision",
        is_activity=True,
    ),
    Call(
        "append",
        lambda given: {
            "messages": user_messages("another"),
            **ANOTHER,
            "expires_in": timedelta(days=30),
        },
        variant="with fields",
        needs_conversation=False,
        is_activity=True,
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another"), "idempotency_key": new_id()},
        variant="with a key",
        needs_conversation=False,
        is_activity=True,
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another"), "reply_follows": True},
        variant="before a reply",
        needs_conversation=False,
        is_activity=True,
        is_listed_late=True,
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another"), "truncate_after": given.seqs[0]},
        variant="and truncate",
        needs_conversation=False,
        is_activity=True,
        removes_messages=True,
    ),
    Call(
        "append",
        lambda given: {"messages": user_messages("another"), "truncate_after": 0},
        variant="and truncate all",
        needs_conversation=False,
        is_activity=True,
        removes_messages=True,
    ),
    Call("get", is_read=True),
    Call("tail", lambda given: {"limit": 5}, is_read=True),
    Call("page", is_read=True),
    Call("page", lambda given: {"before": given.revision + 1}, variant="backward", is_read=True),
    Call("iter_messages", is_read=True),
    Call(
        "iter_conversations",
        lambda given: {"owner": given.owner},
        needs_conversation=False,
        takes_owner=False,
        is_read=True,
    ),
    Call(
        "list",
        lambda given: {"owner": given.owner or new_id()},
        needs_conversation=False,
        takes_owner=False,
        is_read=True,
    ),
    Call("scan", needs_conversation=False, takes_owner=False, is_read=True),
    Call(
        "search",
        lambda given: {"owner": given.owner or new_id(), "query": "hello"},
        needs_conversation=False,
        takes_owner=False,
        is_read=True,
    ),
    Call(
        "restore",
        lambda given: {
            "conversation": foreign_conversation(
                given.revision + 5, id=given.id, owner=given.owner
            ),
            "messages": [],
            "revision": given.revision,
        },
        takes_owner=False,
    ),
    *map(update_of, FIELDS),
    Call(
        "update",
        lambda given: {**ANOTHER, "revision": given.revision},
        variant="at a revision",
        changes_metadata=True,
    ),
    Call("update", lambda given: CLEARED, variant="all to nothing", changes_metadata=True),
    Call("update", variant="nothing"),
    Call(
        "claim",
        lambda given: {"owner": given.owner or new_id()},
        takes_owner=False,
        is_activity=True,
    ),
    Call(
        "truncate", lambda given: {"after": given.seqs[0]}, is_activity=True, removes_messages=True
    ),
    Call(
        "truncate",
        lambda given: {"after": 0},
        variant="all",
        is_activity=True,
        removes_messages=True,
    ),
    Call("truncate", lambda given: {"after": given.revision}, variant="nothing"),
    Call("pop", is_activity=True, removes_messages=True),
    Call(
        "pop",
        lambda given: {"limit": MAX_LIMIT},
        variant="all",
        is_activity=True,
        removes_messages=True,
    ),
    Call("clear", is_activity=True, removes_messages=True),
    Call(
        "replace",
        lambda given: {"seq": given.seqs[0], "message": Message.user("another")},
        is_activity=True,
    ),
    Call(
        "remove",
        lambda given: {"seq": given.seqs[0]},
        variant="the first",
        is_activity=True,
        removes_messages=True,
    ),
    Call(
        "remove",
        lambda given: {"seq": given.seqs[len(given.seqs) // 2]},
        variant="one between",
        is_activity=True,
        removes_messages=True,
    ),
    Call(
        "remove",
        lambda given: {"seq": given.seqs[-1]},
        variant="the last",
        is_activity=True,
        removes_messages=True,
    ),
    Call("fork"),
    Call("fork", lambda given: {"at": 0, "new_id": new_id()}, variant="the beginning"),
    Call("fork", lambda given: {"idempotency_key": new_id()}, variant="with a key"),
    Call("put_entry", lambda given: {"name": "summary", "value": {"text": "another"}}),
    Call(
        "put_entry",
        lambda given: {
            "name": "summary",
            "value": None,
            "revision": 0,
            "expires_in": timedelta(days=30),
        },
        variant="at revision 0",
    ),
    Call("entry", lambda given: {"name": "topic"}, prepare=put_topic, is_read=True),
    Call("entries", lambda given: {"prefix": "to"}, prepare=put_topic, is_read=True),
    Call("delete_entry", lambda given: {"name": "topic"}, prepare=put_topic),
    Call("delete", deletes=True),
    Call(
        "delete", lambda given: {"revision": given.revision}, variant="at a revision", deletes=True
    ),
    Call(
        "delete_owner",
        lambda given: {"owner": given.owner or new_id()},
        needs_conversation=False,
        takes_owner=False,
        deletes=True,
    ),
    Call("sweep", needs_conversation=False, takes_owner=False),
)
"""Every operation of the contract, with the variants that matter to the laws."""

OWNER_CALLS = tuple(call for call in CALLS if call.needs_conversation and call.takes_owner)
"""The calls that raise ``NotFound`` both for a missing conversation and for another owner's."""


def each_of(calls: Iterable[Call]) -> pytest.MarkDecorator:
    """Parametrize a law with the calls, as ``call``."""
    cases = list(calls)
    return pytest.mark.parametrize("call", cases, ids=[call.name for call in cases])


def invalid_names(size: int) -> list[Any]:
    """Return values that are not valid names if a name has at most ``size`` bytes."""
    return ["", "x" * (size + 1), "\u00e9" * (size // 2) + "x", "\ud800", "a\udfff", 7, b"x", True]


INVALID_NUMBERS: list[Any] = [True, False, "3", 1.0, b"3", [3], -1, 2**70]
INVALID_REVISIONS: list[Any] = [*INVALID_NUMBERS, MAX_REVISION + 1]
INVALID_MESSAGES: list[Any] = [
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

INVALID_VALUES: dict[str, list[Any]] = {
    "conversation_id": invalid_names(MAX_ID_BYTES),
    "new_id": invalid_names(MAX_ID_BYTES),
    "owner": invalid_names(MAX_ID_BYTES),
    "idempotency_key": invalid_names(MAX_IDEMPOTENCY_KEY_BYTES),
    "messages": INVALID_MESSAGES,
    "append(messages)": [*INVALID_MESSAGES, [], ()],
    "message": ["hello", {"role": "user", "content": "hello"}, user_messages("hello")],
    "conversation": ["hello", {"id": "hello"}],
    **{name: examples.invalid for name, examples in FIELDS.items()},
    "name": invalid_names(MAX_ENTRY_NAME_BYTES),
    "prefix": invalid_names(MAX_ENTRY_NAME_BYTES)[1:],  # "" is valid
    "value": [
        b"bytes",
        (1, 2),
        {1: "a"},
        {"a": {1, 2}},
        [math.nan],
        math.inf,
        "\ud800",
        2**2_001,
        "x" * (MAX_ENTRY_BYTES - 1),
    ],
    "expires_in": [
        timedelta(),
        timedelta(seconds=-60),
        timedelta(milliseconds=999),
        timedelta(days=36_501),
        3_600,
        "1h",
        True,
    ],
    "limit": [*INVALID_NUMBERS, 0, MAX_LIMIT + 1],
    "seq": [*INVALID_REVISIONS, 0],
    "revision": INVALID_REVISIONS,
    "metadata_revision": INVALID_REVISIONS,
    "after": INVALID_REVISIONS,
    "before": INVALID_REVISIONS,
    "at": INVALID_REVISIONS,
    "truncate_after": INVALID_REVISIONS,
    "cursor": ["", "x", "%", "caf\xe9", "\ud800", 7, b"x", True],
    "query": ["", " ", "!?", "🎉", "x" * (MAX_QUERY_CHARACTERS + 1), "\ud800", 7, b"x", True],
    "reply_follows": [],  # any value is true or false
}
"""Invalid values for parameters, by name; ``operation(name)`` is for that operation alone.

None is invalid too, unless it is the parameter's default or the parameter may be any JSON value.
"""


def invalid_values(operation: str, parameter: str) -> list[Any]:
    """Return values that the operation rejects with ``InvalidArgument``."""
    values = INVALID_VALUES.get(f"{operation}({parameter})", INVALID_VALUES.get(parameter))
    if not values:
        return []
    takes_none = parameter == "value" or parameters_of(operation)[parameter].default is None
    return values if takes_none else [*values, None]
