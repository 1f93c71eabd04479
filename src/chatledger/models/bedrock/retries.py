"""The retry policy for calls to Bedrock: whether to retry, and how long to wait."""

from collections.abc import Callable
from random import Random

from chatledger.backoff import backoff
from chatledger.errors import ModelError, ModelThrottled

PATIENCE = 20.0
"""The seconds during which a failed call is retried, if no part of its reply was delivered."""
MAX_ATTEMPTS = 6
FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0


class Retries:
    """The attempts at one call: at most ``MAX_ATTEMPTS``, all begun within ``patience`` seconds."""

    def __init__(self, patience: float, *, monotonic: Callable[[], float], random: Random) -> None:
        self._monotonic = monotonic
        self._random = random
        self._deadline = monotonic() + patience
        self._failures = 0

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
