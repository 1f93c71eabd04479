"""Laws of ``iter_messages`` and ``iter_conversations``: everything, however much there is."""

from datetime import timedelta
from itertools import islice

import pytest

from chatledger.errors import NotFound
from chatledger.messages import Message
from chatledger.stores.contract import PAGE_SIZE, Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    ids_of,
    list_all,
    race,
    read_all,
    scan_all,
    start_conversation,
    texts_of,
    user_messages,
    write_numbers,
)
from chatledger.values import new_id

COUNTS = (0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 1)


class IteratingLaws:
    """``iter_messages`` and ``iter_conversations``."""

    @pytest.mark.parametrize("count", [*COUNTS, 2_500])
    def test_an_iteration_yields_every_message_once_in_both_directions(
        self, subject: Store, count: int
    ) -> None:
        texts = [str(number) for number in range(count)]
        conversation = start_conversation(subject, *texts, owner=new_id())
        owner = subject.get(conversation.id).owner
        forward = list(subject.iter_messages(conversation.id))
        assert texts_of(forward) == texts
        assert [message.seq for message in forward] == list(conversation.seqs)
        backward = list(subject.iter_messages(conversation.id, before=2**53 - 1, owner=owner))
        assert backward == forward[::-1]
        assert list(subject.iter_messages(conversation.id, after=0)) == forward

    def test_an_iteration_yields_the_messages_in_the_range(self, subject: Store) -> None:
        texts = [str(number) for number in range(350)]
        conversation = start_conversation(subject, *texts)
        for seq in conversation.seqs[50:60]:
            subject.remove(conversation.id, seq)
        subject.append(conversation.id, user_messages(*map(str, range(350, 400))))
        messages = read_all(subject, conversation.id)
        seqs = [message.seq for message in messages]
        for after, before in (
            (seqs[9], None),
            (seqs[9], seqs[310]),
            (None, seqs[310]),
            (conversation.seqs[55], None),  # the seq of a removed message
            (None, conversation.seqs[55]),
            (conversation.seqs[55], seqs[45]),
            (seqs[-1], None),
            (None, seqs[0]),
            (0, 0),
        ):
            expected = [
                message
                for message in messages
                if (after is None or message.seq > after)
                and (before is None or message.seq < before)
            ]
            if after is None:
                expected.reverse()
            read = list(subject.iter_messages(conversation.id, after=after, before=before))
            assert read == expected
            assert [message.seq for message in read] == [message.seq for message in expected]

    def test_an_iteration_over_long_messages_yields_them_all(self, subject: Store) -> None:
        texts = [f"{number} " + "x" * 250_000 for number in range(12)]
        conversation = start_conversation(subject, *texts)
        assert texts_of(subject.iter_messages(conversation.id)) == texts
        assert texts_of(subject.iter_messages(conversation.id, before=2**53 - 1)) == texts[::-1]

    def test_an_iteration_of_an_empty_conversation_yields_nothing(self, subject: Store) -> None:
        new, cleared = start_conversation(subject), start_conversation(subject, "hello")
        subject.clear(cleared.id)
        for conversation in (new, cleared):
            assert list(subject.iter_messages(conversation.id)) == []
            assert list(subject.iter_messages(conversation.id, before=2**53 - 1)) == []

    def test_an_iteration_yields_messages_that_are_appended_meanwhile(self, subject: Store) -> None:
        texts = [str(number) for number in range(250)]
        conversation = start_conversation(subject, *texts)
        iteration = subject.iter_messages(conversation.id)
        read = texts_of(islice(iteration, 50))
        subject.append(conversation.id, user_messages("250", "251"))
        read += texts_of(islice(iteration, 170))
        assert read == texts[:220]
        read += texts_of(iteration)
        assert read == [*texts, "250", "251"]

    @pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
    def test_an_iteration_misses_and_repeats_none_of_the_messages_that_stay(
        self, subject: Store, backward: bool
    ) -> None:
        texts = [str(number) for number in range(350)]
        conversation = start_conversation(subject, *texts)
        before = conversation.revision + 1 if backward else None
        iteration = subject.iter_messages(conversation.id, before=before)
        read = list(islice(iteration, 150))
        removed = [10, 120, 199, 200, 201, 220]
        for number in removed:
            subject.remove(conversation.id, conversation.seqs[number])
        subject.replace(conversation.id, conversation.seqs[5], Message.user("another"))
        subject.append(conversation.id, user_messages("new"))
        subject.truncate(conversation.id, after=conversation.seqs[339])
        subject.append(conversation.id, user_messages("and newer"))
        read += iteration
        seqs = [message.seq for message in read]
        assert seqs == sorted(set(seqs), reverse=backward)
        stayed = set(texts[6:340]) - {texts[number] for number in removed}
        assert stayed <= set(texts_of(read))

    def test_an_iteration_during_appends_yields_messages_without_gaps(self, subject: Store) -> None:
        conversation_id = start_conversation(subject, *[f"first {n}" for n in range(150)]).id

        def read() -> dict[int, str]:
            for _ in range(10):
                messages = list(subject.iter_messages(conversation_id))
                seqs = [message.seq for message in messages]
                assert seqs == sorted(set(seqs))
                for writer in ("first", "ada", "bob"):
                    texts = [text for text in texts_of(messages) if text.startswith(writer)]
                    assert texts == [f"{writer} {number}" for number in range(len(texts))]
            return {}

        race(
            [
                read,
                lambda: write_numbers(subject, conversation_id, "ada", appends=20),
                lambda: write_numbers(subject, conversation_id, "bob", appends=20),
            ]
        )
        assert len(list(subject.iter_messages(conversation_id))) == 190

    def test_an_iteration_finds_no_conversation_that_is_missing_or_anothers(
        self, subject: Store
    ) -> None:
        conversation = start_conversation(subject, "private", owner=new_id())
        for conversation_id, owner in ((new_id(), None), (conversation.id, new_id())):
            with pytest.raises(NotFound) as caught:
                next(iter(subject.iter_messages(conversation_id, owner=owner)))
            assert caught.value.conversation_id == conversation_id

    @pytest.mark.parametrize("how", ["delete", "expire"])
    def test_an_iteration_ends_with_not_found_if_the_conversation_is_deleted_meanwhile(
        self, subject: Store, clock: Clock, how: str
    ) -> None:
        conversation = start_conversation(
            subject, *map(str, range(250)), expires_in=timedelta(hours=1)
        )
        for before in (None, 2**53 - 1):
            copy = subject.fork(conversation.id)
            iteration = subject.iter_messages(copy.id, before=before)
            list(islice(iteration, 20))
            if how == "delete":
                subject.delete(copy.id)
            else:
                for _ in range(3):
                    clock.advance(timedelta(minutes=20))
                    subject.append(conversation.id, user_messages("the original lives on"))
            with pytest.raises(NotFound) as caught:
                list(iteration)
            assert caught.value.conversation_id == copy.id

    def test_an_iteration_that_is_given_up_disturbs_nothing(self, subject: Store) -> None:
        conversation = start_conversation(subject, *map(str, range(250)))
        for count in (0, 1, 120):
            assert len(list(islice(subject.iter_messages(conversation.id), count))) == count
        assert len(list(islice(subject.iter_conversations(), 1))) == 1
        subject.append(conversation.id, user_messages("250"))
        assert len(list(subject.iter_messages(conversation.id))) == 251

    def test_an_iteration_yields_every_conversation_of_an_owner_as_listed(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        assert list(subject.iter_conversations(owner)) == []
        for number in range(2 * PAGE_SIZE + 5):
            if number % 20 == 0:
                clock.advance(timedelta(seconds=1))
            subject.create(owner=owner)
            if number + 1 in COUNTS:
                assert len(list(subject.iter_conversations(owner))) == number + 1
        subject.create(owner=owner + "#")
        subject.create()
        listed = list_all(subject, owner)
        assert len(listed) == 2 * PAGE_SIZE + 5
        assert list(subject.iter_conversations(owner)) == listed
        assert list(subject.iter_conversations(owner=owner)) == listed

    def test_an_iteration_over_conversations_repeats_none_and_misses_none_without_activity(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids: list[str] = []
        for _ in range(PAGE_SIZE + 20):
            clock.advance(timedelta(seconds=1))
            ids.insert(0, subject.create(owner=owner).id)
        iteration = subject.iter_conversations(owner)
        read = ids_of(islice(iteration, 10))
        clock.advance(timedelta(seconds=1))
        for conversation_id in (ids[5], ids[50], ids[110]):
            subject.append(conversation_id, user_messages("activity"))
        subject.delete(ids[111])
        read += ids_of(iteration)
        assert len(read) == len(set(read))
        assert read[:PAGE_SIZE] == ids[:PAGE_SIZE]
        assert set(ids) - {ids[110], ids[111]} <= set(read)
        assert ids[111] not in read

    def test_an_iteration_without_owner_yields_every_conversation_of_the_store(
        self, subject: Store, clock: Clock
    ) -> None:
        owner = new_id()
        ids = {subject.create(owner=owner).id for _ in range(PAGE_SIZE + 5)}
        ids |= {subject.create(owner=new_id()).id, subject.create().id}
        deleted = subject.create(owner=owner).id
        subject.delete(deleted)
        expired = subject.create(expires_in=timedelta(hours=1)).id
        clock.advance(timedelta(hours=1))
        found = list(subject.iter_conversations())
        by_id = {conversation.id: conversation for conversation in found}
        assert len(by_id) == len(found)
        assert ids <= set(by_id)
        assert not {deleted, expired} & set(by_id)
        assert found == scan_all(subject)
