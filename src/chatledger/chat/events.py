"""The events that a turn yields to its caller."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from chatledger.errors import ModelUnavailable
from chatledger.models.protocol import Finished, Piece

ENDED_WITHOUT_FINISHED = "The model ended its reply without Finished; the reply may be incomplete."


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of a turn; if the turn is stored, the user's message is stored by now.

    ``conversation_id`` is None only for a turn that is not stored and continues no conversation.
    """

    conversation_id: str | None


Event: TypeAlias = Started | Piece | Finished


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply; ``finished`` says how it ended.

    ``conversation_id`` is None only for a turn that is not stored and continues no conversation.
    """

    conversation_id: str | None
    text: str
    finished: Finished


class _ReplyCollector:
    """Assembles a reply from the events of a turn."""

    def __init__(self) -> None:
        self._conversation_id: str | None = None
        self._pieces: list[str] = []

    def add(self, event: Event) -> Reply | None:
        """Add the event; return the reply once it is complete."""
        match event:
            case Started():
                self._conversation_id = event.conversation_id
            case str():
                self._pieces.append(event)
            case Finished():
                return Reply(self._conversation_id, "".join(self._pieces), event)
        return None


async def collect(events: AsyncIterator[Event]) -> Reply:
    """Return the complete reply of a turn, once the turn has ended.

    Args:
        events: The events of the turn, from a method of ``Chat``.

    Raises:
        ModelUnavailable: The events ended without ``Finished``. Errors of the turn pass through.
    """
    collector, reply = _ReplyCollector(), None
    async for event in events:
        reply = collector.add(event)
    if reply is None:
        raise ModelUnavailable(ENDED_WITHOUT_FINISHED)
    return reply


def collect_sync(events: Iterator[Event]) -> Reply:
    """Return the complete reply of a turn of a ``SyncChat``, as ``collect`` does for a ``Chat``."""
    collector, reply = _ReplyCollector(), None
    for event in events:
        reply = collector.add(event)
    if reply is None:
        raise ModelUnavailable(ENDED_WITHOUT_FINISHED)
    return reply
