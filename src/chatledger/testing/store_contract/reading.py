"""Any stretch of a conversation can be read, in either direction."""

import pytest

from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import Begun, begin, read_all, said, say, seq_of

LIMITS = pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])


def with_gaps(store: Store) -> Begun:
    """Seven messages, ``"0"`` to ``"6"``, whose seqs have gaps among them."""
    it = begin(store, "0", "1", "2", "gone", "gone")
    store.truncate(it.id, after=it.seqs[2])
    store.append(it.id, say("3", "4", "gone"))
    store.pop(it.id)
    revision = store.append(it.id, say("5", "6")).revision
    return Begun(it.id, it.seqs, revision)


class ReadingLaws:
    """``tail`` and ``page``."""

    def test_the_tail_is_the_last_messages_oldest_first(self, subject: Store) -> None:
        it = begin(subject, *map(str, range(10)))
        for n in (1, 3, 10, 1_000):
            tail = subject.tail(it.id, n)
            assert said(tail.messages) == [str(number) for number in range(10)][-n:]
            assert [seq_of(message) for message in tail.messages] == list(it.seqs)[-n:]
            assert tail.conversation == subject.get(it.id)

    def test_the_tail_of_an_empty_conversation_is_empty(self, subject: Store) -> None:
        new, cleared = begin(subject), begin(subject, "hello")
        subject.clear(cleared.id)
        for it in (new, cleared):
            tail = subject.tail(it.id, 5)
            assert (tail.messages, tail.conversation) == ([], subject.get(it.id))
            page = subject.page(it.id)
            assert (page.messages, page.next) == ([], None)

    def test_a_tail_passes_over_what_was_removed(self, subject: Store) -> None:
        it = with_gaps(subject)
        assert said(subject.tail(it.id, 5).messages) == ["2", "3", "4", "5", "6"]

    @LIMITS
    def test_paging_on_shows_every_message_once_oldest_first(
        self, subject: Store, limit: int
    ) -> None:
        it = with_gaps(subject)
        texts = said(read_all(subject, it.id, limit=limit))
        assert texts == ["0", "1", "2", "3", "4", "5", "6"]

    @LIMITS
    def test_paging_back_shows_every_message_once_newest_first(
        self, subject: Store, limit: int
    ) -> None:
        it = with_gaps(subject)
        back = read_all(subject, it.id, before=it.revision + 1, limit=limit)
        assert back == read_all(subject, it.id)[::-1]

    @LIMITS
    def test_paging_between_two_places_shows_what_lies_within_oldest_first(
        self, subject: Store, limit: int
    ) -> None:
        it = with_gaps(subject)
        everything = read_all(subject, it.id)
        first, last = seq_of(everything[0]), seq_of(everything[-1])
        assert read_all(subject, it.id, after=first, before=last, limit=limit) == everything[1:-1]

    def test_after_and_before_need_no_message_at_their_place(self, subject: Store) -> None:
        it = with_gaps(subject)
        everything = read_all(subject, it.id)
        for place in range(it.revision + 3):
            behind = [message for message in everything if seq_of(message) > place]
            assert subject.page(it.id, after=place).messages == behind
            ahead = [message for message in everything if seq_of(message) < place]
            if place:
                assert subject.page(it.id, before=place).messages == ahead[::-1]

    def test_a_page_says_that_nothing_lies_beyond(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3", "4")
        first, last = it.seqs[0], it.seqs[-1]
        assert subject.page(it.id, limit=4).next is None
        assert subject.page(it.id, after=first, limit=3).next is None
        assert subject.page(it.id, after=last).next is None
        assert subject.page(it.id, before=last + 1, limit=4).next is None
        assert subject.page(it.id, before=first).next is None
        assert subject.page(it.id, after=first, before=last, limit=2).next is None
        assert subject.page(it.id, limit=3).next is not None
        assert subject.page(it.id, before=last, limit=2).next is not None
        assert subject.page(it.id, after=first, before=last, limit=1).next is not None

    def test_a_page_is_empty_where_after_and_before_leave_nothing(self, subject: Store) -> None:
        it = begin(subject, "1", "2", "3")
        for after, before in ((it.seqs[1], it.seqs[1]), (it.seqs[2], it.seqs[0])):
            page = subject.page(it.id, after=after, before=before)
            assert (page.messages, page.next) == ([], None)

    def test_a_page_holds_a_hundred_messages_where_nothing_is_said(self, subject: Store) -> None:
        it = begin(subject, *map(str, range(250)))
        page = subject.page(it.id)
        assert said(page.messages) == [str(number) for number in range(100)]
        back = subject.page(it.id, before=it.revision + 1)
        assert said(back.messages) == [str(number) for number in range(249, 149, -1)]

    def test_the_next_page_goes_on_behind_messages_that_were_appended_or_removed_meanwhile(
        self, subject: Store
    ) -> None:
        it = begin(subject, "1", "2", "3", "4")
        page = subject.page(it.id, limit=2)
        subject.truncate(it.id, after=it.seqs[2])
        subject.append(it.id, say("5"))
        rest = subject.page(it.id, after=page.next)
        assert said([*page.messages, *rest.messages]) == ["1", "2", "3", "5"]
