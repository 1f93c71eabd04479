"""Laws of ``remove``: one message goes, wherever it is, and all others stay."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest

from chatledger.conversations import MAX_LIMIT
from chatledger.errors import Conflict, NotFound
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Started,
    assert_unchanged,
    list_all,
    messages_from,
    read_all,
    read_started,
    snapshot,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.values import new_id

FAR = 2**53 - 1
TEXTS = [str(number) for number in range(9)]


def in_batches(store: Store, *sizes: int, owner: str | None = None) -> Started:
    """Create a conversation of ``"0"``, ``"1"`` and so on, in appends of these sizes."""
    conversation_id, first = store.create(owner=owner).id, 0
    for size in sizes:
        texts = map(str, range(first, first + size))
        store.append(conversation_id, user_messages(*texts))
        first += size
    return read_started(store, conversation_id)


def restored(store: Store) -> Started:
    """Create a conversation of ``TEXTS`` by restoring them, with gaps between their seqs."""
    source = in_batches(store, 9)
    conversation = store.get(source.id)
    store.delete(source.id)
    revision, seqs = conversation.revision + 10, []
    first = replace(conversation, id=new_id(), revision=revision)
    store.restore(first, [], revision=0)
    for texts in (TEXTS[:2], TEXTS[2:6], TEXTS[6:]):
        messages = messages_from(revision + 1, *texts)
        seqs += [message.seq for message in messages]
        next_revision = revision + len(texts) + 3
        store.restore(replace(first, revision=next_revision), messages, revision=revision)
        revision = next_revision
    return Started(first.id, seqs, revision)


def truncated(store: Store) -> Started:
    conversation = in_batches(store, 3, 5)
    store.truncate(conversation.id, after=conversation.seqs[4])
    store.append(conversation.id, user_messages("5", "6", "x"))
    store.pop(conversation.id)
    [seq, _] = store.append(conversation.id, user_messages("y", "z")).seqs
    store.append(conversation.id, user_messages("7", "8"), truncate_after=seq - 1)
    return read_started(store, conversation.id)


def replaced(store: Store) -> Started:
    conversation = in_batches(store, 9)
    for n in (0, 4, 8, 4):
        store.replace(conversation.id, conversation.seqs[n], Message.user(str(n)))
    return conversation


def forked(store: Store) -> Started:
    source = in_batches(store, 5, 1, 4)
    fork = store.fork(source.id, at=source.seqs[8])
    store.delete(source.id)
    return read_started(store, fork.id)


def forked_and_appended(store: Store) -> Started:
    source = in_batches(store, 4, 4)
    fork = store.fork(source.id, at=source.seqs[5])
    store.append(fork.id, user_messages("6", "7", "8"))
    return read_started(store, fork.id)


def fork_of_a_fork(store: Store) -> Started:
    fork = store.fork(in_batches(store, 5).id)
    store.append(fork.id, user_messages("5", "6", "x"))
    again = store.fork(fork.id, at=read_started(store, fork.id).seqs[6])
    store.append(again.id, user_messages("7", "8"))
    return read_started(store, again.id)


ORIGINS: dict[str, Callable[[Store], Started]] = {
    "one append": lambda store: in_batches(store, 9),
    "one by one": lambda store: in_batches(store, *[1] * 9),
    "several appends": lambda store: in_batches(store, 1, 4, 3, 1),
    "restored": restored,
    "truncated": truncated,
    "replaced": replaced,
    "forked": forked,
    "forked and appended": forked_and_appended,
    "a fork of a fork": fork_of_a_fork,
}
"""Ways to come to a conversation of the messages ``TEXTS``."""


def assert_reads(
    store: Store,
    conversation_id: str,
    texts: list[str],
    seqs: Sequence[int],
    *,
    limits: Sequence[int] = (1, 2, 3, MAX_LIMIT),
) -> None:
    """Assert that every read shows exactly these messages, page by page with each limit."""
    assert len(texts) == len(seqs)
    state = snapshot(store, conversation_id)
    assert (texts_of(state.messages), state.seqs) == (texts, list(seqs))
    assert state.conversation.message_count == len(texts)
    assert store.get(conversation_id).message_count == len(texts)
    for n in {*limits, len(texts) or 1}:
        assert texts_of(store.tail(conversation_id, n).messages) == texts[-n:]
    for limit in limits:
        assert texts_of(read_all(store, conversation_id, limit=limit)) == texts
        assert texts_of(read_all(store, conversation_id, before=FAR, limit=limit)) == texts[::-1]
    if texts:
        # A page is the last one if only removed messages follow.
        assert store.page(conversation_id, limit=len(texts)).next is None
        assert store.page(conversation_id, before=FAR, limit=len(texts)).next is None
    assert texts_of(store.iter_messages(conversation_id)) == texts


class MessageRemovalLaws:
    """``remove``, without rivals (``RivalLaws``)."""

    @pytest.mark.parametrize("start", ORIGINS.values(), ids=ORIGINS)
    @pytest.mark.parametrize("number", [0, 1, 4, 5, 7, 8])
    def test_a_message_is_removed_wherever_it_is_and_all_others_stay(
        self, subject: Store, clock: Clock, start: Callable[[Store], Started], number: int
    ) -> None:
        conversation_id, seqs, *_ = start(subject)
        assert_reads(subject, conversation_id, TEXTS, seqs, limits=[MAX_LIMIT])
        before = snapshot(subject, conversation_id)
        with clock.stopped():
            result = subject.remove(conversation_id, seqs[number])
            assert result.updated_at == clock()
        assert result.revision > before.conversation.revision
        assert result.message_count == 8
        assert result == subject.get(conversation_id)
        assert (result.title, result.metadata) == (None, {})
        texts, left = [*TEXTS], [*seqs]
        del texts[number], left[number]
        assert_reads(subject, conversation_id, texts, left)
        remaining = [message for message in before.messages if message.seq != seqs[number]]
        assert snapshot(subject, conversation_id).messages == remaining
        appended = subject.append(conversation_id, user_messages("new"), revision=result.revision)
        assert appended.seqs[0] > result.revision
        assert_reads(subject, conversation_id, [*texts, "new"], [*left, *appended.seqs], limits=[2])
        with assert_unchanged(subject, conversation_id), pytest.raises(NotFound):
            subject.remove(conversation_id, seqs[number])

    @pytest.mark.parametrize("start", ORIGINS.values(), ids=ORIGINS)
    @pytest.mark.parametrize("seed", [0, 1, 2], ids=["forward", "backward", "at random"])
    def test_all_messages_can_be_removed_one_by_one_in_any_order(
        self, subject: Store, start: Callable[[Store], Started], seed: int
    ) -> None:
        conversation_id, seqs, *_ = start(subject)
        left, texts, random = [*seqs], [*TEXTS], Random(seed)
        revision = subject.get(conversation_id).revision
        while left:
            number = {0: 0, 1: len(left) - 1}.get(seed, random.randrange(len(left)))
            result = subject.remove(conversation_id, left.pop(number), revision=revision)
            del texts[number]
            assert result.revision > revision
            revision = result.revision
            assert_reads(subject, conversation_id, texts, left, limits=[random.randrange(1, 5)])
        with assert_unchanged(subject, conversation_id):
            subject.clear(conversation_id)
            subject.truncate(conversation_id, after=0)
            assert subject.pop(conversation_id, 5) == []
            for seq in seqs:
                with pytest.raises(NotFound):
                    subject.remove(conversation_id, seq)
        fork = subject.fork(conversation_id)
        assert_reads(subject, fork.id, [], [])
        appended = subject.append(conversation_id, user_messages("new"), revision=revision)
        assert appended.seqs[0] > revision
        assert_reads(subject, conversation_id, ["new"], list(appended.seqs))
        assert_reads(subject, fork.id, [], [])

    def test_a_removed_message_cannot_be_replaced_or_removed_again(self, subject: Store) -> None:
        conversation_id, seqs, *_ = in_batches(subject, 3)
        subject.remove(conversation_id, seqs[1])
        subject.append(conversation_id, user_messages("3"))
        missing = subject.get(conversation_id).revision + 1_000
        for seq in (seqs[1], missing, FAR):
            with assert_unchanged(subject, conversation_id), pytest.raises(NotFound) as caught:
                subject.remove(conversation_id, seq)
            assert (caught.value.conversation_id, caught.value.seq) == (conversation_id, seq)
            with assert_unchanged(subject, conversation_id), pytest.raises(NotFound):
                subject.replace(conversation_id, seq, Message.user("no"))

    def test_a_number_between_two_messages_cannot_be_removed(self, subject: Store) -> None:
        conversation_id, seqs, *_ = restored(subject)
        revision = subject.get(conversation_id).revision
        for seq in {*range(1, revision + 2)} - {*seqs}:
            with assert_unchanged(subject, conversation_id), pytest.raises(NotFound):
                subject.remove(conversation_id, seq)

    def test_a_message_that_was_truncated_or_replaced_away_cannot_be_removed(
        self, subject: Store
    ) -> None:
        conversation_id, seqs, *_ = in_batches(subject, 5)
        subject.truncate(conversation_id, after=seqs[3])
        appended = subject.append(
            conversation_id, user_messages("new"), truncate_after=seqs[2]
        ).seqs[0]
        for seq in seqs[3:]:
            with assert_unchanged(subject, conversation_id), pytest.raises(NotFound):
                subject.remove(conversation_id, seq)
        subject.remove(conversation_id, appended)
        assert_reads(subject, conversation_id, ["0", "1", "2"], seqs[:3])

    def test_a_removal_with_revision_succeeds_only_at_that_revision(self, subject: Store) -> None:
        conversation_id, seqs, *_ = in_batches(subject, 3)
        first = subject.get(conversation_id).revision
        result = subject.remove(conversation_id, seqs[0], revision=first)
        for revision in (0, first, result.revision - 1, result.revision + 1, FAR):
            if revision == result.revision:
                continue
            with assert_unchanged(subject, conversation_id), pytest.raises(Conflict) as caught:
                subject.remove(conversation_id, seqs[1], revision=revision)
            assert (caught.value.expected, caught.value.revision) == (revision, result.revision)
        subject.remove(conversation_id, seqs[1], revision=result.revision)
        assert texts_of(read_all(subject, conversation_id)) == ["2"]

    def test_the_tail_reaches_beyond_any_number_of_removed_messages(self, subject: Store) -> None:
        conversation_id, seqs, *_ = in_batches(subject, *[7] * 10)
        kept = [0, 1, 33, 68]
        for number in range(70):
            if number not in kept:
                subject.remove(conversation_id, seqs[number])
        assert_reads(
            subject, conversation_id, [str(number) for number in kept], [seqs[n] for n in kept]
        )
        for seq in seqs:
            later = [n for n in kept if seqs[n] > seq]
            earlier = [n for n in kept if seqs[n] < seq]
            page = subject.page(conversation_id, after=seq, limit=2)
            assert texts_of(page.messages) == [str(n) for n in later[:2]]
            assert (page.next is None) == (len(later) <= 2)
            page = subject.page(conversation_id, before=seq, limit=2)
            assert texts_of(page.messages) == [str(n) for n in earlier[::-1][:2]]
            assert (page.next is None) == (len(earlier) <= 2)

    def test_a_truncation_with_only_removed_messages_above_changes_nothing(
        self, subject: Store
    ) -> None:
        conversation_id, seqs, *_ = in_batches(subject, 3, 2, 1)
        for seq in seqs[2:]:
            subject.remove(conversation_id, seq)
        with assert_unchanged(subject, conversation_id):
            before = subject.get(conversation_id)
            for after in (*seqs[1:], before.revision, before.revision + 5):
                assert subject.truncate(conversation_id, after=after) == before
        assert subject.truncate(conversation_id, after=seqs[0]).message_count == 1
        assert_reads(subject, conversation_id, ["0"], seqs[:1])

    @pytest.mark.parametrize("start", ORIGINS.values(), ids=ORIGINS)
    def test_every_other_removal_counts_the_messages_that_are_left(
        self, subject: Store, start: Callable[[Store], Started]
    ) -> None:
        conversation_id, seqs, *_ = start(subject)
        for number in (1, 3, 4, 7, 8):
            subject.remove(conversation_id, seqs[number])  # left: 0, 2, 5, 6
        forks = [subject.fork(conversation_id).id for _ in range(4)]
        for at, texts in (
            (None, ["0", "2", "5", "6"]),
            (seqs[8], ["0", "2", "5", "6"]),
            (seqs[5], ["0", "2", "5"]),
            (seqs[4], ["0", "2"]),
            (seqs[1], ["0"]),
            (0, []),
        ):
            fork = subject.fork(conversation_id, at=at)
            assert fork.message_count == len(texts)
            assert_reads(subject, fork.id, texts, read_started(subject, fork.id).seqs)
        for each in (conversation_id, forks[0]):
            popped = subject.pop(each, 2)
            assert texts_of(popped) == ["5", "6"]
            assert_reads(subject, each, ["0", "2"], read_started(subject, each).seqs)
            assert texts_of(subject.pop(each, 5)) == ["0", "2"]
            assert_reads(subject, each, [], [])
        fork_seqs = read_started(subject, forks[1]).seqs
        assert subject.truncate(forks[1], after=fork_seqs[0]).message_count == 1
        assert_reads(subject, forks[1], ["0"], fork_seqs[:1])
        new = subject.append(forks[2], user_messages("new"), truncate_after=fork_seqs[1])
        assert_reads(subject, forks[2], ["0", "2", "new"], [*fork_seqs[:2], *new.seqs])
        assert subject.clear(forks[3]).message_count == 0
        assert_reads(subject, forks[3], [], [])

    def test_an_append_that_truncates_at_a_removed_message_counts_what_is_left(
        self, subject: Store
    ) -> None:
        conversation_id, seqs, *_ = in_batches(subject, 2, 3, 2)
        for number in (1, 3, 6):
            subject.remove(conversation_id, seqs[number])  # left: 0, 2, 4, 5
        first = subject.append(conversation_id, user_messages("a"), truncate_after=seqs[3])
        assert_reads(subject, conversation_id, ["0", "2", "a"], [seqs[0], seqs[2], *first.seqs])
        subject.remove(conversation_id, first.seqs[0])
        # Only removed messages are above.
        second = subject.append(conversation_id, user_messages("b"), truncate_after=seqs[2])
        assert_reads(subject, conversation_id, ["0", "2", "b"], [seqs[0], seqs[2], *second.seqs])
        assert second.seqs[0] > first.revision

    def test_an_original_and_its_forks_lose_messages_independently(self, subject: Store) -> None:
        owner = new_id()
        original = in_batches(subject, 3, 2, owner=owner)
        subject.remove(original.id, original.seqs[1])
        fork = read_started(subject, subject.fork(original.id).id)
        again = read_started(subject, subject.fork(fork.id).id)
        everywhere = ["0", "2", "3", "4"]
        with assert_unchanged(subject, fork.id), assert_unchanged(subject, again.id):
            subject.remove(original.id, original.seqs[0])
            subject.remove(original.id, original.seqs[4])
        with assert_unchanged(subject, original.id), assert_unchanged(subject, again.id):
            subject.remove(fork.id, fork.seqs[1])
            subject.append(fork.id, user_messages("5"))
        with assert_unchanged(subject, original.id), assert_unchanged(subject, fork.id):
            subject.remove(again.id, again.seqs[3])
        assert texts_of(read_all(subject, original.id)) == ["2", "3"]
        assert texts_of(read_all(subject, fork.id)) == ["0", "3", "4", "5"]
        assert texts_of(read_all(subject, again.id)) == everywhere[:3]
        with assert_unchanged(subject, fork.id), assert_unchanged(subject, again.id):
            subject.delete(original.id)
            subject.sweep()
        with assert_unchanged(subject, again.id):
            subject.delete(fork.id)
            subject.sweep()
        assert_reads(subject, again.id, everywhere[:3], again.seqs[:3])
        assert list_all(subject, owner) == [subject.get(again.id)]

    def test_the_text_of_a_removed_message_is_gone_from_every_read_and_copy(
        self, subject: Store
    ) -> None:
        conversation_id, seqs, *_ = in_batches(subject, 2)
        secret = "secret " + new_id()
        subject.append(conversation_id, user_messages("2", secret, "4"))
        seqs = read_started(subject, conversation_id).seqs
        subject.replace(conversation_id, seqs[3], Message.user(secret + " once more"))
        subject.remove(conversation_id, seqs[3])
        fork = subject.fork(conversation_id)
        source = snapshot(subject, conversation_id)
        for each in (conversation_id, fork.id):
            for messages in (
                subject.tail(each, 10).messages,
                subject.page(each).messages,
                subject.page(each, before=FAR).messages,
                subject.page(each, after=seqs[2] - 1).messages,
                list(subject.iter_messages(each)),
            ):
                assert "secret" not in " ".join(texts_of(messages))
        assert texts_of(subject.pop(conversation_id, 10)) == texts_of(source.messages)

    @pytest.mark.parametrize("length", [350_000, 2_000_000])
    @pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one append"])
    def test_long_messages_are_removed_like_any_other(
        self, subject: Store, length: int, together: bool
    ) -> None:
        texts = [f"{number} " + chr(ord("a") + number) * length for number in range(5)]
        conversation_id = subject.create().id
        for batch in [texts] if together else [[text] for text in texts]:
            subject.append(conversation_id, user_messages(*batch))
        seqs = read_started(subject, conversation_id).seqs
        left = [*range(5)]
        for number in (2, 4, 0, 1, 3):
            left.remove(number)
            result = subject.remove(conversation_id, seqs[number])
            assert result.message_count == len(left)
            state = snapshot(subject, conversation_id)
            assert texts_of(state.messages) == [texts[n] for n in left]
            assert state.seqs == [seqs[n] for n in left]
            if number == 4:
                fork = subject.fork(conversation_id)
                subject.sweep()
        assert texts_of(read_all(subject, fork.id)) == [texts[n] for n in (0, 1, 3)]

    def test_messages_of_a_batch_of_hundreds_are_removed_like_any_other(
        self, subject: Store
    ) -> None:
        texts = [f"{number} " + "x" * 1_500 for number in range(700)]
        conversation = start_conversation(subject, "first", *texts)
        subject.append(conversation.id, user_messages("last"))
        all_texts = ["first", *texts, "last"]
        seqs = read_started(subject, conversation.id).seqs
        removed = [1, 2, 3, 300, 350, 351, 699, 700]
        for number in Random(7).sample(removed, len(removed)):
            subject.remove(conversation.id, seqs[number])
        left = [number for number in range(702) if number not in removed]
        expected = [all_texts[number] for number in left]
        state = snapshot(subject, conversation.id)
        assert (texts_of(state.messages), state.seqs) == (expected, [seqs[n] for n in left])
        assert state.conversation.message_count == len(left)
        backward = read_all(subject, conversation.id, before=FAR, limit=100)
        assert texts_of(backward) == expected[::-1]
        assert texts_of(subject.tail(conversation.id, 3).messages) == expected[-3:]
        fork = subject.fork(conversation.id, at=seqs[350])
        assert texts_of(read_all(subject, fork.id)) == [
            all_texts[number] for number in left if number <= 350
        ]
        cut = subject.truncate(conversation.id, after=seqs[301])
        assert cut.message_count == sum(number <= 301 for number in left)

    def test_any_mixture_of_writes_and_removals_leaves_what_a_list_would(
        self, subject: Store
    ) -> None:
        for seed in range(3):
            random = Random(seed)
            conversation_id = subject.create().id
            model: dict[int, str] = {}
            highest = 0
            for step in range(40):
                seqs = sorted(model)
                action = random.choice(["append", "append", "remove", "remove", "remove", "other"])
                if action == "append" or not seqs:
                    texts = [f"{step}.{n}" for n in range(random.choice([1, 1, 3, 30]))]
                    cut = random.choice([None, None, None, *seqs[-3:]])
                    appended = subject.append(
                        conversation_id, user_messages(*texts), truncate_after=cut
                    )
                    assert appended.seqs[0] > highest
                    if cut is not None:
                        model = {seq: text for seq, text in model.items() if seq <= cut}
                    model |= zip(appended.seqs, texts, strict=True)
                elif action == "remove":
                    seq = random.choice(seqs)
                    subject.remove(conversation_id, seq)
                    del model[seq]
                else:
                    match random.choice(["truncate", "pop", "replace", "fork"]):
                        case "truncate":
                            cut = random.choice(seqs[-4:])
                            subject.truncate(conversation_id, after=cut)
                            model = {seq: text for seq, text in model.items() if seq <= cut}
                        case "pop":
                            popped = subject.pop(conversation_id, 2)
                            assert texts_of(popped) == [model.pop(seq) for seq in seqs[-2:]]
                        case "replace":
                            seq = random.choice(seqs)
                            subject.replace(conversation_id, seq, Message.user("another"))
                            model[seq] = "another"
                        case "fork":
                            texts = [model[seq] for seq in seqs]
                            conversation_id = subject.fork(conversation_id).id
                            model = dict(
                                zip(read_started(subject, conversation_id).seqs, texts, strict=True)
                            )
                            highest = 0
                state = snapshot(subject, conversation_id)
                assert dict(zip(state.seqs, texts_of(state.messages), strict=True)) == model
                assert state.conversation.message_count == len(model)
                highest = state.conversation.revision
            assert_reads(
                subject, conversation_id, [model[seq] for seq in sorted(model)], sorted(model)
            )
