"""Laws of ``scan``: every conversation of the store, page by page."""

from datetime import timedelta
from typing import Any

import pytest

from chatledger.conversations import MAX_LIMIT
from chatledger.errors import InvalidArgument
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    ids_of,
    scan_all,
    start_conversation,
    user_messages,
)
from chatledger.values import new_id


class ScanningLaws:
    """``scan``."""

    def test_a_scan_shows_every_live_conversation_once(self, subject: Store, clock: Clock) -> None:
        owner = new_id()
        live = [start_conversation(subject, "hello", owner=owner) for _ in range(4)]
        live += [
            start_conversation(subject, "hello"),
            start_conversation(subject),
            start_conversation(subject, owner=owner),
        ]
        deleted = start_conversation(subject, "deleted", owner=owner)
        subject.delete(deleted.id)
        reused = start_conversation(subject, "deleted", owner=owner)
        subject.delete(reused.id)
        live.append(start_conversation(subject, "reused", conversation_id=reused.id))
        expired_conversation = start_conversation(subject, "expired", expires_in=timedelta(hours=1))
        clock.advance(timedelta(hours=2))
        total = len(scan_all(subject))
        for limit in (1, 3, 100, MAX_LIMIT):
            if total // limit > 50:
                continue  # a shared store has many others, and this would take long
            found = scan_all(subject, limit=limit)
            ids = ids_of(found)
            assert len(ids) == len(set(ids)) == total
            assert not {deleted.id, expired_conversation.id} & set(ids)
            shown = {conversation.id: conversation for conversation in found}
            for conversation in live:
                assert shown[conversation.id] == subject.get(conversation.id)

    def test_a_scan_continues_whatever_changes(self, subject: Store) -> None:
        owner = new_id()
        ids = {start_conversation(subject, "hello", owner=owner).id for _ in range(8)}
        limit = max(1, len(scan_all(subject)) // 4)
        seen: list[str] = []
        deleted: set[str] = set()
        cursor = None
        while True:
            listing = subject.scan(limit=limit, cursor=cursor)
            seen += ids_of(listing.conversations)
            cursor = listing.cursor
            if cursor is None:
                break
            for conversation_id in ids_of(listing.conversations)[-1:]:
                if conversation_id in ids:
                    subject.delete(conversation_id)
                    deleted.add(conversation_id)
            for conversation_id in ids - deleted:
                subject.append(conversation_id, user_messages("activity"))
            start_conversation(subject, "new")
            if len(deleted) == 4:
                limit = MAX_LIMIT
        assert len(seen) == len(set(seen))
        assert ids <= set(seen)

    def test_a_scan_rejects_cursors_that_no_scan_returned(self, subject: Store) -> None:
        owner = new_id()
        for _ in range(2):
            start_conversation(subject, owner=owner)
        cursors: list[Any] = ["", "x", subject.list(owner, limit=1).cursor]
        for cursor in cursors:
            with pytest.raises(InvalidArgument):
                subject.scan(cursor=cursor)
