"""Windows, each of which selects the part of a conversation that a model sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile

from chatledger.conversations import MAX_LIMIT
from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.stores.arguments import checked_number
from chatledger.windows.budget import approximate_tokens, longest_ending
from chatledger.windows.validity import valid_for_models


@dataclass(frozen=True, slots=True)
class Window:
    """A rule that selects the part of a conversation that a model sees.

    ``window(messages)`` passes the last ``reads`` messages to ``choose`` and makes the result valid
    with ``valid_for_models``. The store therefore needs to read only the last ``reads`` messages,
    however long the conversation is.

    Args:
        choose: A function from the messages to those in the window.
        reads: The number of last messages that ``choose`` gets, 1 to 1,000.

    Raises:
        InvalidArgument: ``choose`` is not a function, or ``reads`` is out of range.
    """

    choose: Callable[[Sequence[Message]], list[Message]]
    reads: int

    def __post_init__(self) -> None:
        _check_function(self.choose, "choose", "from messages to those in the window")
        checked_number(self.reads, "reads", least=1, most=MAX_LIMIT)

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        return valid_for_models(self.choose(messages[-self.reads :]))


def last(n: int) -> Window:
    """Return the window of the last ``n`` messages (1 to 1,000), made valid for models.

    Raises:
        InvalidArgument: ``n`` is out of range.
    """
    checked_number(n, "n", least=1, most=MAX_LIMIT)
    return Window(list, n)


def within_tokens(
    budget: int, *, count: Callable[[Message], int] = approximate_tokens, reads: int = 200
) -> Window:
    """Return the window of the longest ending of a conversation that fits a token budget.

    The messages are counted as the model gets them, after ``valid_for_models``. If the user's last
    message and everything after it exceed the budget, the window is still those messages, and the
    model may report that they are too long.

    Args:
        budget: The most tokens that the window may have.
        count: A function from a message to its number of tokens, 0 or more. A longer message must
            not count less than a shorter one, because the search stops at the first ending that
            does not fit.
        reads: The number of last messages that are considered, 1 to 1,000.

    Raises:
        InvalidArgument: A number is out of range, or ``count`` is not a function.
    """
    checked_number(budget, "budget", least=1)
    _check_function(count, "count", "from a message to its number of tokens")
    return Window(partial(longest_ending, budget=budget, count=count), reads)


def starting_with_user(messages: Sequence[Message]) -> list[Message]:
    """Return the messages from the first user message on.

    Models refuse a conversation that starts with a reply.
    """
    return list(dropwhile(lambda message: message.role != "user", messages))


def _check_function(value: object, name: str, signature: str) -> None:
    if not callable(value):
        raise InvalidArgument(
            f"{name} is of type {type(value).__name__}; it must be a function {signature}."
        )


__all__ = [
    "Window",
    "approximate_tokens",
    "last",
    "starting_with_user",
    "valid_for_models",
    "within_tokens",
]
