"""The waits before retries: exponential backoff, or as long as the service asks for."""

import re
from random import Random

_LARGEST_EXPONENT = 30  # far past every ``longest``; 2**5000 would not fit into a float


def backoff(random: Random, attempt: int, *, first: float, longest: float) -> float:
    """Return how many seconds to wait before the next attempt.

    The wait is random, between 0 and a bound that starts at ``first`` and doubles with each
    attempt up to ``longest``: "full jitter", which spreads out clients that failed together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).

    Args:
        random: The source of the jitter.
        attempt: The number of the attempt that just failed, counted from 0.
        first: The bound of the first wait, in seconds.
        longest: The bound of every wait, in seconds.
    """
    return random.uniform(0, min(first * 2 ** min(attempt, _LARGEST_EXPONENT), longest))


def parse_retry_after(header: object) -> float | None:
    """Return the seconds of a ``Retry-After`` header (RFC 9110); None for a date or no header."""
    if not isinstance(header, str) or not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", header):
        return None
    return float(header)
