"""What a turn tells its caller."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from chatledger.errors import ModelUnavailable
from chatledger.models.protocol import Finished, Piece

UNFINISHED = "The model ended without saying that it had finished."


@dataclass(frozen=True, slots=True)
class Started:
    """The user's message is stored, in this conversation; None where nothing is."""

    conversation_id: str | None


Event: TypeAlias = Started | Piece | Finished


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, whole."""

    conversation_id: str | None
    text: str
    finished: Finished


class _Gathered:
    """The reply as far as it has been told."""

    def __init__(self) -> None:
        self._conversation_id: str | None = None
        self._said: list[str] = []

    def add(self, event: Event) -> Reply | None:
        """The reply, once it is complete."""
        match event:
            case Started():
                self._conversation_id = event.conversation_id
            case str():
                self._said.append(event)
            case Finished():
                return Reply(self._conversation_id, "".join(self._said), event)
        return None


async def whole(events: AsyncIterator[Event]) -> Reply:
    """The reply that a turn streams, once the turn has ended."""
    gathered, reply = _Gathered(), None
    async for event in events:
        reply = gathered.add(event)
    if reply is None:
        raise ModelUnavailable(UNFINISHED)
    return reply


def whole_sync(events: Iterator[Event]) -> Reply:
    """As ``whole``, of a ``SyncChat``."""
    gathered, reply = _Gathered(), None
    for event in events:
        reply = gathered.add(event)
    if reply is None:
        raise ModelUnavailable(UNFINISHED)
    return reply
