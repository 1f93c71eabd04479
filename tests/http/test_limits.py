"""Limits to the second and the token: with a clock of the test, and models that fail."""

from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chatledger.errors import ModelThrottled, ModelUnavailable, NotFound, StoreUnavailable
from chatledger.http.errors import ApiError
from chatledger.http.limits import MAX_ATTEMPTS, USAGE, Limits, caller_at
from chatledger.messages import Message
from chatledger.models.protocol import Finished, Piece, Usage
from chatledger.sansio import run
from chatledger.stores.sqlite import SQLiteStore

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
HOUR = 3_600
QUESTION = [Message.user("x" * 4_000)]
"""Messages of about a thousand tokens."""
DONE = Finished("end_turn", Usage(3, 5, cached_tokens=2))


class Clock:
    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> float:
        return self.time


class ReplyingModel:
    """A model that yields or raises the items of its script."""

    id = "scripted"

    def __init__(self, *script: Piece | Finished | Exception) -> None:
        self._script = script

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        for item in self._script:
            if isinstance(item, Exception):
                raise item
            yield item

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        for item in self.stream_sync(messages, system_prompt=system_prompt):
            yield item

    async def close(self) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "chatledger.db") as store:
        yield store


def wait_of(limits: Limits, store: Any, code: str, caller: str = "bob") -> int:
    """Return the seconds that the caller, who must be refused with ``code``, has to wait."""
    with pytest.raises(ApiError) as refused:
        run(limits.count_turn(store, caller))
    assert (refused.value.status, refused.value.code) == (429, code)
    return int(refused.value.headers["Retry-After"])


def spend(limits: Limits, tokens: int, caller: str = "bob") -> None:
    model = limits.counted_model(ReplyingModel(Finished("end_turn", Usage(tokens, 0))), caller)
    list(model.stream_sync(QUESTION))


def stored_usage(store: SQLiteStore, caller: str = "bob") -> Any:
    return store.entry(None, USAGE, owner=caller).value


# Turns a minute -----------------------------------------------------------------------------------


def test_the_next_turn_is_allowed_when_the_oldest_is_a_minute_old(
    store: SQLiteStore, clock: Clock
) -> None:
    limits = Limits(turns_a_minute=2, clock=clock)
    run(limits.count_turn(store, "bob"))
    clock.time += 20
    run(limits.count_turn(store, "bob"))
    clock.time += 15.5
    assert wait_of(limits, store, "too_many_turns") == 25
    clock.time += 24.4
    assert wait_of(limits, store, "too_many_turns") == 1
    clock.time += 0.2
    run(limits.count_turn(store, "bob"))
    assert wait_of(limits, store, "too_many_turns") == 20


def test_a_turn_that_is_refused_is_not_written_and_soon_not_even_read(
    store: SQLiteStore, clock: Clock
) -> None:
    limits = Limits(turns_a_minute=1, clock=clock)
    run(limits.count_turn(store, "bob"))
    before = store.entry(None, USAGE, owner="bob")
    wait_of(limits, store, "too_many_turns")
    assert store.entry(None, USAGE, owner="bob") == before
    assert wait_of(limits, None, "too_many_turns") == 60  # without a store
    with pytest.raises(ApiError), limits.running_turn("bob"):
        pass
    clock.time += 60
    with limits.running_turn("bob"):
        run(limits.count_turn(store, "bob"))


def test_the_turns_of_a_clock_that_was_ahead_lock_nobody_out(
    store: SQLiteStore, clock: Clock
) -> None:
    ahead, limits = (Limits(turns_a_minute=1, tokens_a_day=1, clock=Clock()) for _ in range(2))
    ahead._clock.time += 30 * HOUR  # type: ignore[attr-defined]
    run(ahead.count_turn(store, "bob"))
    spend(ahead, 1)
    run(ahead.write_usage(store))
    run(limits.count_turn(store, "bob"))
    assert stored_usage(store) == {
        "day": "2026-11-30",
        "tokens": 0,
        "bytes": 0,
        "turns": [int(NOON * 1000)],
        "conversations": None,
    }


# Tokens a day -------------------------------------------------------------------------------------


