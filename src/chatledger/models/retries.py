"""The attempts at one call to a model: how long each may take, and how many there are."""

import time
from collections.abc import Callable
from random import Random

from chatledger.backoff import backoff
from chatledger.errors import ModelError, ModelThrottled

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


def start_retries(patience: float) -> Retries:
    """Return the retries of a call that begins now."""
    random = Random()  # noqa: S311  only jitter
    return Retries(patience, monotonic=time.monotonic, random=random)
