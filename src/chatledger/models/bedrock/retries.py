"""Whether and when to try again. Pure."""

from collections.abc import Callable

from chatledger.errors import ModelError, ModelThrottled

PATIENCE = 20.0
"""Seconds in which a call is begun again, as long as nothing of its reply has been seen."""
TRIES = 6
FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0


class Tries:
    """Of one call: at most ``TRIES``, begun within ``patience`` seconds, with full jitter."""

    def __init__(
        self,
        patience: float,
        *,
        monotonic: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self._monotonic = monotonic
        self._uniform = uniform
        self._deadline = monotonic() + patience
        self._made = 0

    def pause(self, failed: ModelError) -> float:
        """Seconds until the next try; raises ``failed`` where there is to be none."""
        self._made += 1
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
        pause = self._uniform(0, min(FIRST_WAIT * 2 ** (self._made - 1), LONGEST_WAIT))
        if isinstance(failed, ModelThrottled) and failed.retry_after is not None:
            pause = max(pause, failed.retry_after)
        late = self._monotonic() + pause > self._deadline
        if late or self._made == TRIES or not failed.retryable:
            raise failed
        return pause
