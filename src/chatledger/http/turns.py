"""The turns that this process runs; they go on when the clients that asked for them leave."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from time import perf_counter

from chatledger.chat import Event, Reply, Started
from chatledger.http.bodies import INTERRUPTED
from chatledger.http.errors import ApiError, handle_error, server_ending
from chatledger.http.requests import RequestRecord, TurnRecord
from chatledger.models.protocol import Finished

EVENT_CHARACTERS = 65_536
"""The number of characters after which the next piece of a reply is left to another event.

Otherwise a client that does not read would keep a second copy of a long reply in memory.
"""


class RunningTurn:
    """A turn that this process runs, and its reply so far, which any number of readers can follow.

    Attributes:
        started: The first event of the turn.
        finished: How the reply ended; None until then, and if it ended with an error.
        error: The error with which the turn ended, as clients get it.
    """

    def __init__(
        self,
        started: Started,
        events: AsyncGenerator[Event, None],
        stop_turn: Callable[[Started], bool],
    ) -> None:
        self.started = started
        self.finished: Finished | None = None
        self.error: ApiError | None = None
        self._stop_turn = stop_turn
        self._pieces: list[str] = []
        self._first_piece_at: float | None = None
        self._readers: set[Callable[[], None]] = set()
        self._task = asyncio.create_task(self._read(events))
        self._task.add_done_callback(lambda _: self._wake_readers())

    @property
    def stored_in(self) -> str | None:
        """The conversation in which the user's message is stored, or None if it is not."""
        return None if self.started.reply_id is None else self.started.conversation_id

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    @property
    def text(self) -> str:
        """The reply so far."""
        return "".join(self._pieces)

    def text_from(self, n: int) -> tuple[str, int]:
        """Return the text from the ``n``-th piece on, and the number of the piece after it.

        A text ends with the piece that completes ``EVENT_CHARACTERS``, even if more is there.
        """
        pieces = self._pieces
        if n + 1 == len(pieces):  # the usual case
            return pieces[n], n + 1
        end, length = n, 0
        while end < len(pieces) and length < EVENT_CHARACTERS:
            length += len(pieces[end])
            end += 1
        return "".join(pieces[n:end]), end

    def reply(self) -> Reply:
        """Return the complete reply of a turn that has ended; raise the turn's error."""
        if self.finished is None:
            raise self.error or server_ending()
        return Reply(self.started.conversation_id, self.text, self.finished)

    def record(self, request: RequestRecord) -> TurnRecord:
        """Return the record of a turn that has ended, and that ``request`` had asked for."""
        turn = TurnRecord(seconds=perf_counter() - request.started_at)
        if self._first_piece_at is not None:
            turn.first_piece_seconds = self._first_piece_at - request.started_at
        if self.error is not None:
            turn.outcome = "failed"
        elif self.finished is not None:
            reason = self.finished.stop_reason
            turn.outcome = reason if reason in INTERRUPTED else "completed"
            turn.usage = self.finished.usage
        return turn

    def notify(self, reader: Callable[[], None]) -> None:
        """Call ``reader`` after each piece and at the end, until ``ignore`` is called with it."""
        self._readers.add(reader)

    def ignore(self, reader: Callable[[], None]) -> None:
        self._readers.discard(reader)

    def call_at_end(self, function: Callable[[], None]) -> None:
        """Call ``function`` once the turn has ended."""
        self._task.add_done_callback(lambda _: function())

    def stop(self) -> None:
        """End the turn; its readers hear of the end once the reply so far is stored."""
        if self.has_ended or self._stop_turn(self.started):
            return
        if self.finished is None:  # nothing of the turn is stored
            self.finished = Finished("stopped")
            # Not at once: a task that is cancelled before it begins would leave the turn open.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def cancel(self) -> asyncio.Task[None]:
        """End the turn because the server ends, and return its task; its readers get an error."""
        self._task.cancel()
        return self._task

    async def _read(self, events: AsyncGenerator[Event, None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, str):
                        if not self._pieces:
                            self._first_piece_at = perf_counter()
                        self._pieces.append(event)
                        self._wake_readers()
                    elif isinstance(event, Finished):
                        self.finished = event
        except Exception as error:
            self.error = handle_error(error, "a turn")

    def _wake_readers(self) -> None:
        for wake in self._readers:
            wake()


class RunningTurns:
    """All turns that this process runs.

    Args:
        stop_turn: ``Chat.stop_here`` of the chat that runs the turns.
        listeners: Called with the record of each turn that has ended.
    """

    def __init__(
        self,
        stop_turn: Callable[[Started], bool],
        listeners: Sequence[Callable[[TurnRecord], None]] = (),
    ) -> None:
        self._stop_turn = stop_turn
        self._listeners = listeners
        self._turns: set[RunningTurn] = set()
        self._by_conversation: dict[str, RunningTurn] = {}

    async def start(
        self, events: AsyncGenerator[Event, None], request: RequestRecord, while_running: ExitStack
    ) -> RunningTurn:
        """Run the turn of ``events`` to its end, and return it once it has started.

        ``while_running`` is closed when the turn has ended. Raises the error of a turn that does
        not start; such a turn has no record.
        """
        with while_running:
            started = await anext(events)
            assert isinstance(started, Started)
            turn = RunningTurn(started, events, self._stop_turn)
            context = while_running.pop_all()
        self._turns.add(turn)
        turn.call_at_end(context.close)
        turn.call_at_end(lambda: self._forget(turn))
        turn.call_at_end(lambda: self._record(turn.record(request)))
        if turn.stored_in is not None:
            other = self._by_conversation.get(turn.stored_in)
            # A turn that only repeats a stored reply does not hide the one that is running.
            if other is None or (other.started.seq or 0) <= (started.seq or 0):
                self._by_conversation[turn.stored_in] = turn
        return turn

    def find(self, conversation_id: str, reply_id: str) -> RunningTurn | None:
        """Return the turn that is writing this reply, if this process runs it."""
        turn = self._by_conversation.get(conversation_id)
        return turn if turn is not None and turn.started.reply_id == reply_id else None

    @property
    def are_running(self) -> bool:
        """True if any turn is running."""
        return bool(self._turns)

    async def close(self) -> None:
        """End all turns because the server ends."""
        # A task that is cancelled before it begins would leave its turn open.
        await asyncio.sleep(0)
        if self._turns:
            await asyncio.wait([turn.cancel() for turn in self._turns])

    def _record(self, record: TurnRecord) -> None:
        for listener in self._listeners:
            listener(record)

    def _forget(self, turn: RunningTurn) -> None:
        self._turns.discard(turn)
        if turn.stored_in and self._by_conversation.get(turn.stored_in) is turn:
            del self._by_conversation[turn.stored_in]