def test_a_turn_is_refused_until_midnight_once_the_tokens_are_used_up(
    store: SQLiteStore, clock: Clock
) -> None:
    limits = Limits(tokens_a_day=1_000, clock=clock)
    run(limits.count_turn(store, "bob"))
    spend(limits, 999)
    run(limits.count_turn(store, "bob"))
    assert (stored_usage(store)["day"], stored_usage(store)["tokens"]) == ("2026-11-30", 999)
    spend(limits, 1)
    assert wait_of(limits, store, "daily_tokens_used") == 12 * HOUR
    run(limits.count_turn(store, "eve"))
    clock.time += 11 * HOUR
    assert wait_of(limits, store, "daily_tokens_used") == HOUR
    clock.time += HOUR
    run(limits.count_turn(store, "bob"))
    assert (stored_usage(store)["day"], stored_usage(store)["tokens"]) == ("2026-12-01", 0)


def test_an_administrator_who_deletes_the_entry_lifts_the_refusal_within_a_minute(
    store: SQLiteStore, clock: Clock
) -> None:
    limits = Limits(tokens_a_day=1_000, clock=clock)
    run(limits.count_turn(store, "bob"))
    spend(limits, 1_000)
    run(limits.write_usage(store))
    wait_of(limits, store, "daily_tokens_used")
    store.delete_owner("bob")
    clock.time += 61
    run(limits.count_turn(store, "bob"))


def test_the_tokens_that_one_process_has_written_limit_another(
    store: SQLiteStore, clock: Clock
) -> None:
    first, second = (Limits(tokens_a_day=1_000, clock=clock) for _ in range(2))
    spend(first, 600)
    spend(second, 600)
    run(second.count_turn(store, "bob"))
    run(first.write_usage(store))
    run(first.write_usage(store))  # nothing is left
    assert stored_usage(store)["tokens"] == 1_200
    wait_of(second, store, "daily_tokens_used")


def test_a_process_whose_clock_is_behind_at_midnight_does_not_reset_the_new_day(
    store: SQLiteStore, clock: Clock
) -> None:
    late = Clock()
    ahead, behind = (Limits(tokens_a_day=1_000, clock=each) for each in (clock, late))
    clock.time += 12 * HOUR
    late.time = clock.time - 5
    spend(ahead, 1_000)
    run(ahead.write_usage(store))
    assert wait_of(behind, store, "daily_tokens_used") == 24 * HOUR + 5


def test_tokens_are_kept_if_the_store_does_not_take_them(store: SQLiteStore, clock: Clock) -> None:
    class FailingStore:
        def entry(self, *arguments: object, **options: object) -> None:
            raise NotFound("bob")

        def put_entry(self, *arguments: object, **options: object) -> None:
            raise StoreUnavailable("It does not answer.")

    limits = Limits(tokens_a_day=1_000, clock=clock)
    spend(limits, 600)
    failing: Any = FailingStore()
    with pytest.raises(StoreUnavailable):
        run(limits.count_turn(failing, "bob"))
    run(limits.write_usage(failing))
    run(limits.count_turn(store, "bob"))
    assert stored_usage(store)["tokens"] == 600


# Bytes a day --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "script", "bytes"),
    [
        ("Olé", ["Hé", "!", Finished("end_turn", Usage(3, 5))], 8),
        ("Olé", ["Hé", "!", Finished("end_turn")], 8),
        ("Olé", [ModelUnavailable("It is down.")], 4),
        ("Olé", ["Hé", ModelUnavailable("It broke.")], 7),
        (None, ["Hé", Finished("end_turn", Usage(3, 5))], 0),
    ],
    ids=["whole", "without usage", "failed at once", "failed later", "not stored"],
)
def test_the_message_and_the_reply_are_counted_in_utf8_if_they_are_stored(
    store: SQLiteStore,
    clock: Clock,
    message: str | None,
    script: list[Piece | Finished | Exception],
    bytes: int,
) -> None:
    limits = Limits(bytes_a_day=1_000, clock=clock)
    model = limits.counted_model(ReplyingModel(*script), "bob", stored_message=message)
    with suppress(ModelUnavailable):
        list(model.stream_sync(QUESTION))
    run(limits.count_turn(store, "bob"))
    assert stored_usage(store)["bytes"] == bytes


