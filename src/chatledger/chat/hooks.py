"""What others may add to a turn: moderation, retrieval, summaries."""

from collections.abc import Awaitable
from typing import Protocol

from chatledger.chat.events import Reply
from chatledger.messages import Message


class Hook(Protocol):
    """Called in every turn that is kept; the methods may be async in a ``Chat``."""

    def before_model(self, window: list[Message]) -> list[Message] | Awaitable[list[Message]]:
        """What the model is to see instead of ``window``, which ends with what it is to answer.

        The user's message is stored by then. What this raises ends the turn, and the caller gets
        it; the user's message stays. It must return within the turn's lease, which is not renewed
        meanwhile.
        """
        ...

    def after_reply(self, reply: Reply) -> Awaitable[None] | None:
        """The reply is stored. What this raises is logged by its kind, and changes nothing."""
        ...
