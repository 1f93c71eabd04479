"""Laws of entries: what is put, read, listed and deleted, and who is first."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from chatledger.conversations import MAX_READ_BYTES
from chatledger.entries import MAX_ENTRY_BYTES, MAX_ENTRY_NAME_BYTES, Entry
from chatledger.errors import ChatledgerError, Conflict, InvalidArgument, NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    list_all,
    only_winner,
    race,
    scan_all,
    start_conversation,
)
from chatledger.testing.store_contract.naming import LONGEST, NEIGHBOURS, text_of_size
from chatledger.values import Json, new_id

VALUES: list[Json] = [
    None, True, False, 0, -1, 2**63, 10**300, 0.0, -0.0, 1.0, 1e-300, 1e300, 0.1,
    "", "a", "\x00", "\u2028", "\N{GRINNING FACE}", "null", "1",
    [], [[]], [None, 1, 1.0, "1"], {}, {"": None}, {"a": {"b": [{"c": 1}]}, "\x00": []},
]  # fmt: skip
"""Values that a careless encoding would change."""
WRITERS = 8
INCREMENTS = 5
LARGE = 3 * 1024 * 1024

OF = pytest.mark.parametrize("of", ["a conversation", "an owner"])
"""Runs a law for entries of a conversation and for those of an owner."""


def new_place(store: Store, of: str) -> dict[str, Any]:
    """Return the arguments that say whose entries are meant: of a new conversation or owner."""
    if of == "an owner":
        return {"conversation_id": None, "owner": new_id()}
    return {"conversation_id": start_conversation(store, "hello").id}


def read_entries(store: Store, *, limit: int = 1_000, **given: Any) -> list[Entry]:
    """Return all entries of the conversation or owner, read page by page."""
    entries: list[Entry] = []
    cursor: str | None = None
    while True:
        page = store.entries(**given, limit=limit, cursor=cursor)
        assert list(page) == page.entries
        assert len(page.entries) <= limit
        entries += page.entries
        if page.cursor is None:
            return entries
        assert page.entries, "a page that another follows is not empty"
        cursor = page.cursor


def find_entry(store: Store, name: str, **place: Any) -> Entry | None:
    """Return the entry, or None."""
    try:
        return store.entry(name=name, **place)
    except NotFound:
        return None


def type_of(value: Json) -> object:
    """Return the types of the value and of all that it contains; ``1 == 1.0 == True``."""
    match value:
        case list():
            return [type_of(item) for item in value]
        case dict():
            return {key: type_of(item) for key, item in value.items()}
    return type(value), str(value)


class EntryLaws:
    """``put_entry``, ``entry``, ``entries`` and ``delete_entry``."""

    @OF
    def test_a_value_comes_back_equal_and_with_the_same_types(
        self, subject: Store, clock: Clock, of: str
    ) -> None:
        place = new_place(subject, of)
        for number, value in enumerate(VALUES):
            with clock.stopped():
                put = subject.put_entry(name=f"{number:02}", value=value, **place)
                assert (put.name, put.updated_at) == (f"{number:02}", clock())
                assert put.expires_at is None
            for entry in (put, subject.entry(name=put.name, **place)):
                assert entry == put
                assert type_of(entry.value) == type_of(value)
        assert [type_of(entry.value) for entry in read_entries(subject, **place)] == [
            type_of(value) for value in VALUES
        ]

    @OF
    def test_an_entry_that_was_never_put_is_not_found(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        assert read_entries(subject, **place) == []
        for read in (subject.entry, subject.delete_entry):
            with pytest.raises(NotFound) as caught:
                read(name="topic", **place)
            assert caught.value.conversation_id == place["conversation_id"]
            assert caught.value.entry == "topic"

    @OF
    def test_a_put_replaces_the_value_and_moves_the_revision_up_by_one(
        self, subject: Store, clock: Clock, of: str
    ) -> None:
        place = new_place(subject, of)
        entry = subject.put_entry(name="topic", value=0, **place)
        for number in range(1, 5):
            before, entry = entry, subject.put_entry(name="topic", value=number, **place)
            assert entry.revision == before.revision + 1
            assert read_entries(subject, **place) == [entry]
            clock.advance(timedelta(minutes=1))
        other = subject.put_entry(name="another", value="other", **place)
        assert read_entries(subject, **place) == [other, entry]

    @OF
    def test_a_put_with_revision_succeeds_only_at_that_one(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        for wrong in (1, 2**53 - 1):
            with pytest.raises(Conflict) as caught:
                subject.put_entry(name="topic", value="no", revision=wrong, **place)
            assert (caught.value.expected, caught.value.revision) == (wrong, 0)
        first = subject.put_entry(name="topic", value=1, revision=0, **place)
        second = subject.put_entry(name="topic", value=2, revision=first.revision, **place)
        for wrong in (0, 1, first.revision, second.revision + 1, 2**53 - 1):
            for change in (partial(subject.put_entry, value="no"), subject.delete_entry):
                with pytest.raises(Conflict) as caught:
                    change(name="topic", revision=wrong, **place)
                assert caught.value.conversation_id == place["conversation_id"]
                assert caught.value.entry == "topic"
                assert (caught.value.expected, caught.value.revision) == (wrong, second.revision)
        assert read_entries(subject, **place) == [second]
        subject.delete_entry(name="topic", revision=second.revision, **place)
        assert read_entries(subject, **place) == []

    @OF
    def test_a_deleted_entry_is_gone_at_once_and_cannot_be_deleted_again(
        self, subject: Store, of: str
    ) -> None:
        place = new_place(subject, of)
        kept = subject.put_entry(name="kept", value=1, **place)
        entry = subject.put_entry(name="topic", value=1, **place)
        subject.delete_entry(name="topic", **place)
        assert read_entries(subject, **place) == [kept]
        for revision in (None, 0, entry.revision, entry.revision + 1):
            with pytest.raises(NotFound):
                subject.delete_entry(name="topic", revision=revision, **place)
        with pytest.raises(NotFound):
            subject.entry(name="topic", **place)
        for revision in (entry.revision, entry.revision + 1):
            with pytest.raises(Conflict) as caught:
                subject.put_entry(name="topic", value=2, revision=revision, **place)
            assert caught.value.revision == 0

    @OF
    def test_no_revision_comes_back_while_the_clock_stands_still(
        self, subject: Store, clock: Clock, of: str
    ) -> None:
        place = new_place(subject, of)
        with clock.stopped():
            revisions = []
            for _ in range(5):
                for value in range(3):
                    put = subject.put_entry(name="topic", value=value, **place)
                    revisions.append(put.revision)
                subject.delete_entry(name="topic", **place)
        assert revisions == sorted(set(revisions))

    @OF
    def test_entries_are_in_the_order_of_their_names_as_bytes(
        self, subject: Store, of: str
    ) -> None:
        place = new_place(subject, of)
        for number, name in enumerate(NEIGHBOURS):
            subject.put_entry(name=name, value=number, **place)
        in_order = sorted(NEIGHBOURS, key=str.encode)
        for limit in (1, 3, len(NEIGHBOURS), 1_000):
            entries = read_entries(subject, limit=limit, **place)
            assert [entry.name for entry in entries] == in_order
        for number, name in enumerate(NEIGHBOURS):
            assert subject.entry(name=name, **place).value == number
        for name in NEIGHBOURS[::2]:
            subject.delete_entry(name=name, **place)
        kept = sorted(NEIGHBOURS[1::2], key=str.encode)
        assert [entry.name for entry in read_entries(subject, limit=2, **place)] == kept

    @OF
    def test_a_prefix_selects_the_names_that_begin_with_it(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        names = [*NEIGHBOURS, "x" * MAX_ENTRY_NAME_BYTES, "x\U0010ffff", "y"]
        for name in names:
            subject.put_entry(name=name, value=None, **place)
        for prefix in ("", *names, "x", "xx", "q", "\U0010ffff", "\N{GRINNING FACE}"):
            expected = sorted((n for n in names if n.startswith(prefix)), key=str.encode)
            entries = read_entries(subject, prefix=prefix, limit=7, **place)
            assert [entry.name for entry in entries] == expected

    @OF
    def test_a_cursor_stays_valid_whatever_changes(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        for name in "bdfh":
            subject.put_entry(name=name, value=name, **place)
        page = subject.entries(**place, limit=2)
        assert [entry.name for entry in page] == ["b", "d"]
        subject.delete_entry(name="d", **place)
        subject.delete_entry(name="f", **place)
        subject.put_entry(name="c", value=1, **place)
        subject.put_entry(name="e", value=1, **place)
        rest = subject.entries(**place, cursor=page.cursor)
        assert [entry.name for entry in rest] == ["e", "h"]
        assert rest.cursor is None
        assert list(subject.entries(**place, prefix="b", cursor=page.cursor)) == []
        assert len(list(subject.entries(**place, prefix="h", cursor=page.cursor))) == 1

    def test_a_cursor_of_a_list_or_scan_is_none_of_entries(self, subject: Store) -> None:
        owner = new_id()
        for _ in range(2):
            start_conversation(subject, owner=owner)
        cursor = subject.list(owner, limit=1).cursor
        assert cursor
        with pytest.raises(InvalidArgument):
            subject.entries(None, owner=owner, cursor=cursor)

    @OF
    @pytest.mark.parametrize("character", LONGEST)
    def test_a_name_may_be_as_long_as_the_limit_and_differ_only_at_the_end(
        self, subject: Store, of: str, character: str
    ) -> None:
        place = new_place(subject, of)
        longest = text_of_size("", character, MAX_ENTRY_NAME_BYTES)
        names = [longest[:-1] + "a", longest[:-1] + "b", longest[:-1]]
        for name in names:
            subject.put_entry(name=name, value=name, **place)
        entries = read_entries(subject, limit=1, **place)
        assert [entry.value for entry in entries] == sorted(names, key=str.encode)

    @OF
    def test_a_value_may_be_as_large_as_the_limit(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        largest = "x" * (MAX_ENTRY_BYTES - 2)
        for value in ("small", largest, "small again", "\u00e9" * (MAX_ENTRY_BYTES // 2 - 1)):
            subject.put_entry(name="topic", value=value, **place)
            assert subject.entry(name="topic", **place).value == value
        with pytest.raises(InvalidArgument, match="16,777,217 bytes"):
            subject.put_entry(name="topic", value=largest + "x", **place)
        subject.delete_entry(name="topic", **place)
        assert find_entry(subject, "topic", **place) is None

    @OF
    def test_large_values_are_listed_on_several_pages(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        names = [str(number) for number in range(MAX_READ_BYTES // LARGE + 2)]
        for name in names:
            subject.put_entry(name=name, value=[name, "x" * LARGE], **place)
        page = subject.entries(**place)
        assert page.cursor is not None
        assert 0 < len(page.entries) < len(names)
        in_order = sorted(names)
        entries = read_entries(subject, **place)
        assert [(entry.name, entry.value) for entry in entries] == [
            (name, [name, "x" * LARGE]) for name in in_order
        ]

    def test_entries_of_owners_and_conversations_that_look_alike_are_different(
        self, subject: Store
    ) -> None:
        start = new_id()
        places: list[tuple[str | None, str | None]] = []
        for name in NEIGHBOURS[:30]:
            subject.create(start + name)
            places += [(start + name, None), (None, start + name)]
        for number, (conversation_id, owner) in enumerate(places):
            subject.put_entry(conversation_id, "topic", number, owner=owner)
        for number, (conversation_id, owner) in enumerate(places):
            [entry] = subject.entries(conversation_id, owner=owner)
            assert entry.value == number

    def test_an_entry_without_conversation_needs_an_owner(self, subject: Store) -> None:
        operations: list[Callable[[], object]] = [
            lambda: subject.put_entry(None, "topic", 1),
            lambda: subject.entry(None, "topic"),
            lambda: subject.entries(None),
            lambda: subject.delete_entry(None, "topic"),
        ]
        for operation in operations:
            with pytest.raises(InvalidArgument, match="owner"):
                operation()

    def test_entries_of_an_owner_need_no_conversation_and_are_in_no_list(
        self, subject: Store
    ) -> None:
        owner = new_id()
        conversation = start_conversation(subject, "hello", owner=owner)
        subject.put_entry(conversation.id, "topic", "of the conversation", owner=owner)
        subject.put_entry(None, "topic", "of the owner", owner=owner)
        assert [entry.value for entry in subject.entries(None, owner=owner)] == ["of the owner"]
        assert [entry.value for entry in subject.entries(conversation.id)] == [
            "of the conversation"
        ]
        assert len(list_all(subject, owner)) == 1
        only_entries = new_id()
        subject.put_entry(None, "topic", 1, owner=only_entries)
        assert list_all(subject, only_entries) == []
        for limit in (1, 2, 1_000):
            assert conversation.id in {found.id for found in scan_all(subject, limit=limit)}
            assert only_entries not in {found.owner for found in scan_all(subject, limit=limit)}

    def test_an_entry_is_no_part_of_the_conversation_itself(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "1", "2", owner=new_id())
        clock.advance(timedelta(minutes=5))
        with assert_unchanged(subject, conversation.id):
            for number in range(3):
                subject.put_entry(conversation.id, f"{number}", number)
            subject.delete_entry(conversation.id, "1")
            with pytest.raises(Conflict):
                subject.put_entry(conversation.id, "2", "no", revision=0)

    # Rivals --------------------------------------------------------------------------------------

    @OF
    def test_of_rivals_at_one_revision_exactly_one_wins(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        revision = 0
        for _ in range(4):
            put = partial(subject.put_entry, name="topic", revision=revision, **place)
            outcomes = race([partial(put, value=number) for number in range(WRITERS)])
            number, winner = only_winner(outcomes, Conflict)
            assert winner.value == number
            assert subject.entry(name="topic", **place) == winner
            revision = winner.revision

    @OF
    def test_no_change_is_lost_if_every_writer_passes_the_revision(
        self, subject: Store, of: str
    ) -> None:
        place = new_place(subject, of)
        first = subject.put_entry(name="count", value=0, **place)

        def increment() -> None:
            done = 0
            while done < INCREMENTS:
                read = subject.entry(name="count", **place)
                assert isinstance(read.value, int)
                try:
                    subject.put_entry(
                        name="count", value=read.value + 1, revision=read.revision, **place
                    )
                except Conflict:
                    continue
                done += 1

        assert race([increment] * WRITERS) == [None] * WRITERS
        last = subject.entry(name="count", **place)
        assert last.value == WRITERS * INCREMENTS
        assert last.revision == first.revision + WRITERS * INCREMENTS

    @OF
    def test_rivals_without_a_revision_all_succeed_one_after_the_other(
        self, subject: Store, of: str
    ) -> None:
        place = new_place(subject, of)
        first = subject.put_entry(name="topic", value=None, **place)

        def put(writer: int) -> list[Entry]:
            return [
                subject.put_entry(name="topic", value=[writer, number], **place)
                for number in range(INCREMENTS)
            ]

        all_put: list[Entry] = []
        for outcome in race([partial(put, writer) for writer in range(WRITERS)]):
            assert not isinstance(outcome, ChatledgerError)
            all_put += outcome
        all_put.sort(key=lambda entry: entry.revision)
        assert [entry.revision - first.revision for entry in all_put] == list(
            range(1, WRITERS * INCREMENTS + 1)
        )
        assert subject.entry(name="topic", **place) == all_put[-1]

    @OF
    def test_of_rivals_that_delete_exactly_one_succeeds(self, subject: Store, of: str) -> None:
        place = new_place(subject, of)
        for _ in range(3):
            subject.put_entry(name="topic", value=1, **place)
            outcomes = race([partial(subject.delete_entry, name="topic", **place)] * WRITERS)
            only_winner(outcomes, NotFound)