def test_a_turn_is_refused_until_midnight_once_the_bytes_are_used_up(
    store: SQLiteStore, clock: Clock
) -> None:
    limits = Limits(bytes_a_day=1_000, clock=clock)
    model = limits.counted_model(ReplyingModel(DONE), "bob", stored_message="x" * 999)
    list(model.stream_sync(QUESTION))
    run(limits.count_turn(store, "bob"))
    model = limits.counted_model(ReplyingModel(DONE), "bob", stored_message="x")
    list(model.stream_sync(QUESTION))
    assert wait_of(limits, store, "daily_bytes_used") == 12 * HOUR
    run(limits.count_turn(store, "eve"))
    clock.time += 12 * HOUR
    run(limits.count_turn(store, "bob"))
    assert stored_usage(store)["bytes"] == 0


# Conversations ------------------------------------------------------------------------------------


def start_conversation(limits: Limits, store: Any, caller: str = "bob") -> str:
    """Count a turn that starts a conversation of the caller, and start it."""
    run(limits.count_turn(store, caller, starts_conversation=True))
    id: str = store.create(owner=caller).id
    return id


def refusal_of(limits: Limits, store: Any, caller: str = "bob") -> ApiError:
    with pytest.raises(ApiError) as refused:
        run(limits.count_turn(store, caller, starts_conversation=True))
    return refused.value


def test_a_user_with_too_many_conversations_starts_none_but_goes_on_with_the_others(
    store: SQLiteStore, clock: Clock
) -> None:
    limits = Limits(conversations=3, clock=clock)
    for _ in range(3):
        start_conversation(limits, store)
    before = store.entry(None, USAGE, owner="bob")
    for place in (store, None):  # the refusal is remembered
        refused = refusal_of(limits, place)
        assert (refused.status, refused.code) == (409, "too_many_conversations")
        assert refused.headers == {}
    assert store.entry(None, USAGE, owner="bob") == before
    run(limits.count_turn(store, "bob"))
    with limits.running_turn("bob"):
        pass
    start_conversation(limits, store, "eve")


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_deleted_conversation_makes_room_at_once_or_in_another_process_within_a_minute(
    store: SQLiteStore, clock: Clock, is_noted: bool
) -> None:
    limits = Limits(conversations=3, clock=clock)
    first, *_ = [start_conversation(limits, store) for _ in range(3)]
    refusal_of(limits, store)
    store.delete(first, owner="bob")
    if is_noted:
        limits.note_deletion("bob")
    else:
        refusal_of(limits, store)
        clock.time += 61
    start_conversation(limits, store)
    assert refusal_of(limits, store).code == "too_many_conversations"


def test_conversations_are_listed_only_if_there_may_be_too_many(
    store: SQLiteStore, clock: Clock
) -> None:
    class CountingStore:
        lists = 0
        entry, put_entry, create = store.entry, store.put_entry, store.create

        def list(self, owner: str, *, limit: int, cursor: str | None) -> object:
            CountingStore.lists += 1
            return store.list(owner, limit=min(limit, 2), cursor=cursor)

    for _ in range(3):
        store.create(owner="bob")
    limits, counting = Limits(conversations=5, clock=clock), CountingStore()
    for _ in range(2):
        start_conversation(limits, counting)
    assert CountingStore.lists == 2  # at first nobody knows how many there are
    assert stored_usage(store)["conversations"] == 5
    for _ in range(2):
        refusal_of(limits, counting)
    assert CountingStore.lists == 5


def test_an_address_may_start_as_many_conversations_in_a_day_whoever_owns_them(
    store: SQLiteStore, clock: Clock
) -> None:
    limits, address = Limits(conversations=2, clock=clock), caller_at("192.0.2.1")
    for user in ("bob", "eve"):
        run(limits.count_turn(store, address, starts_conversation=True))
        store.delete(store.create(owner=user).id)
    refused = refusal_of(limits, store, address)
    assert (refused.status, refused.code) == (429, "daily_conversations_used")
    assert refused.headers == {"Retry-After": str(12 * HOUR)}
    run(limits.count_turn(store, address))
    clock.time += 12 * HOUR
    run(limits.count_turn(store, address, starts_conversation=True))
    assert stored_usage(store, address)["conversations"] == 1


# Turns of one caller that start at the same moment ------------------------------------------------


