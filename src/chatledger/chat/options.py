"""The options of a chat, and the checked request for one turn."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from chatledger.chat import turn_metadata
from chatledger.chat.hooks import Hook
from chatledger.errors import InvalidArgument, InvalidMessage
from chatledger.ids import uuid_from_key
from chatledger.messages import Message
from chatledger.stores.arguments import checked_idempotency_key
from chatledger.windows import Window, last, valid_for_models

DEFAULT_LEASE = timedelta(seconds=30)
"""The default time for which a turn may run without renewing its lease."""
QUESTION_ROLES = ("user", "tool")
_NOT_MESSAGES = (
    "messages must be a string, a Message of role 'user' or 'tool', or a list of such messages."
)


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """The options that all turns of a chat share."""

    window: Window = field(default_factory=lambda: last(20))
    system_prompt: str | None = None
    lease: timedelta = DEFAULT_LEASE
    time_limit: timedelta | None = None
    hooks: Sequence[Hook] = ()
    clock: Callable[[], int] = _now_ms
    """Returns the time in ms since 1970; machines that share a store compare their times."""
    timer: Callable[[], float] = time.monotonic
    """Returns monotonic seconds, for measuring durations."""

    def __post_init__(self) -> None:
        for name in ("lease", "time_limit"):
            value = getattr(self, name)
            if value is None and name == "time_limit":
                continue
            if not isinstance(value, timedelta) or value <= timedelta():
                raise InvalidArgument(f"{name} must be a timedelta longer than zero.")
        if not isinstance(self.window, Window):
            raise InvalidArgument("window must be a Window, such as last(20).")

    @property
    def read_limit(self) -> int:
        """The number of last messages to read, at least 4.

        With 4, a turn's question is found even if other writers added a few messages after it.
        """
        return max(self.window.reads - 1, 4)

    def window_for(self, earlier: Sequence[Message], messages: Sequence[Message]) -> list[Message]:
        """Return the messages that the model sees in a turn that answers ``messages``.

        Raises ``InvalidArgument`` if there is nothing for the model to answer.
        """
        return checked_window(self.window([*earlier, *messages]))

    def system_prompt_for(self, requested: str | None) -> str | None:
        """Return the system prompt that a turn requested, or else the chat's."""
        return self.system_prompt if requested is None else requested


def checked_window(window: list[Message]) -> list[Message]:
    """Return ``window``; raise ``InvalidArgument`` if it has nothing for the model to answer."""
    if not window or window[-1].role not in QUESTION_ROLES:
        raise InvalidArgument(
            "There is nothing for the model to answer; the window must end with a user message, or "
            "with a tool result that directly follows its call."
        )
    return window


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """The checked request for one turn."""

    messages: list[Message]
    conversation_id: str | None
    owner: str | None
    system_prompt: str | None
    title: str | None = None
    idempotency_key: str | None = None


def parse_request(
    messages: object,
    *,
    conversation_id: str | None,
    owner: str | None,
    system_prompt: str | None,
    title: str | None = None,
    idempotency_key: str | None = None,
) -> TurnRequest:
    """Check the arguments of a turn; raise ``InvalidArgument`` if one is not valid."""
    checked_idempotency_key(idempotency_key)
    if idempotency_key is not None and conversation_id is None:
        if owner is None:
            raise InvalidArgument(
                "An idempotency_key needs a conversation_id or an owner; pass one, so that the "
                "stored reply can be found again."
            )
        # The same owner and key always give the same conversation. With the owner's length, two
        # different pairs of owner and key cannot concatenate to the same text.
        conversation_id = uuid_from_key(str(len(owner)), owner, idempotency_key)
    return TurnRequest(
        messages=checked_messages(messages),
        conversation_id=conversation_id,
        owner=owner,
        system_prompt=system_prompt,
        title=title,
        idempotency_key=idempotency_key,
    )


def checked_messages(messages: object) -> list[Message]:
    """Return the messages to answer, without the metadata of earlier turns.

    Raises ``InvalidArgument`` unless ``messages`` is a string, a message of role ``user`` or
    ``tool``, or a list of such messages, or if it consists only of blank user messages.
    """
    if isinstance(messages, str):
        messages = Message.user(messages)
    given = [messages] if isinstance(messages, Message) else messages
    if not isinstance(given, Sequence) or not given:
        raise InvalidArgument(_NOT_MESSAGES)
    for message in given:
        if not isinstance(message, Message) or message.role not in QUESTION_ROLES:
            raise InvalidArgument(_NOT_MESSAGES)
    if all(message.role == "user" for message in given) and not valid_for_models(given):
        raise InvalidMessage("The message is blank; write something.")
    return [turn_metadata.without_metadata(message) for message in given]
