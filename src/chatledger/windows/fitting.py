"""The longest ending of a conversation that fits a budget."""

from bisect import bisect
from collections.abc import Callable, Sequence
from functools import cache

from chatledger.messages import Message
from chatledger.windows.validity import Turns, joined


def fitting(
    messages: Sequence[Message], *, budget: int, count: Callable[[Message], int]
) -> list[Message]:
    """What models take of the longest ending that counts at most ``budget`` then.

    The shortest that is not empty where none does.
    """
    said = Turns(messages)
    turns, systems = said.turns, [place for place, _ in said.systems]
    # What a model is given changes only as an ending takes in one more of the user's or the
    # system's messages, and all behind its first turn is the same in every longer one. So from the
    # back: each turn is joined and counted once, and what lies far before is not looked at.
    places = [
        (part.place, n, first)
        for n, turn in enumerate(turns)
        if turn[0].message.role == "user"
        for first, part in enumerate(turn)
    ]
    before = [-1, *(place for place, _, _ in places)]

    @cache
    def system_tokens(first: int) -> int:
        return count(joined(said.systems[first:])) if first < len(systems) else 0

    best: tuple[int, int, int] | None = None
    behind, counted = 0, len(turns)  # what the turns from that one on count
    for (place, n, first), earlier in zip(reversed(places), reversed(before[:-1]), strict=True):
        behind += sum(count(joined(turn)) for turn in turns[n + 1 : counted])
        tokens = behind + count(joined(turns[n][first:]))
        behind, counted = (tokens, n) if first == 0 else (behind, n + 1)
        for system in range(bisect(systems, place), bisect(systems, earlier) - 1, -1):
            if best and tokens + system_tokens(system) > budget:
                return said.ending(*best)
            best = (n, first, system)
    return said.ending(*best) if best else []
