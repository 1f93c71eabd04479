"""Limits of what one caller may use: turns, tokens, stored bytes and conversations.

The turns of the last minute, the tokens and bytes of the day and the number of conversations are in
the store, in an entry of the caller, so that they hold for all processes. One write at the start of
each turn counts that turn, and the tokens and bytes of the caller's earlier turns in this process.
The turns that are running are counted in memory: a crash would leave them in the store for ever.
"""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from ipaddress import IPv6Address, IPv6Network, ip_address
from random import Random
from threading import Lock
from typing import NamedTuple

from msgspec import Struct, convert, to_builtins
from msgspec.structs import replace

from chatledger.backoff import backoff
from chatledger.conversations import MAX_LIMIT, RESERVED_PREFIX, Listing
from chatledger.errors import ChatledgerError, Conflict, ModelError, NotFound
from chatledger.http.api import MAX_BODY_BYTES
from chatledger.http.errors import ApiError
from chatledger.messages import Message
from chatledger.models.protocol import Finished, OpenedModel, Piece
from chatledger.sansio import Steps
from chatledger.settings import Settings
from chatledger.stores.contract import AnyStore, AsyncStore
from chatledger.windows import approximate_text_tokens, approximate_tokens

USAGE = f"{RESERVED_PREFIX}usage"
"""The name of the entry in which a caller's usage is stored."""
USAGE_LIFETIME = timedelta(days=2)
"""The time after a caller's last turn until its entry expires."""
MINUTE_MS = 60_000
MAX_ATTEMPTS = 30
"""The number of attempts to count a turn before it gives up to other turns of its caller."""
MAX_LARGE_IMPORTS = 2
"""The most imports with a large body that a process reads at once; of a caller, one."""
FIRST_WAIT, LONGEST_WAIT = 0.005, 0.25
CLOCK_DIFFERENCE = 10
"""The seconds by which the clocks of two processes that share a store may differ."""
RECHECK_SECONDS = 60.0
"""The longest time for which a refusal is repeated without a look into the store."""
MAX_REMEMBERED = 10_000
"""The number of refused callers that are remembered."""

_ADDRESSES = f"{RESERVED_PREFIX}address:"
"""The beginning of the callers that are network addresses."""

_REFUSALS = {
    "turns_at_once": (
        429,
        "too_many_turns",
        "Too many of your turns are running at once; wait until one of them has ended.",
    ),
    "all_turns_at_once": (429, "server_busy", "The server is busy; try again in a moment."),
    "imports_at_once": (
        429,
        "server_busy",
        "The server is busy with other large imports; try again in a moment.",
    ),
    "starts_at_once": (
        429,
        "server_busy",
        "Too many of your turns are starting at the same moment; try again in a moment.",
    ),
    "turns_a_minute": (
        429,
        "too_many_turns",
        "You have started too many turns within a minute; wait before you start the next one.",
    ),
    "tokens_a_day": (
        429,
        "daily_tokens_used",
        "You have used up your tokens for today; try again after midnight UTC.",
    ),
    "bytes_a_day": (
        429,
        "daily_bytes_used",
        "You have stored as much as you may today; try again after midnight UTC.",
    ),
    "conversations": (
        409,
        "too_many_conversations",
        "You have too many conversations; delete some before you start a new one.",
    ),
    "conversations_a_day": (
        429,
        "daily_conversations_used",
        "You have started too many conversations today; try again after midnight UTC.",
    ),
}
"""The status, the code and the sentence of the error, for each limit."""


class Usage(Struct, frozen=True, kw_only=True):
    """The usage of a caller, as its entry stores it."""

    day: str = ""
    """The day in UTC, such as 2026-11-30, to which ``tokens`` and ``bytes`` belong."""
    tokens: int = 0
    bytes: int = 0
    turns: list[int] = []
    """The times at which the turns of the last minute started, in ms since 1970."""
    conversations: int | None = None
    """The conversations of a user when they were last counted, and all that were started since.

    Of an address, those that it has started on ``day``. None if they were not counted yet.
    """


class _Spent(NamedTuple):
    """The tokens and bytes that turns have used up."""

    tokens: int
    bytes: int

    def plus(self, tokens: int, bytes: int) -> "_Spent":
        return _Spent(self.tokens + tokens, self.bytes + bytes)


