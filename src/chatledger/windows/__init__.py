"""Which part of a conversation a model sees. Pure: from messages to messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile

from chatledger.conversations import LIMIT, check_number
from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.windows.fitting import fitting
from chatledger.windows.tokens import approximate_tokens
from chatledger.windows.validity import valid_for_models


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a conversation a model sees.

    ``window(messages)`` is what ``choose`` makes of the last ``reads`` (1 to 1,000) of them, as
    ``valid_for_models`` makes it: the same whether it is given the whole conversation or what one
    read of the store gives. A window of your own is ``Window(choose, reads)``.
    """

    choose: Callable[[Sequence[Message]], list[Message]]
    reads: int

    def __post_init__(self) -> None:
        _check_function(self.choose, "choose", "from messages to those that are seen")
        check_number(self.reads, "reads", least=1, most=LIMIT)

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        return valid_for_models(self.choose(messages[-self.reads :]))


def last(n: int) -> Window:
    """The last ``n`` messages (1 to 1,000), as ``valid_for_models`` makes them."""
    check_number(n, "n", least=1, most=LIMIT)
    return Window(list, n)


def within_tokens(
    budget: int, *, count: Callable[[Message], int] = approximate_tokens, reads: int = 200
) -> Window:
    """The longest ending of the last ``reads`` messages that counts at most ``budget``.

    Counted is what the model is given, as ``valid_for_models`` makes it; ``count`` says of one
    message how many tokens it takes, 0 or more, and no fewer of a longer one: the search ends at
    the first ending that does not fit. Where not even the user's last message fits, with what
    follows it, that is given all the same, and the model says that it is too long.
    """
    check_number(budget, "budget", least=1)
    _check_function(count, "count", "from a message to its tokens")
    return Window(partial(fitting, budget=budget, count=count), reads)


def starting_with_user(messages: Sequence[Message]) -> list[Message]:
    """The messages from the first of the user's on: models refuse a reply to nothing."""
    return list(dropwhile(lambda message: message.role != "user", messages))


def _check_function(value: object, name: str, what: str) -> None:
    if not callable(value):
        raise InvalidArgument(
            f"{name} is of type {type(value).__name__}; it must be a function {what}."
        )


__all__ = [
    "Window",
    "approximate_tokens",
    "last",
    "starting_with_user",
    "valid_for_models",
    "within_tokens",
]
