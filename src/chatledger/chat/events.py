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


async def collect(events: AsyncIterator[Event]) -> Reply:
    """Return the complete reply of a turn, once the turn has ended.

    Args:
        events: The events of the turn, from a method of ``Chat``.

    Raises:
        ModelUnavailable: The events ended without ``Finished``. Errors of the turn pass through.
    """
    return _reply([event async for event in events])


def collect_sync(events: Iterator[Event]) -> Reply:
    """Return the complete reply of a turn of a ``SyncChat``, as ``collect`` does for a ``Chat``."""
    return _reply(list(events))


def _reply(events: list[Event]) -> Reply:
    match events:
        case [Started(conversation_id), *pieces, Finished() as finished]:
            return Reply(conversation_id, "".join(map(str, pieces)), finished)
    raise ModelUnavailable(ENDED_WITHOUT_FINISHED)
