"""Laws of ``list``: an owner's conversations, most recently active first, page by page."""

from datetime import timedelta
from typing import Any

import pytest

from chatledger.conversations import MAX_ID_BYTES, RESERVED_PREFIX
from chatledger.errors import InvalidArgument, NotFound
from chatledger.stores.contract import Store
from chatledger.stores.cursors import encode_cursor
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Started,
    ids_of,
    list_all,
    scan_all,
    start_conversation,
    user_messages,
)
from chatledger.testing.store_contract.operation_table import CALLS, Call, each_of
from chatledger.values import new_id

LIMITS = pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])


def seven_conversations(store: Store, owner: str, clock: Clock) -> list[Started]:
    """Create seven conversations of the owner; return them most recently active first."""
    created = []
    for _ in range(7):
        clock.advance(timedelta(seconds=1))
        created.append(start_conversation(store, "hello", "there", owner=owner))
    return created[::-1]


class ListingLaws:
    """``list``."""

    @LIMITS
    def test_a_list_shows_every_conversation_once_most_recently_active_first(
        self, subject: Store, clock: Clock, limit: int
    ) -> None:
        owner = new_id()
        ids = [conversation.id for conversation in seven_conversations(subject, owner, clock)]
        listed = list_all(subject, owner, limit=limit)
        assert listed == [subject.get(conversation_id) for conversation_id in ids]

    @LIMITS
    def test_conversations_of_the_same_moment_are_each_listed_once(
        self, subject: Store, clock: Clock, limit: int
    ) -> None:
        owner = new_id()
        with clock.stopped():
            ids = {subject.create(owner=owner).id for _ in range(7)}
        listed = ids_of(list_all(subject, owner, limit=limit))
        assert sorted(listed) == sorted(ids)

    def test_the_last_page_of_a_list_has_no_cursor(self, subject: Store, clock: Clock) -> None:
        owner = new_id()
        assert subject.list(owner).conversations == []
        assert subject.list(owner).cursor is None
        seven_conversations(subject, owner, clock)
        assert subject.list(owner, limit=7).cursor is None
        assert subject.list(owner, limit=6).cursor is not None

    def test_a_list_returns_twenty_conversations_by_default(self, subject: Store) -> None:
        owner = new_id()
        for _ in range(21):
            subject.create(owner=owner)
        assert len(subject.list(owner).conversations) == 20

    @each_of(
        call
        for call in CALLS
        # A claim is activity in an anonymous conversation only, for which see ClaimingLaws.
        if call.is_activity and not call.is_listed_late and call.operation != "claim"
    )
    def test_activity_moves_a_conversation_to_the_front(
        self, subject: Store, clock: Clock, call: Call
    ) -> None:
        owner = new_id()
        *others, last = seven_conversations(subject, owner, clock)
        clock.advance(timedelta(seconds=1))
        call(subject, last)
        listed = list_all(subject, owner)
        assert ids_of(listed) == [conversation.id for conversation in (last, *others)]
        assert listed[0] == subject.get(last.id)

    def test_an_update_is_listed_and_moves_nothing_to_the_front(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids = [conversation.id for conversation in seven_conversations(subject, owner, clock)]
        clock.advance(timedelta(seconds=1))
        subject.update(ids[3], title="new", metadata={"a": 1})
        listed = list_all(subject, owner)
        assert ids_of(listed) == ids
        assert (listed[3].title, listed[3].metadata) == ("new", {"a": 1})

    def test_a_fork_is_listed_as_well_as_its_original(self, subject: Store, clock: Clock) -> None:
        owner = new_id()
        ids = [conversation.id for conversation in seven_conversations(subject, owner, clock)]
        clock.advance(timedelta(seconds=1))
        fork = subject.fork(ids[2])
        assert ids_of(list_all(subject, owner)) == [fork.id, *ids]

    def test_anonymous_conversations_and_those_of_others_are_not_listed(
        self, subject: Store
    ) -> None:
        owner = new_id()
        mine = start_conversation(subject, owner=owner)
        start_conversation(subject, owner=owner + "#")
        start_conversation(subject)
        assert ids_of(list_all(subject, owner)) == [mine.id]

    def test_a_reserved_conversation_is_not_listed_but_is_scanned_and_deleted_with_its_owner(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        shown = [conversation.id for conversation in seven_conversations(subject, owner, clock)]
        reserved = [f"{RESERVED_PREFIX}{new_id()}" for _ in range(3)]
        for conversation_id in reserved:
            start_conversation(subject, "hello", conversation_id=conversation_id, owner=owner)
        for limit in (1, 2, 7):
            assert ids_of(list_all(subject, owner, limit=limit)) == shown
        assert set(reserved) <= set(ids_of(scan_all(subject)))
        assert subject.delete_owner(owner) == 10
        for conversation_id in reserved:
            with pytest.raises(NotFound):
                subject.get(conversation_id)

    def test_a_cursor_still_works_after_the_conversation_it_points_at_was_deleted(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids = [conversation.id for conversation in seven_conversations(subject, owner, clock)]
        listing = subject.list(owner, limit=3)
        for conversation_id in ids[:3]:
            subject.delete(conversation_id)
        rest = subject.list(owner, cursor=listing.cursor)
        assert ids_of(rest.conversations) == ids[3:]

    def test_activity_while_paging_skips_none_of_the_rest(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids = [conversation.id for conversation in seven_conversations(subject, owner, clock)]
        listing = subject.list(owner, limit=3)
        clock.advance(timedelta(seconds=1))
        for conversation_id in (ids[0], ids[2], ids[5]):
            subject.append(conversation_id, user_messages("meanwhile"))
        subject.create(owner=owner)
        rest = subject.list(owner, cursor=listing.cursor)
        assert ids_of(rest.conversations) == [ids[3], ids[4], ids[6]]

    def test_a_cursor_can_be_used_again_and_with_another_limit(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids = [conversation.id for conversation in seven_conversations(subject, owner, clock)]
        cursor = subject.list(owner, limit=2).cursor
        for limit in (1, 5, 1):
            rest = subject.list(owner, limit=limit, cursor=cursor)
            assert ids_of(rest.conversations) == ids[2 : 2 + limit]

    def test_a_cursor_from_another_owners_list_reveals_nothing_of_theirs(
        self, subject: Store, clock: Clock
    ) -> None:
        mine, theirs = new_id(), new_id()
        own = {conversation.id for conversation in seven_conversations(subject, mine, clock)}
        seven_conversations(subject, theirs, clock)
        cursor = subject.list(theirs, limit=3).cursor
        try:
            listing = subject.list(mine, cursor=cursor)
        except InvalidArgument:
            return
        assert set(ids_of(listing.conversations)) <= own

    @pytest.mark.parametrize(
        "cursor",
        [
            *("", "garbage", "!!!", "AAAA", "e30", "W10", "caf\xe9", "\ud800", 7, b"AA", True),
            encode_cursor(1, "x" * (MAX_ID_BYTES + 1)),
            encode_cursor(1, "é" * (MAX_ID_BYTES // 2 + 1)),
        ],
        ids=lambda cursor: repr(cursor)[:20],
    )
    def test_a_cursor_that_no_list_returned_is_rejected(self, subject: Store, cursor: Any) -> None:
        owner = new_id()
        start_conversation(subject, owner=owner)
        with pytest.raises(InvalidArgument):
            subject.list(owner, cursor=cursor)

    def test_a_damaged_cursor_is_rejected_or_stays_within_the_list(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids = {conversation.id for conversation in seven_conversations(subject, owner, clock)}
        cursor = subject.list(owner, limit=3).cursor
        assert cursor is not None
        for broken in (cursor[:-1], cursor[1:], cursor[::-1], cursor + "A", cursor.swapcase()):
            try:
                listing = subject.list(owner, cursor=broken)
            except InvalidArgument:
                continue
            assert set(ids_of(listing.conversations)) <= ids
