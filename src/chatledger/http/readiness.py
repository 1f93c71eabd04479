"""Whether the server can do its work: what ``/health`` and ``/ready`` answer."""

import asyncio
import logging
from time import monotonic

from chatledger.errors import AccessRefused, ChatledgerError, StoreMismatch, StoreUnavailable
from chatledger.http.errors import ApiError, handle_error
from chatledger.stores.contract import AsyncStore

logger = logging.getLogger("chatledger.http")

CHECK_SECONDS = 2.0
"""The longest time that a check of the store may take."""
VALID_SECONDS = 1.0
"""The time for which the outcome of a check is used."""
TOO_SLOW = f"The conversation store did not answer within {CHECK_SECONDS:.0f} seconds."
RETRY = "Try again later; the log of the server has the details."
_SENTENCES: dict[type[Exception], str] = {
    TimeoutError: TOO_SLOW,
    StoreUnavailable: "The conversation store does not accept writes at the moment.",
    StoreMismatch: "The conversation store is missing or is not one that this server can use.",
    AccessRefused: "The server has no access to its conversation store.",
}


class Readiness:
    """Checks that the store accepts writes, at most once in ``VALID_SECONDS``.

    Args:
        store: The store.
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._checking: asyncio.Task[str | None] | None = None
        self._valid_until = 0.0

    async def require(self) -> None:
        """Raise ``ApiError`` unless the store accepts writes."""
        if self._checking is None or (self._checking.done() and monotonic() > self._valid_until):
            self._checking = asyncio.create_task(self._check())
        # Other requests wait for the same check, so it goes on if the client of this one leaves.
        sentence = await asyncio.shield(self._checking)
        if sentence is not None:
            raise ApiError(503, "store_unavailable", f"{sentence} {RETRY}")

    async def _check(self) -> str | None:
        """Return a sentence for clients that says why the store accepts no writes, or None."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._store.check_writable()
            return None
        except (ChatledgerError, TimeoutError) as error:
            # The texts of these errors quote no message, and tell the operator what to do.
            reason = TOO_SLOW if isinstance(error, TimeoutError) else error
            logger.warning("The server is not ready: %s", reason)
            kinds = (each for each in _SENTENCES if isinstance(error, each))
            return _SENTENCES[next(kinds, StoreUnavailable)]
        except Exception as error:
            handle_error(error, "The check of the store")
            return _SENTENCES[StoreUnavailable]
        finally:
            self._valid_until = monotonic() + VALID_SECONDS
