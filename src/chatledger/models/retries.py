"""The attempts at one call to a model: how long each may take, and how many there are."""

import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from random import Random
from typing import Any, Protocol, TypeVar

from chatledger.backoff import backoff
from chatledger.errors import ModelError, ModelThrottled
from chatledger.models.protocol import Finished, Piece

PartT = TypeVar("PartT")
PartT_contra = TypeVar("PartT_contra", contravariant=True)

TIMEOUT = 60.0
"""The default longest time (s) for which the model may send nothing."""
CONNECT_TIMEOUT = 5.0
"""The default longest time (s) that connecting may take."""
PATIENCE = 20.0
"""The seconds during which a failed call is retried, if no part of its reply was delivered."""
MAX_ATTEMPTS = 6
"""The most attempts at one call, including the first."""
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Bounds (s) of the waits between attempts, unless the service asks for a longer one."""


class ReplyReader(Protocol[PartT_contra]):
    """Reads one reply from the parts in which a service sends it."""

    def read(self, part: PartT_contra, /) -> Piece:
        """Return the text in a part, which may be empty."""

    @property
    def is_complete(self) -> bool:
        """True if the reply is, even if the service has not ended the response."""

    def finished(self) -> Finished:
        """Return how the reply ended; raise ``ModelError`` if it is not complete."""


class Retries:
    """The attempts at one call: at most ``MAX_ATTEMPTS``, all begun within ``patience`` seconds.

    Attributes:
        wait: The seconds to wait before the next attempt.
        has_delivered: True once a piece of the reply was delivered.
        finished: How the reply ended; None until it has.
    """

    def __init__(
        self,
        patience: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._random = random or Random()  # noqa: S311  only jitter
        self._deadline = monotonic() + patience
        self._failures = 0
        self.wait = 0.0
        self.has_delivered = False
        self.finished: Finished | None = None

    @contextmanager
    def attempt(self, reader: ReplyReader[Any]) -> Iterator[None]:
        """Make one attempt within the block; raise its error if there is no next attempt."""
        try:
            yield
            self.finished = reader.finished()
        except ModelError as error:
            if reader.is_complete:
                self.finished = reader.finished()
            elif self.has_delivered:
                raise  # the next attempt would deliver the beginning again
            else:
                self.wait = self.next_wait(error)

    def next_wait(self, error: ModelError) -> float:
        """Return the seconds to wait before the next attempt; raise ``error`` if there is none.

        The wait is at least as long as the service asked for. If it would end after ``patience``,
        there is no next attempt.
        """
        wait = backoff(self._random, self._failures, first=FIRST_WAIT, longest=LONGEST_WAIT)
        self._failures += 1
        if isinstance(error, ModelThrottled) and error.retry_after is not None:
            wait = max(wait, error.retry_after)
        is_too_late = self._monotonic() + wait > self._deadline
        if is_too_late or self._failures == MAX_ATTEMPTS or not error.retryable:
            raise error
        return wait


async def stream_reply(
    request: Callable[[], AsyncGenerator[PartT, None]],
    new_reader: Callable[[], ReplyReader[PartT]],
    *,
    patience: float,
) -> AsyncGenerator[Piece | Finished, None]:
    """Yield the pieces of a reply and how it ended; repeat a call that failed before any piece.

    Args:
        request: Sends the request; the generator yields the parts of the response.
        new_reader: Returns a reader, for each attempt a new one.
        patience: The seconds during which a call that failed temporarily is repeated.
    """
    # Imported here: programs without an event loop do not need asyncio.
    from asyncio import sleep

    retries = Retries(patience)
    while retries.finished is None:
        await sleep(retries.wait)
        reader = new_reader()
        with retries.attempt(reader):
            async with aclosing(request()) as parts:
                async for part in parts:
                    if piece := reader.read(part):
                        retries.has_delivered = True
                        yield piece
    yield retries.finished


def stream_reply_sync(
    request: Callable[[], Generator[PartT, None, None]],
    new_reader: Callable[[], ReplyReader[PartT]],
    *,
    patience: float,
) -> Generator[Piece | Finished, None, None]:
    """Do what ``stream_reply`` does, without an event loop."""
    retries = Retries(patience)
    while retries.finished is None:
        time.sleep(retries.wait)
        reader = new_reader()
        with retries.attempt(reader), closing(request()) as parts:
            for part in parts:
                if piece := reader.read(part):
                    retries.has_delivered = True
                    yield piece
    yield retries.finished
