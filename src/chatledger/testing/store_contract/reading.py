"""Laws of ``tail`` and ``page``: any range of messages can be read, in either direction."""

import sys
from collections.abc import Sequence
from itertools import pairwise

import pytest

from chatledger.conversations import MAX_READ_BYTES
from chatledger.messages import Message, encode
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import (
    Started,
    read_all,
    start_conversation,
    texts_of,
    user_messages,
)

SMALL_READ_BYTES = 5_000
LIMITS = pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])


def start_with_gaps(store: Store) -> Started:
    """Create a conversation of seven messages, ``"0"`` to ``"6"``, whose seqs have gaps."""
    conversation = start_conversation(store, "0", "1", "2", "removed", "removed")
    store.truncate(conversation.id, after=conversation.seqs[2])
    store.append(conversation.id, user_messages("3", "4", "removed"))
    store.pop(conversation.id)
    revision = store.append(conversation.id, user_messages("5", "6")).revision
    return Started(conversation.id, conversation.seqs, revision)


class ReadingLaws:
    """``tail`` and ``page``."""

    @pytest.fixture
    def small_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reads stop at ``SMALL_READ_BYTES``, in every module that has imported the limit."""
        limit = MAX_READ_BYTES
        for module in list(sys.modules.values()):
            if vars(module).get("MAX_READ_BYTES") == limit:
                monkeypatch.setattr(module, "MAX_READ_BYTES", SMALL_READ_BYTES)

    def test_the_tail_is_the_last_messages_oldest_first(self, subject: Store) -> None:
        conversation = start_conversation(subject, *map(str, range(10)))
        for n in (1, 3, 10, 1_000):
            tail = subject.tail(conversation.id, n)
            assert texts_of(tail.messages) == [str(number) for number in range(10)][-n:]
            assert [message.seq for message in tail.messages] == list(conversation.seqs)[-n:]
            assert tail.conversation == subject.get(conversation.id)

    def test_the_tail_of_an_empty_conversation_is_empty(self, subject: Store) -> None:
        new, cleared = start_conversation(subject), start_conversation(subject, "hello")
        subject.clear(cleared.id)
        for conversation in (new, cleared):
            tail = subject.tail(conversation.id, 5)
            assert (tail.messages, tail.conversation) == ([], subject.get(conversation.id))
            page = subject.page(conversation.id)
            assert (page.messages, page.next) == ([], None)

    def test_a_tail_skips_removed_messages(self, subject: Store) -> None:
        conversation = start_with_gaps(subject)
        assert texts_of(subject.tail(conversation.id, 5).messages) == ["2", "3", "4", "5", "6"]

    @LIMITS
    def test_paging_forward_shows_every_message_once_oldest_first(
        self, subject: Store, limit: int
    ) -> None:
        conversation = start_with_gaps(subject)
        texts = texts_of(read_all(subject, conversation.id, limit=limit))
        assert texts == ["0", "1", "2", "3", "4", "5", "6"]

    @LIMITS
    def test_paging_backward_shows_every_message_once_newest_first(
        self, subject: Store, limit: int
    ) -> None:
        conversation = start_with_gaps(subject)
        backward = read_all(subject, conversation.id, before=conversation.revision + 1, limit=limit)
        assert backward == read_all(subject, conversation.id)[::-1]

    @LIMITS
    def test_paging_between_two_seqs_shows_the_messages_between_them_oldest_first(
        self, subject: Store, limit: int
    ) -> None:
        conversation = start_with_gaps(subject)
        messages = read_all(subject, conversation.id)
        first, last = messages[0].seq, messages[-1].seq
        assert (
            read_all(subject, conversation.id, after=first, before=last, limit=limit)
            == messages[1:-1]
        )

    def test_after_and_before_need_not_be_seqs_of_messages(self, subject: Store) -> None:
        conversation = start_with_gaps(subject)
        messages = read_all(subject, conversation.id)
        for seq in range(conversation.revision + 3):
            later = [message for message in messages if message.seq > seq]
            assert subject.page(conversation.id, after=seq).messages == later
            earlier = [message for message in messages if message.seq < seq]
            if seq:
                assert subject.page(conversation.id, before=seq).messages == earlier[::-1]

    def test_the_last_page_has_no_next(self, subject: Store) -> None:
        conversation = start_conversation(subject, "1", "2", "3", "4")
        first, last = conversation.seqs[0], conversation.seqs[-1]
        assert subject.page(conversation.id, limit=4).next is None
        assert subject.page(conversation.id, after=first, limit=3).next is None
        assert subject.page(conversation.id, after=last).next is None
        assert subject.page(conversation.id, before=last + 1, limit=4).next is None
        assert subject.page(conversation.id, before=first).next is None
        assert subject.page(conversation.id, after=first, before=last, limit=2).next is None
        assert subject.page(conversation.id, limit=3).next is not None
        assert subject.page(conversation.id, before=last, limit=2).next is not None
        assert subject.page(conversation.id, after=first, before=last, limit=1).next is not None

    def test_a_page_is_empty_if_no_message_is_between_after_and_before(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "1", "2", "3")
        for after, before in (
            (conversation.seqs[1], conversation.seqs[1]),
            (conversation.seqs[2], conversation.seqs[0]),
        ):
            page = subject.page(conversation.id, after=after, before=before)
            assert (page.messages, page.next) == ([], None)

    def test_a_page_returns_a_hundred_messages_by_default(self, subject: Store) -> None:
        conversation = start_conversation(subject, *map(str, range(250)))
        page = subject.page(conversation.id)
        assert texts_of(page.messages) == [str(number) for number in range(100)]
        backward = subject.page(conversation.id, before=conversation.revision + 1)
        assert texts_of(backward.messages) == [str(number) for number in range(249, 149, -1)]

    @pytest.mark.usefixtures("small_reads")
    @pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one append"])
    @pytest.mark.parametrize("length", [1_000, 6_000])
    def test_a_read_stops_at_a_number_of_bytes_but_returns_one_message_at_least(
        self, subject: Store, together: bool, length: int
    ) -> None:
        # One message of 6,000 characters alone is over the limit.
        texts = [f"{number} " + "." * length for number in range(12)]
        conversation = start_conversation(subject, *(texts if together else texts[:1]))
        for text in [] if together else texts[1:]:
            subject.append(conversation.id, user_messages(text))

        def sizes(messages: Sequence[Message]) -> list[int]:
            return [len(encode(message).encode()) for message in messages]

        tail = subject.tail(conversation.id, 100)
        assert texts_of(tail.messages) == texts[-len(tail.messages) :]
        assert len(tail.messages) in ([3, 4, 5] if length == 1_000 else [1])
        assert tail.conversation.message_count == 12
        assert texts_of(subject.tail(conversation.id, 1).messages) == texts[-1:]

        for backward in (False, True):
            pages = []
            place: int | None = tail.conversation.revision + 1 if backward else 0
            while place is not None:
                page = (
                    subject.page(conversation.id, before=place)
                    if backward
                    else subject.page(conversation.id, after=place)
                )
                pages.append(page.messages)
                place = page.next
            assert all(
                len(messages) == 1 or sum(sizes(messages)) <= SMALL_READ_BYTES * 1.1
                for messages in pages
            )
            # No page is much shorter than it must be.
            assert all(
                sum(sizes([*one, next_one])) > SMALL_READ_BYTES * 0.9
                for one, [next_one, *_] in pairwise(pages)
            )
            read = [message.text for messages in pages for message in messages]
            assert read == (texts[::-1] if backward else texts)

    def test_the_next_page_continues_despite_appends_and_removals_in_between(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "1", "2", "3", "4")
        page = subject.page(conversation.id, limit=2)
        subject.truncate(conversation.id, after=conversation.seqs[2])
        subject.append(conversation.id, user_messages("5"))
        rest = subject.page(conversation.id, after=page.next)
        assert texts_of([*page.messages, *rest.messages]) == ["1", "2", "3", "5"]
