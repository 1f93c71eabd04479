"""A walk over all conversations, as ``copy`` does it."""

from datetime import timedelta
from typing import Any

import pytest

from chatledger.conversations import LIMIT
from chatledger.errors import InvalidArgument
from chatledger.messages import new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import begin, ids_of, say, scan_all
from chatledger.testing.store_contract.refusing import NO_LIMITS


class ScanningLaws:
    """``scan``."""

    def test_a_scan_shows_every_living_conversation_once(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        begun = [begin(subject, "hello", owner=owner) for _ in range(4)]
        begun += [begin(subject, "hello"), begin(subject), begin(subject, owner=owner)]
        deleted = begin(subject, "deleted", owner=owner)
        subject.delete(deleted.id)
        anew = begin(subject, "deleted", owner=owner)
        subject.delete(anew.id)
        begun.append(begin(subject, "anew", conversation_id=anew.id))
        expired = begin(subject, "expired", expires_in=timedelta(hours=1))
        clock.advance(timedelta(hours=2))
        there = len(scan_all(subject))
        for limit in (1, 3, 100, LIMIT):
            if there // limit > 50:
                continue  # others are in the store too, and would take long
            found = scan_all(subject, limit=limit)
            ids = ids_of(found)
            assert len(ids) == len(set(ids)) == there
            assert not {deleted.id, expired.id} & set(ids)
            shown = {conversation.id: conversation for conversation in found}
            for it in begun:
                assert shown[it.id] == subject.get(it.id)

    def test_a_scan_goes_on_whatever_changes(self, subject: Store) -> None:
        owner = new_id()
        ids = {begin(subject, "hello", owner=owner).id for _ in range(8)}
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
                subject.append(conversation_id, say("activity"))
            begin(subject, "new")
            if len(deleted) == 4:
                limit = LIMIT
        assert len(seen) == len(set(seen))
        assert ids <= set(seen)

    def test_a_scan_refuses_what_no_scan_gave(self, subject: Store) -> None:
        owner = new_id()
        for _ in range(2):
            begin(subject, owner=owner)
        cursors: list[Any] = ["", "x", "%", 7, b"x", subject.list(owner, limit=1).cursor]
        for cursor in cursors:
            with pytest.raises(InvalidArgument):
                subject.scan(cursor=cursor)
        for limit in NO_LIMITS:
            with pytest.raises(InvalidArgument):
                subject.scan(limit=limit)
