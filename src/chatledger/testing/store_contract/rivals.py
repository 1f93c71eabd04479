"""Laws for concurrent writers of one conversation; for readers see ``ReaderLaws``."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from chatledger.conversations import Appended, Conversation
from chatledger.errors import AlreadyExists, ChatledgerError, Conflict, KeyReused, NotFound
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    ids_of,
    list_all,
    numbers_by_writer,
    only_winner,
    race,
    read_all,
    snapshot,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
    write_numbers,
)
from chatledger.values import new_id

WRITERS = 8
APPENDS = 20
ROUNDS = 5


class RivalLaws:
    """Total order, atomic appends, and one winner where there can be only one."""

    def test_messages_of_many_writers_are_neither_lost_nor_duplicated_nor_reordered(
        self, subject: Store
    ) -> None:
        conversation_id = new_id()
        outcomes = race(
            [
                partial(write_numbers, subject, conversation_id, str(writer), appends=APPENDS)
                for writer in range(WRITERS)
            ]
        )
        messages = read_all(subject, conversation_id)
        assert numbers_by_writer(messages) == {
            str(writer): list(range(APPENDS)) for writer in range(WRITERS)
        }
        appended: dict[int, str] = {}
        for outcome in outcomes:
            assert isinstance(outcome, dict)
            appended |= outcome
        assert {message.seq: message.text for message in messages} == appended
        assert subject.get(conversation_id).message_count == WRITERS * APPENDS

    def test_batches_of_many_writers_are_not_interleaved(self, subject: Store) -> None:
        conversation_id = new_id()
        batches = [[f"{writer} {number}" for number in range(50)] for writer in range(WRITERS)]
        race([partial(subject.append, conversation_id, user_messages(*batch)) for batch in batches])
        texts = texts_of(read_all(subject, conversation_id))
        texts_in_order = [texts[start : start + 50] for start in range(0, len(texts), 50)]
        assert sorted(texts_in_order) == sorted(batches)

    def test_of_rivals_with_the_same_revision_exactly_one_wins(self, subject: Store) -> None:
        conversation = start_conversation(subject, "0")
        revision, texts = conversation.revision, ["0"]
        for number in range(ROUNDS):
            rivals = [f"{number} {rival}" for rival in range(WRITERS)]
            outcomes = race(
                [
                    partial(subject.append, conversation.id, user_messages(text), revision=revision)
                    for text in rivals
                ]
            )
            winner, _ = only_winner(outcomes, Conflict)
            texts.append(rivals[winner])
            observed = snapshot(subject, conversation.id)
            assert texts_of(observed.messages) == texts
            revision = observed.conversation.revision

    def test_of_rivals_that_append_at_revision_zero_exactly_one_wins(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation_id = new_id()
            outcomes = race(
                [
                    partial(subject.append, conversation_id, user_messages(str(rival)), revision=0)
                    for rival in range(WRITERS)
                ]
            )
            winner, _ = only_winner(outcomes, Conflict)
            assert texts_of(read_all(subject, conversation_id)) == [str(winner)]

    def test_rivals_with_one_idempotency_key_append_once_and_get_the_same_result(
        self, subject: Store
    ) -> None:
        for conversation_id in (new_id(), start_conversation(subject).id):
            outcomes = race(
                [
                    partial(
                        subject.append,
                        conversation_id,
                        user_messages("once"),
                        idempotency_key="key",
                    )
                ]
                * WRITERS
            )
            assert outcomes == [outcomes[0]] * WRITERS
            observed = snapshot(subject, conversation_id)
            assert texts_of(observed.messages) == ["once"]
            assert isinstance(outcomes[0], Appended)
            assert observed.seqs == list(outcomes[0].seqs)

    def test_of_rivals_with_one_idempotency_key_and_different_messages_exactly_one_wins(
        self, subject: Store
    ) -> None:
        for _ in range(ROUNDS):
            for conversation_id in (new_id(), start_conversation(subject).id):
                texts = [str(rival) for rival in range(WRITERS)]
                outcomes = race(
                    [
                        partial(
                            subject.append,
                            conversation_id,
                            user_messages(text),
                            idempotency_key="key",
                            title=text,
                        )
                        for text in texts
                    ]
                )
                winner, _ = only_winner(outcomes, KeyReused)
                observed = snapshot(subject, conversation_id)
                assert texts_of(observed.messages) == [texts[winner]]
                assert observed.conversation.title in (None, texts[winner])

    def test_the_first_append_of_rivals_gives_the_conversation_its_fields(
        self, subject: Store
    ) -> None:
        for _ in range(ROUNDS):
            conversation_id = new_id()
            race(
                [
                    partial(
                        subject.append,
                        conversation_id,
                        user_messages(str(rival)),
                        title=str(rival),
                        metadata={"rival": rival},
                        expires_in=timedelta(hours=1 + rival),
                    )
                    for rival in range(WRITERS)
                ]
            )
            observed = snapshot(subject, conversation_id)
            assert len(observed.messages) == WRITERS
            first = observed.messages[0].text
            conversation = observed.conversation
            assert (conversation.title, conversation.metadata) == (first, {"rival": int(first)})
            assert conversation.expires_at
            lifetime = conversation.expires_at - conversation.updated_at
            assert lifetime == timedelta(hours=1 + int(first))

    @pytest.mark.parametrize("has_id", [False, True], ids=["id from the key", "given id"])
    def test_rivals_with_one_idempotency_key_create_once_and_get_the_same_conversation(
        self, subject: Store, has_id: bool
    ) -> None:
        for _ in range(ROUNDS):
            owner, key, conversation_id = new_id(), new_id(), new_id() if has_id else None
            create = partial(
                subject.create,
                conversation_id,
                owner=owner,
                title="Plans",
                metadata={"a": 1},
                idempotency_key=key,
            )
            outcomes = race([create] * WRITERS)
            assert outcomes == [outcomes[0]] * WRITERS
            assert isinstance(outcomes[0], Conversation)
            assert list_all(subject, owner) == [outcomes[0]]
            assert snapshot(subject, outcomes[0].id) == (outcomes[0], [], [])
            # The same once more, while the conversation and its messages change.
            calls: list[Callable[[], object]] = [
                *[create] * 5,
                partial(subject.append, outcomes[0].id, user_messages("1")),
                partial(subject.update, outcomes[0].id, title="new"),
                partial(subject.clear, outcomes[0].id),
            ]
            for outcome in race(calls)[:5]:
                assert isinstance(outcome, Conversation)
                assert outcome.id == outcomes[0].id
            assert len(list_all(subject, owner)) == 1

    def test_of_rivals_that_create_with_one_key_and_different_titles_exactly_one_wins(
        self, subject: Store
    ) -> None:
        for conversation_id in (None, new_id()):
            owner, key = new_id(), new_id()
            outcomes = race(
                [
                    partial(
                        subject.create,
                        conversation_id,
                        owner=owner,
                        title=str(rival),
                        idempotency_key=key,
                    )
                    for rival in range(WRITERS)
                ]
            )
            _, created = only_winner(outcomes, KeyReused)
            assert list_all(subject, owner) == [created]

    @pytest.mark.parametrize("length", [0, 3, 300])
    @pytest.mark.parametrize("has_id", [False, True], ids=["id from the key", "given id"])
    def test_rivals_with_one_idempotency_key_fork_once_and_get_the_same_copy(
        self, subject: Store, has_id: bool, length: int
    ) -> None:
        owner, key, copy_id = new_id(), new_id(), new_id() if has_id else None
        texts = [str(number) for number in range(length)]
        source = start_conversation(subject, *texts, owner=owner)
        fork = partial(subject.fork, source.id, new_id=copy_id, idempotency_key=key)
        outcomes = race([fork] * WRITERS)
        assert outcomes == [outcomes[0]] * WRITERS
        copy = outcomes[0]
        assert isinstance(copy, Conversation)
        observed = snapshot(subject, copy.id)
        assert (observed.conversation, texts_of(observed.messages)) == (copy, texts)
        assert sorted(ids_of(list_all(subject, owner))) == sorted([source.id, copy.id])
        calls: list[Callable[[], object]] = [*[fork] * 4, partial(subject.delete, source.id)]
        again = race(calls)
        assert again[:4] == [copy] * 4
        assert snapshot(subject, copy.id) == observed

    def test_of_rivals_that_claim_a_conversation_exactly_one_wins(self, subject: Store) -> None:
        for reply_follows in (False, True) * 3:
            conversation_id, owners = new_id(), [new_id() for _ in range(WRITERS)]
            before = subject.append(
                conversation_id, user_messages("hello"), reply_follows=reply_follows
            )
            outcomes = race([partial(subject.claim, conversation_id, owner) for owner in owners])
            winner, claimed = only_winner(outcomes, NotFound)
            assert claimed.owner == owners[winner]
            assert claimed.revision > before.revision
            assert subject.get(conversation_id) == claimed
            for n, owner in enumerate(owners):
                assert list_all(subject, owner) == ([claimed] if n == winner else [])

    def test_claims_of_one_owner_all_succeed_and_appends_meanwhile_all_land(
        self, subject: Store
    ) -> None:
        for _ in range(ROUNDS):
            conversation_id, owner = start_conversation(subject, "0").id, new_id()
            texts = [str(number) for number in range(1, 5)]
            calls: list[Callable[[], object]] = [
                partial(subject.claim, conversation_id, owner) for _ in range(4)
            ]
            calls += [
                partial(subject.append, conversation_id, user_messages(text)) for text in texts
            ]
            for outcome in race(calls):
                assert not isinstance(outcome, ChatledgerError)
            observed = snapshot(subject, conversation_id)
            assert sorted(texts_of(observed.messages)) == ["0", *texts]
            assert observed.conversation.owner == owner
            assert list_all(subject, owner) == [observed.conversation]

    def test_of_a_claim_and_a_deletion_none_leaves_a_conversation_in_a_list(
        self, subject: Store
    ) -> None:
        for _ in range(ROUNDS):
            conversation_id, owner = start_conversation(subject, "1").id, new_id()
            calls: list[Callable[[], object]] = [
                partial(subject.claim, conversation_id, owner),
                partial(subject.delete, conversation_id),
            ]
            claimed, deleted = race(calls)
            assert deleted is None
            assert isinstance(claimed, Conversation | NotFound)
            assert snapshot_if_any(subject, conversation_id) is None
            assert list_all(subject, owner) == []

    def test_a_message_that_was_appended_keeps_a_deletion_at_the_revision_before_from_it(
        self, subject: Store
    ) -> None:
        for _ in range(ROUNDS):
            conversation = start_conversation(subject, "1")
            calls: list[Callable[[], object]] = [
                partial(
                    subject.append,
                    conversation.id,
                    user_messages("2"),
                    revision=conversation.revision,
                ),
                partial(subject.delete, conversation.id, revision=conversation.revision),
            ]
            appended, deleted = race(calls)
            observed = snapshot_if_any(subject, conversation.id)
            if observed is None:
                assert (type(appended), deleted) == (NotFound, None)
            else:
                assert texts_of(observed.messages) == ["1", "2"]
                assert isinstance(deleted, Conflict)

    def test_of_rivals_that_remove_one_message_exactly_one_wins(self, subject: Store) -> None:
        for together in (True, False):
            conversation = start_conversation(subject, *(["0", "1", "2"] if together else ["0"]))
            seqs = list(conversation.seqs)
            for text in () if together else ("1", "2"):
                seqs += subject.append(conversation.id, user_messages(text)).seqs
            for seq in (seqs[1], seqs[2]):
                outcomes = race([partial(subject.remove, conversation.id, seq)] * WRITERS)
                _, removed = only_winner(outcomes, NotFound)
                assert subject.get(conversation.id) == removed
            observed = snapshot(subject, conversation.id)
            assert (texts_of(observed.messages), observed.seqs) == (["0"], seqs[:1])
            assert observed.conversation.message_count == 1

    def test_of_rivals_that_remove_at_one_revision_exactly_one_wins(self, subject: Store) -> None:
        conversation = start_conversation(subject, *map(str, range(WRITERS)))
        outcomes = race(
            [
                partial(subject.remove, conversation.id, seq, revision=conversation.revision)
                for seq in conversation.seqs
            ]
        )
        winner, _ = only_winner(outcomes, Conflict)
        observed = snapshot(subject, conversation.id)
        assert texts_of(observed.messages) == [str(n) for n in range(WRITERS) if n != winner]

    @pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one append"])
    def test_removals_of_different_messages_and_appends_all_take_effect(
        self, subject: Store, together: bool
    ) -> None:
        texts = [f"first {number}" for number in range(12)]
        conversation_id = subject.create().id
        for batch in [texts] if together else [[text] for text in texts]:
            subject.append(conversation_id, user_messages(*batch))
        seqs = snapshot(subject, conversation_id).seqs

        def remove(some: list[int]) -> None:
            for seq in some:
                subject.remove(conversation_id, seq)

        calls: list[Callable[[], object]] = [partial(remove, seqs[n:10:4]) for n in range(4)]
        calls += [
            partial(write_numbers, subject, conversation_id, writer, appends=10)
            for writer in ("ada", "bob")
        ]
        for outcome in race(calls):
            assert not isinstance(outcome, ChatledgerError)
        observed = snapshot(subject, conversation_id)
        numbers = numbers_by_writer(observed.messages)
        assert numbers == {"first": [10, 11], "ada": list(range(10)), "bob": list(range(10))}
        assert observed.conversation.message_count == 22

    def test_a_message_is_removed_whatever_rivals_do_with_it(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation = start_conversation(subject, "0", "1", "2", "3")
            seq = conversation.seqs[2]
            calls: list[Callable[[], object]] = [
                partial(subject.remove, conversation.id, seq),
                partial(subject.replace, conversation.id, seq, Message.user("another")),
                partial(subject.replace, conversation.id, seq, Message.user("yet another")),
                partial(subject.append, conversation.id, user_messages("4")),
            ]
            removed, *replaced, appended = race(calls)
            assert isinstance(removed, Conversation)
            assert isinstance(appended, Appended)
            for outcome in replaced:
                assert isinstance(outcome, Conversation | NotFound)
            observed = snapshot(subject, conversation.id)
            assert texts_of(observed.messages) == ["0", "1", "3", "4"]
            assert observed.conversation.message_count == 4

    def test_the_count_is_right_after_removals_of_every_kind_at_once(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation = start_conversation(subject, *map(str, range(20)))
            seqs = conversation.seqs
            calls: list[Callable[[], object]] = [
                *(partial(subject.remove, conversation.id, seqs[n]) for n in (3, 11, 18)),
                partial(subject.pop, conversation.id, 2),
                partial(subject.truncate, conversation.id, after=seqs[14]),
                partial(
                    subject.append, conversation.id, user_messages("a"), truncate_after=seqs[16]
                ),
                partial(subject.append, conversation.id, user_messages("b")),
                partial(subject.fork, conversation.id),
            ]
            *_, fork = race(calls)
            assert isinstance(fork, Conversation)
            for conversation_id in (conversation.id, fork.id):
                observed = snapshot(subject, conversation_id)
                assert observed.conversation.message_count == len(observed.messages)
                again = subject.fork(conversation_id)
                assert again.message_count == len(observed.messages)
            texts = texts_of(snapshot(subject, conversation.id).messages)
            assert not {"3", "11", "18"} & set(texts)

    def test_of_rivals_that_create_one_id_exactly_one_wins(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation_id = new_id()
            outcomes = race(
                [
                    partial(subject.create, conversation_id, owner=new_id(), title=str(rival))
                    for rival in range(WRITERS)
                ]
            )
            _, created = only_winner(outcomes, AlreadyExists)
            assert subject.get(conversation_id) == created

    def test_of_rivals_that_fork_to_one_id_exactly_one_wins(self, subject: Store) -> None:
        conversation, target = start_conversation(subject, "1", "2"), new_id()
        outcomes = race([partial(subject.fork, conversation.id, new_id=target)] * WRITERS)
        _, fork = only_winner(outcomes, AlreadyExists)
        observed = snapshot(subject, target)
        assert (observed.conversation, texts_of(observed.messages)) == (fork, ["1", "2"])

    def test_owners_that_race_for_an_id_never_share_it(self, subject: Store) -> None:
        for _ in range(ROUNDS):
            conversation_id, owners = new_id(), [new_id() for _ in range(WRITERS)]
            outcomes = race(
                [
                    partial(subject.append, conversation_id, user_messages(owner), owner=owner)
                    for owner in owners
                ]
            )
            winner, _ = only_winner(outcomes, NotFound)
            observed = snapshot(subject, conversation_id)
            assert observed.conversation.owner == owners[winner]
            assert texts_of(observed.messages) == [owners[winner]]

    def test_appends_of_rivals_to_an_expired_id_all_land(
        self, subject: Store, clock: Clock
    ) -> None:
        conversation = start_conversation(subject, "old", expires_in=timedelta(hours=1))
        clock.advance(timedelta(hours=1))
        texts = [str(rival) for rival in range(WRITERS)]
        race([partial(subject.append, conversation.id, user_messages(text)) for text in texts])
        observed = snapshot(subject, conversation.id)
        assert sorted(texts_of(observed.messages)) == texts
        assert observed.seqs[0] > conversation.revision

    def test_no_message_is_popped_twice(self, subject: Store) -> None:
        texts = [str(number) for number in range(WRITERS * 3)]
        conversation = start_conversation(subject, *texts, "not popped")
        outcomes = race([partial(subject.pop, conversation.id, 2)] * WRITERS)
        popped = [
            text
            for outcome in outcomes
            if not isinstance(outcome, ChatledgerError)
            for text in texts_of(outcome)
        ]
        remaining = texts_of(snapshot(subject, conversation.id).messages)
        assert len(popped) == 2 * WRITERS
        assert sorted(popped + remaining) == sorted([*texts, "not popped"])
