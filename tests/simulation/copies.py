"""Copies of a conversation to another id, by the code that copies between stores.

A copy is played as the operations that it calls, so that each is checked like any other.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias, cast

from chatledger.conversations import Conversation, Listing, fields_of
from chatledger.copying.conversation import ConversationCopy, copy_until_stable
from chatledger.copying.progress import ProgressReporter, TargetDiffers
from chatledger.entries import Entries
from chatledger.errors import ChatledgerError
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.values import milliseconds
from tests.simulation.model import time_in_ms

OperationCall: TypeAlias = tuple[str, str, dict[str, Any]]
"""A kind of operation, the conversation, and the arguments."""
Script: TypeAlias = Generator[OperationCall, Any, None]
"""Yields operations to call; receives each answer, or has the error thrown into it."""


def copy_script(conversation: str, target: str) -> Script:
    """Scan for the conversation, and copy it to the id ``target`` if it is listed."""
    listing: Listing = yield "scan", "", {"owner": None, "limit": 100}
    found = [listed for listed in listing.conversations if listed.id == conversation]
    if not found:
        return
    steps = copy_until_stable(
        ConversationCopy(
            source=cast(Store, _Side(conversation)),
            target=cast(Store, _Side(target)),
            id=conversation,
            owner=found[0].owner,
            reporter=ProgressReporter(None),
        )
    )
    answer: Any = None
    error: ChatledgerError | None = None
    while True:
        try:
            operation = steps.throw(error) if error else steps.send(answer)
        except (StopIteration, TargetDiffers):
            return
        answer, error = None, None
        try:
            call = operation()
            answer = call if isinstance(call, Entries) else (yield call)
        except ChatledgerError as raised:
            error = raised
        if isinstance(answer, Conversation):
            answer = replace(answer, id=conversation)


class _Side:
    """The store on one side of the copy: returns the operations instead of calling them."""

    def __init__(self, id: str) -> None:
        self._id = id

    def get(self, _: str, *, owner: str | None = None) -> OperationCall:
        return "get", self._id, {"owner": owner}

    def page(
        self,
        _: str,
        *,
        limit: int,
        after: int | None = None,
        before: int | None = None,
        owner: str | None = None,
    ) -> OperationCall:
        arguments = {"after": after, "before": before, "limit": limit, "owner": owner}
        return "page", self._id, arguments

    def entries(
        self, _: str, *, limit: int, cursor: str | None, owner: str | None
    ) -> OperationCall:
        assert cursor is None
        return "entries", self._id, {"owner": owner, "prefix": "", "limit": limit}

    def put_entry(
        self,
        _: str,
        name: str,
        value: str,
        *,
        revision: int,
        expires_in: timedelta | None,
        owner: str | None,
    ) -> OperationCall:
        arguments = {
            "name": name,
            "value": value,
            "revision": revision,
            "lifetime": None if expires_in is None else milliseconds(expires_in),
            "owner": owner,
        }
        return "put_entry", self._id, arguments

    def delete_entry(self, _: str, name: str, *, revision: int, owner: str | None) -> OperationCall:
        return "delete_entry", self._id, {"name": name, "revision": revision, "owner": owner}

    def update(self, _: str, *, revision: int, **changes: Any) -> OperationCall:
        others = {"revision": revision, "metadata_revision": None, "owner": None}
        return "update", self._id, {**changes, **others}

    def restore(
        self, restored: Conversation, messages: Sequence[Message], *, revision: int
    ) -> OperationCall:
        expires_at = restored.expires_at
        arguments = {
            "owner": restored.owner,
            "after": revision,
            "texts": [message.content for message in messages],
            "revision": restored.revision,
            **fields_of(restored),
            "created_at": time_in_ms(restored.created_at),
            "updated_at": time_in_ms(restored.updated_at),
            "expires_at": None if expires_at is None else time_in_ms(expires_at),
        }
        return "restore", self._id, arguments
