"""The longest ending of a conversation that fits a token budget."""

from bisect import bisect
from collections.abc import Callable, Sequence
from functools import cache

from chatledger.messages import Message
from chatledger.windows.validity import ValidRuns, joined_message


def longest_ending(
    messages: Sequence[Message], *, budget: int, count: Callable[[Message], int]
) -> list[Message]:
    """Return the longest ending that has at most ``budget`` tokens once it is valid for models.

    If none fits, return the shortest ending that is not empty. ``count`` returns the tokens of a
    message.
    """
    valid = ValidRuns(messages)
    runs, system_indexes = valid.runs, [part.message_index for part in valid.systems]
    # Two endings differ, once valid, only if the longer one has another user or system message,
    # and everything after its first run is the same in every longer ending. So the search goes
    # from the end to the start, joins and counts each run once, and never looks at messages far
    # before the first one that does not fit.
    user_parts = [
        (part.message_index, run, first)
        for run, parts in enumerate(runs)
        if parts[0].message.role == "user"
        for first, part in enumerate(parts)
    ]
    previous_indexes = [-1, *(index for index, _, _ in user_parts)][:-1]

    @cache
    def system_tokens(first: int) -> int:
        return count(joined_message(valid.systems[first:])) if first < len(system_indexes) else 0

    best: tuple[int, int, int] | None = None
    counted_tokens, first_counted = 0, len(runs)  # the tokens of runs[first_counted:]
    for (index, run, first), previous in zip(
        reversed(user_parts), reversed(previous_indexes), strict=True
    ):
        newly_counted = runs[run + 1 : first_counted]
        counted_tokens += sum(count(joined_message(parts)) for parts in newly_counted)
        tokens = counted_tokens + count(joined_message(runs[run][first:]))
        counted_tokens, first_counted = (tokens, run) if first == 0 else (counted_tokens, run + 1)
        # The endings that start between the previous user message and this one, shortest first:
        # each has one more system message.
        first_system = bisect(system_indexes, index)
        last_system = bisect(system_indexes, previous)
        for system in range(first_system, last_system - 1, -1):
            if best and tokens + system_tokens(system) > budget:
                return valid.ending(*best)
            best = (run, first, system)
    return valid.ending(*best) if best else []
