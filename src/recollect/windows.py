"""Which part of a conversation a model sees. Pure: from messages to messages."""

from collections.abc import Sequence
from itertools import dropwhile

from recollect.messages import Message


def starting_with_user(messages: Sequence[Message]) -> list[Message]:
    """The messages from the first of the user's on: models refuse a reply to nothing."""
    return list(dropwhile(lambda message: message.role != "user", messages))