class RivalStore:
    """A store in which another process counts a turn of the caller before each of ours."""

    def __init__(self, store: SQLiteStore, rival: Limits, races: int) -> None:
        self._store = store
        self._rival = rival
        self._races = races
        self.entry = store.entry

    def put_entry(self, *arguments: Any, **options: Any) -> object:
        if self._races:
            self._races -= 1
            run(self._rival.count_turn(self._store, "bob"))
        return self._store.put_entry(*arguments, **options)


def test_a_turn_that_lost_a_race_is_counted_with_the_tokens_after_the_winner(
    store: SQLiteStore, clock: Clock
) -> None:
    limits, rival = (Limits(turns_a_minute=9, tokens_a_day=9_000, clock=clock) for _ in range(2))
    spend(limits, 600)
    spend(rival, 700)
    rivals: Any = RivalStore(store, rival, races=2)
    run(limits.count_turn(rivals, "bob"))
    assert len(stored_usage(store)["turns"]) == 3
    assert stored_usage(store)["tokens"] == 1_300


def test_a_turn_that_loses_every_race_is_refused(
    store: SQLiteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatledger.http.limits.LONGEST_WAIT", 0.0)
    limits, rival = (Limits(turns_a_minute=99, tokens_a_day=9_000, clock=clock) for _ in range(2))
    spend(limits, 600)
    rivals: Any = RivalStore(store, rival, races=MAX_ATTEMPTS)
    assert wait_of(limits, rivals, "server_busy") == 1
    run(limits.count_turn(store, "bob"))
    assert stored_usage(store)["tokens"] == 600


# Counting tokens ----------------------------------------------------------------------------------


def counted(limits: Limits, store: SQLiteStore) -> Any:
    run(limits.write_usage(store))
    try:
        return stored_usage(store)["tokens"]
    except NotFound:
        return 0


FAILED, THROTTLED = ModelUnavailable("It broke."), ModelThrottled("Too many.")


@pytest.mark.parametrize(
    ("script", "least", "most"),
    [
        (["Hello", DONE], 8, 8),
        (["y" * 400, Finished("end_turn")], 1_100, 1_110),
        (["y" * 400, FAILED], 1_100, 1_110),
        ([THROTTLED], 0, 0),
    ],
    ids=["reported", "not reported", "failed after a piece", "failed before any piece"],
)
def test_a_reply_counts_as_reported_or_else_as_estimated(
    store: SQLiteStore,
    clock: Clock,
    script: list[Piece | Finished | Exception],
    least: int,
    most: int,
) -> None:
    limits = Limits(tokens_a_day=9_000, clock=clock)
    model = limits.counted_model(ReplyingModel(*script), "bob")
    assert model.id == "scripted"
    try:
        list(model.stream_sync(QUESTION))
    except (ModelUnavailable, ModelThrottled):
        assert script[-1] in (FAILED, THROTTLED)
    tokens = counted(limits, store)
    assert least <= tokens <= most


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_caller_who_leaves_before_the_end_pays_for_the_beginning(
    store: SQLiteStore, clock: Clock, pieces: int
) -> None:
    limits = Limits(tokens_a_day=9_000, clock=clock)
    model = limits.counted_model(ReplyingModel("y" * 400, "y" * 400, DONE), "bob")
    with closing(model.stream_sync(QUESTION, system_prompt="z" * 2_000)) as reply:
        for _ in range(pieces + 1):
            next(reply)
    tokens = counted(limits, store)
    assert 0 <= tokens - (1_600 + 100 * pieces) <= 10


@pytest.mark.anyio
async def test_an_async_caller_who_leaves_pays_too(store: SQLiteStore, clock: Clock) -> None:
    limits = Limits(tokens_a_day=9_000, clock=clock)
    model = limits.counted_model(ReplyingModel("y" * 400, DONE), "bob")
    reply = model.stream(QUESTION)
    assert await anext(reply) == "y" * 400
    await reply.aclose()
    tokens = counted(limits, store)
    assert 1_100 <= tokens <= 1_110


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# Callers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::2:3:4:5", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001:db8::1%eth0", "2001:db8::1", True),
        (None, "", True),
    ],
)
def test_a_caller_is_an_ipv4_address_or_an_ipv6_network(
    address: str | None, other: str, is_same: bool
) -> None:
    assert (caller_at(address) == caller_at(other)) is is_same
