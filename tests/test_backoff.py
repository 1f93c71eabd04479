"""Waits between retries grow, are jittered, and stay within their bounds."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatledger.backoff import backoff


class NoJitter(Random):
    """Always draws the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


@given(st.integers(0, 10_000), st.floats(0, 10), st.floats(0, 100), st.integers())
def test_a_wait_is_never_negative_or_longer_than_the_longest(
    attempt: int, first: float, longest: float, seed: int
) -> None:
    assert 0 <= backoff(Random(seed), attempt, first=first, longest=longest) <= longest


@given(st.floats(0, 10), st.integers())
def test_the_first_wait_is_at_most_the_first_bound(first: float, seed: int) -> None:
    assert backoff(Random(seed), 0, first=first, longest=100) <= first


def test_bounds_double_up_to_the_longest() -> None:
    bounds = [backoff(NoJitter(), n, first=0.25, longest=3) for n in range(6)]
    assert bounds == [0.25, 0.5, 1, 2, 3, 3]


@pytest.mark.parametrize("attempt", [1_100, 5_000, 10**6])
def test_a_very_late_attempt_does_not_overflow(attempt: int) -> None:
    assert backoff(NoJitter(), attempt, first=0.002, longest=0.25) == 0.25


def test_the_jitter_is_full() -> None:
    random = Random(1)
    waits = [backoff(random, 3, first=1, longest=60) for _ in range(1_000)]
    assert min(waits) < 0.1
    assert max(waits) > 7.9
