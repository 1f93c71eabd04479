"""Hooks that extend a turn, for moderation, retrieval or summaries."""

from collections.abc import Awaitable
from typing import Protocol

from chatledger.chat.events import Reply
from chatledger.messages import Message


class Hook(Protocol):
    """Methods that are called in every turn that is stored; in a ``Chat`` they may be async."""

    def before_model(self, window: list[Message]) -> list[Message] | Awaitable[list[Message]]:
        """Return the messages that the model gets instead of ``window``.

        It is called once the user's message is stored, and ``window`` ends with the messages to
        answer. The messages that it returns are made valid for models again. It must return within
        the turn's lease, which is not renewed meanwhile. An error raised here ends the turn and is
        raised to the caller; the user's message stays.
        """
        ...

    def after_reply(self, reply: Reply) -> Awaitable[None] | None:
        """Handle a reply that has been stored.

        An error raised here does not affect the turn; only its type is logged.
        """
        ...
