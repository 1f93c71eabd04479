"""Hearing a reply to its end, and in time."""

from collections.abc import Callable
from typing import TypeAlias

from chatledger.chat.effects import STOPPED, Ask, Hush, Listen, Turn
from chatledger.chat.events import Started
from chatledger.chat.options import Asked, Terms
from chatledger.chat.turn_setup import AnyStore, Steps, seen
from chatledger.errors import ModelTimeout
from chatledger.models.protocol import Finished

RENEWALS = 3
"""How often a turn says within its lease that it still runs, so that one may fail."""

Renew: TypeAlias = Callable[[], Steps[bool]]
"""Says that the turn still runs; False where it was stopped meanwhile."""


class Timing:
    """When a turn must say that it still runs, and when its time is out."""

    def __init__(self, terms: Terms) -> None:
        self._timer = terms.timer
        self._every = terms.lease.total_seconds() / RENEWALS
        limit = terms.time_limit
        self._renewal = self._timer() + self._every
        self._end = None if limit is None else self._timer() + limit.total_seconds()

    @property
    def is_out(self) -> bool:
        return self._end is not None and self._timer() >= self._end

    @property
    def is_to_renew(self) -> bool:
        return self._timer() >= self._renewal

    @property
    def seconds(self) -> float:
        """How long to listen until one of the two."""
        next = self._renewal if self._end is None else min(self._renewal, self._end)
        return max(next - self._timer(), 0.0)

    def renewed(self) -> None:
        self._renewal = self._timer() + self._every


def listen(said: list[str], timing: Timing, renew: Renew) -> Steps[Finished]:
    """How the reply ended; what it says goes to the caller, and into ``said``."""
    while True:
        if timing.is_out:
            if said:
                return Finished("timed_out")
            raise ModelTimeout(
                "The model said nothing within the time of a turn; try again, or allow more time."
            )
        if timing.is_to_renew:
            if not (yield from renew()):
                return Finished("stopped")
            timing.renewed()
        heard = yield Listen(timing.seconds)
        if heard is STOPPED:
            return Finished("stopped")
        if isinstance(heard, Finished):
            return heard
        if heard:
            said.append(heard)
            yield heard


def unkept(store: AnyStore, terms: Terms, asked: Asked) -> Turn:
    """A turn of which nothing is kept, in view of the conversation if one is named."""
    timing = Timing(terms)
    tail = yield from seen(store, terms, asked)
    earlier = tail.messages if tail else []
    window = terms.seen_by_model(earlier, asked.messages)
    yield Ask(window, terms.prompt(asked.system_prompt))
    yield Started(tail.conversation.id if tail else None)
    finished = yield from listen([], timing, _nothing_held)
    yield Hush()
    yield finished


def _nothing_held() -> Steps[bool]:
    return True
    yield  # a generator that asks for nothing