_NOTHING = _Spent(0, 0)


class _Refusal(Struct, frozen=True):
    limit: str
    until: float
    """The time of the caller's next turn that the limit allows, in seconds since 1970."""
    recheck_at: float


class Limits:
    """The limits of a server, each of which may be None for "no limit", and their counts.

    A caller is the signed-in user or, without sign-in, the network address. Threads may share the
    limits.

    Args:
        turns_at_once: The most turns of a caller that this process runs at once.
        all_turns_at_once: The most turns of all callers that this process runs at once.
        turns_a_minute: The most turns of a caller in any minute, in all processes.
        tokens_a_day: The tokens that a caller may spend in a day (UTC), in all processes. The last
            turns may exceed it, because a turn's tokens are known when it ends.
        bytes_a_day: The bytes in UTF-8 of the messages and replies that a caller's turns may store
            in a day, in the same way.
        conversations: The most conversations that a signed-in user may have. An address may start
            as many in a day: the conversations belong to the users whom its requests name.
        clock: Returns the time in seconds since 1970; processes compare their times.
    """

    def __init__(
        self,
        *,
        turns_at_once: int | None = None,
        all_turns_at_once: int | None = None,
        turns_a_minute: int | None = None,
        tokens_a_day: int | None = None,
        bytes_a_day: int | None = None,
        conversations: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._turns_at_once = turns_at_once
        self._all_turns_at_once = all_turns_at_once
        self._turns_a_minute = turns_a_minute
        self._tokens_a_day = tokens_a_day
        self._bytes_a_day = bytes_a_day
        self._conversations = conversations
        self._clock = clock
        self._random = Random()  # noqa: S311
        self._lock = Lock()
        self._running: Counter[str] = Counter()
        self._importing: set[str] = set()
        """The callers with a large import."""
        self._refused: dict[str, _Refusal] = {}
        """The callers whose turns are all refused."""
        self._refused_new: dict[str, _Refusal] = {}
        """The callers who are refused new conversations."""
        self._day = ""
        self._unwritten: dict[str, _Spent] = {}
        """The amounts used up on ``_day`` that are not in the store yet, by caller."""

    @contextmanager
    def running_turn(self, caller: str) -> Iterator[None]:
        """Count a turn of the caller as running while the block runs.

        Raises:
            ApiError: Too many turns are running, or the caller was refused and must still wait.
        """
        with self._lock:
            self._check_running(caller)
            self._running[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[caller] -= 1
                if not self._running[caller]:
                    del self._running[caller]

    @contextmanager
    def large_import(self, caller: str) -> Iterator[None]:
        """Count an import of the caller, with a large body, as running while the block runs.

        Raises:
            ApiError: The caller has another one, or the process has too many of them.
        """
        with self._lock:
            if caller in self._importing or len(self._importing) >= MAX_LARGE_IMPORTS:
                raise self._refusal("imports_at_once", 1)
            self._importing.add(caller)
        try:
            yield
        finally:
            with self._lock:
                self._importing.remove(caller)

    def largest_import(self, most: int) -> int:
        """Return the bytes of the longest body of an import that is read, at most ``most``.

        A longer one would hardly fit into the bytes of a day, even if it escapes all characters.
        """
        if self._bytes_a_day is None:
            return most
        return min(most, max(MAX_BODY_BYTES, 4 * self._bytes_a_day))

    @property
    def limits_conversations(self) -> bool:
        return self._conversations is not None

    def count_turn(
        self,
        store: AnyStore,
        caller: str,
        *,
        starts_conversation: bool = False,
        stored_bytes: int = 0,
    ) -> Steps[None]:
        """Count a turn of the caller in the store, which takes one read and one write.

        If the turn starts a conversation, and the caller may have too many, it also takes the reads
        that list the caller's conversations.

        Args:
            store: The store of the counts.
            caller: The caller.
            starts_conversation: True if the turn starts a conversation.
            stored_bytes: The bytes that it stores, if they are known when it starts. It is refused
                if they are more than the caller may still store today.

        Raises:
            ApiError: The caller has used up a limit; nothing is written.
        """
        if self._bytes_a_day is not None and stored_bytes > self._bytes_a_day:
            raise ApiError(
                413,
                "too_large",
                f"The messages have {stored_bytes:,} bytes, and you may store "
                f"{self._bytes_a_day:,} in a day; send fewer at once.",
                limit="bytes_a_day",
            )
        self._check_refused(self._refused, caller)
        if starts_conversation:
            self._check_refused(self._refused_new, caller)
        stored_limits = (
            self._turns_a_minute,
            self._tokens_a_day,
            self._bytes_a_day,
            self._conversations,
        )
        if any(limit is not None for limit in stored_limits):
            yield from self._update_usage(
                store,
                caller,
                is_turn=True,
                starts_conversation=starts_conversation,
                stored_bytes=stored_bytes,
            )

    def note_deletion(self, caller: str) -> None:
        """Let the caller start a conversation again at once, after deleting one."""
        with self._lock:
            self._refused_new.pop(caller, None)

    def write_usage(self, store: AnyStore) -> Steps[None]:
        """Write the tokens and bytes that are only in memory, if the store is available."""
        for caller in list(self._unwritten):
            with suppress(ChatledgerError):
                yield from self._update_usage(store, caller, is_turn=False)

    def counted_model(
        self, model: OpenedModel, caller: str, *, stored_message: str | None = None
    ) -> OpenedModel:
        """Return the model with its tokens, and the bytes of the turn, counted as the caller's.

        Args:
            model: The model.
            caller: The caller.
            stored_message: The message that is stored with the reply; None if neither is stored.
        """
        if self._tokens_a_day is None and self._bytes_a_day is None:
            return model
        return _CountedModel(model, partial(self._add_spent, caller), stored_message)

    def _check_running(self, caller: str) -> None:
        at_once, all_at_once = self._turns_at_once, self._all_turns_at_once
        if at_once is not None and self._running[caller] >= at_once:
            raise self._refusal("turns_at_once", 1)
        self._check_refused(self._refused, caller)
        if all_at_once is not None and self._running.total() >= all_at_once:
            raise self._refusal("all_turns_at_once", 1)

    def _check_refused(self, refusals: dict[str, _Refusal], caller: str) -> None:
        if (refused := refusals.get(caller)) is not None:
            now = self._clock()
            if now < refused.recheck_at:
                raise self._refusal(refused.limit, refused.until - now)
            refusals.pop(caller, None)

    def _update_usage(
        self,
        store: AnyStore,
        caller: str,
        *,
        is_turn: bool,
        starts_conversation: bool = False,
        stored_bytes: int = 0,
    ) -> Steps[None]:
        pause = _async_sleep if isinstance(store, AsyncStore) else time.sleep
        for attempt in range(MAX_ATTEMPTS):
            try:
                entry = yield partial(store.entry, None, USAGE, owner=caller)
                usage, revision = convert(entry.value, Usage), entry.revision
            except NotFound:
                usage, revision = Usage(), 0
            spent, is_written = self._take_spent(caller), False
            try:
                usage = self._updated(usage, caller, spent, is_turn=is_turn)
                usage = self._with_stored_bytes(usage, stored_bytes)
                if starts_conversation and self._conversations is not None:
                    usage = yield from self._with_conversation(
                        usage, store, caller, most=self._conversations
                    )
                yield partial(
                    store.put_entry,
                    None,
                    USAGE,
                    to_builtins(usage),
                    revision=revision,
                    expires_in=USAGE_LIFETIME,
                    owner=caller,
                )
                is_written = True
                return
            except Conflict:  # another turn of the caller was first
                waits = {"first": FIRST_WAIT, "longest": LONGEST_WAIT}
                yield partial(pause, backoff(self._random, attempt, **waits))
            finally:
                if not is_written:
                    self._add_spent(caller, *spent)
        if is_turn:
            raise self._refusal("starts_at_once", 1)

    def _updated(self, usage: Usage, caller: str, spent: _Spent, *, is_turn: bool) -> Usage:
        """Return the usage with ``spent``, and with a turn that starts now if it is one.

        Raises ``ApiError`` if the limits do not allow the turn.
        """
        now = self._clock()
        now_ms = int(now * 1000)
        day = _day_of(now)
        if usage.day == _day_of(now + CLOCK_DIFFERENCE):  # another clock is ahead at midnight
            day = usage.day
        conversations = None if self._conversations is None else usage.conversations
        if usage.day == day:
            spent = spent.plus(usage.tokens, usage.bytes)
        elif _is_address(caller):
            conversations = None
        latest = now_ms + CLOCK_DIFFERENCE * 1000  # later ones are of a clock that was wrong
        turns = [time for time in usage.turns if now_ms - MINUTE_MS < time <= latest]
        if is_turn:
            if self._tokens_a_day is not None and spent.tokens >= self._tokens_a_day:
                raise self._refused_until(self._refused, "tokens_a_day", caller, _end_of(day))
            if self._bytes_a_day is not None and spent.bytes >= self._bytes_a_day:
                raise self._refused_until(self._refused, "bytes_a_day", caller, _end_of(day))
            if self._turns_a_minute is not None:
                if len(turns) >= self._turns_a_minute:
                    free_at = (turns[-self._turns_a_minute] + MINUTE_MS) / 1000
                    raise self._refused_until(self._refused, "turns_a_minute", caller, free_at)
                turns.append(now_ms)
        return Usage(day=day, **spent._asdict(), turns=turns, conversations=conversations)

    def _with_stored_bytes(self, usage: Usage, stored: int) -> Usage:
        """Return the usage with these bytes; raise ``ApiError`` if that is over the limit.

        Unlike other refusals, this one is not remembered: the caller may still store fewer bytes.
        """
        most = self._bytes_a_day
        if stored and most is not None and usage.bytes + stored > most:
            raise ApiError(
                429,
                "daily_bytes_used",
                f"The messages have {stored:,} bytes, more than you may still store today; send "
                "fewer, or try again after midnight UTC.",
                retry_after=_end_of(usage.day) - self._clock(),
                limit="bytes_a_day",
            )
        return replace(usage, bytes=usage.bytes + stored)

    def _with_conversation(
        self, usage: Usage, store: AnyStore, caller: str, *, most: int
    ) -> Steps[Usage]:
        """Return the usage with one more conversation; raise ``ApiError`` beyond ``most``."""
        count = usage.conversations
        if _is_address(caller):
            count = count or 0
            if count >= most:
                until = _end_of(usage.day)
                raise self._refused_until(self._refused_new, "conversations_a_day", caller, until)
        elif count is None or count >= most:
            # Those that were deleted or have expired are noticed only here.
            count = yield from _count_conversations(store, caller, most=most)
            if count >= most:
                until = self._clock() + RECHECK_SECONDS
                raise self._refused_until(self._refused_new, "conversations", caller, until)
        return replace(usage, conversations=count + 1)

    def _refused_until(
        self, refusals: dict[str, _Refusal], limit: str, caller: str, until: float
    ) -> ApiError:
        """Return the error, and remember it so that repeating the request costs no read."""
        now = self._clock()
        with self._lock:
            if len(refusals) >= MAX_REMEMBERED:
                refusals.clear()
            recheck_at = min(until, now + RECHECK_SECONDS)
            refusals[caller] = _Refusal(limit, until, recheck_at)
        return self._refusal(limit, until - now)

    def _refusal(self, limit: str, seconds: float) -> ApiError:
        status, code, sentence = _REFUSALS[limit]
        # Waiting does not help against a 409.
        retry_after = seconds if status == 429 else None
        return ApiError(status, code, sentence, retry_after=retry_after, limit=limit)

    def _add_spent(self, caller: str, tokens: int, bytes: int) -> None:
        with self._lock:
            today = _day_of(self._clock())
            if self._day != today:  # what was spent on earlier days limits nothing any more
                self._day, self._unwritten = today, {}
            if tokens or bytes:
                earlier = self._unwritten.get(caller, _NOTHING)
                self._unwritten[caller] = earlier.plus(tokens, bytes)

    def _take_spent(self, caller: str) -> _Spent:
        """Return and forget the caller's tokens and bytes of today that are not in the store."""
        with self._lock:
            spent = self._unwritten.pop(caller, _NOTHING)
            return spent if self._day == _day_of(self._clock()) else _NOTHING


def open_limits(settings: Settings) -> Limits:
    """Return the limits that the settings set."""
    return Limits(
        turns_at_once=settings.turns_at_once,
        all_turns_at_once=settings.all_turns_at_once,
        turns_a_minute=settings.turns_a_minute,
        tokens_a_day=settings.tokens_a_day,
        bytes_a_day=settings.bytes_a_day,
        conversations=settings.conversations,
    )


@lru_cache(maxsize=1_000)
def caller_at(address: str | None) -> str:
    """Return the caller at a network address; an IPv6 network of 64 bits is one caller."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return f"{_ADDRESSES}unknown"
    if isinstance(ip, IPv6Address):
        ip_or_network = ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False)
        return f"{_ADDRESSES}{ip_or_network}"
    return f"{_ADDRESSES}{ip}"


def _is_address(caller: str) -> bool:
    return caller.startswith(_ADDRESSES)


def _count_conversations(store: AnyStore, owner: str, *, most: int) -> Steps[int]:
    """Return the number of the owner's conversations, or ``most`` if there are more."""
    count, cursor = 0, None
    while True:
        limit = min(most - count, MAX_LIMIT)
        listing: Listing = yield partial(store.list, owner, limit=limit, cursor=cursor)
        count, cursor = count + len(listing.conversations), listing.cursor
        if cursor is None or count >= most:
            return count


async def _async_sleep(seconds: float) -> None:
    # Imported on first use: programs without an event loop need not load asyncio.
    from asyncio import sleep

    await sleep(seconds)


def _day_of(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).date().isoformat()


def _end_of(day: str) -> float:
    """Return when the day ends, in seconds since 1970."""
    return (datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)).timestamp()


# Counting the tokens and bytes of a turn ----------------------------------------------------------


class _CountedModel:
    """A model that passes its tokens, and the bytes of the turn, to ``add_spent``.

    So it does if the reply is cut off.
    """

    def __init__(
        self, model: OpenedModel, add_spent: Callable[[int, int], None], stored_message: str | None
    ) -> None:
        self._model = model
        self._add_spent = add_spent
        self._stored_message = stored_message

    @property
    def id(self) -> str:
        return self._model.id

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        with _CountedCall(messages, system_prompt, self._add_spent, self._stored_message) as call:
            reply = self._model.stream(messages, system_prompt=system_prompt)
            async with aclosing(reply) as outputs:
                async for output in outputs:
                    call.read(output)
                    yield output

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        with _CountedCall(messages, system_prompt, self._add_spent, self._stored_message) as call:
            reply = self._model.stream_sync(messages, system_prompt=system_prompt)
            with closing(reply) as outputs:
                for output in outputs:
                    call.read(output)
                    yield output

    async def close(self) -> None:
        await self._model.close()


class _CountedCall:
    """A call to a model, whose tokens are counted once: as reported, or else as estimated."""

    def __init__(
        self,
        messages: Sequence[Message],
        system_prompt: str | None,
        add_spent: Callable[[int, int], None],
        stored_message: str | None,
    ) -> None:
        self._messages = messages
        self._system_prompt = system_prompt or ""
        self._add_spent = add_spent
        self._stored_message = stored_message
        self._pieces: list[str] = []
        self._is_counted = False

    def __enter__(self) -> "_CountedCall":
        return self

    def read(self, output: Piece | Finished) -> None:
        if isinstance(output, str):
            self._pieces.append(output)
        elif isinstance(output, Finished):
            tokens = None
            if output.usage is not None:
                tokens = output.usage.input_tokens + output.usage.output_tokens
            self._count(tokens)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not self._is_counted:
            # A model that fails before its first piece has spent no tokens.
            has_spent_none = isinstance(error, ModelError) and not self._pieces
            self._count(0 if has_spent_none else None)

    def _count(self, tokens: int | None) -> None:
        self._is_counted = True
        reply = "".join(self._pieces)
        if tokens is None:
            tokens = approximate_text_tokens(self._system_prompt + reply)
            tokens += sum(map(approximate_tokens, self._messages))
        stored = 0
        if self._stored_message is not None:
            stored = len((self._stored_message + reply).encode(errors="replace"))
        self._add_spent(tokens, stored)
