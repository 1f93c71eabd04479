"""How the turns of a chat go, and what one of them is asked."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from chatledger.chat import turn_metadata
from chatledger.chat.hooks import Hook
from chatledger.conversations import check_idempotency_key
from chatledger.errors import InvalidArgument, InvalidMessage
from chatledger.messages import Message
from chatledger.windows import Window, last, valid_for_models

LEASE = timedelta(seconds=30)
"""How long a turn holds its conversation before it must say that it still runs."""
ROLES = ("user", "tool")
_ASKED = "messages must be a text, a Message of the user or of a tool, or a list of these."


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for all turns of a chat."""

    window: Window = field(default_factory=lambda: last(20))
    system_prompt: str | None = None
    lease: timedelta = LEASE
    time_limit: timedelta | None = None
    hooks: Sequence[Hook] = ()
    clock: Callable[[], int] = _now
    """The time in ms since 1970, as other machines see it too."""
    timer: Callable[[], float] = time.monotonic
    """Seconds that only go on."""

    def __post_init__(self) -> None:
        for name in ("lease", "time_limit"):
            given = getattr(self, name)
            if given is None and name == "time_limit":
                continue
            if not isinstance(given, timedelta) or given <= timedelta():
                raise InvalidArgument(f"{name} must be a timedelta that is longer than nothing.")
        if not isinstance(self.window, Window):
            raise InvalidArgument("window must be a Window, such as last(20).")

    @property
    def reads(self) -> int:
        """How many messages are read: a turn is seen though others wrote a few behind it."""
        return max(self.window.reads - 1, 4)

    def seen_by_model(
        self, earlier: Sequence[Message], question: Sequence[Message]
    ) -> list[Message]:
        """The window of a turn that asks ``question``.

        Raises ``InvalidArgument`` where there is nothing in it for a model to answer.
        """
        return answerable(self.window([*earlier, *question]))

    def prompt(self, asked: str | None) -> str | None:
        """The system prompt of a turn that asked for its own, or for none."""
        return self.system_prompt if asked is None else asked


def answerable(window: list[Message]) -> list[Message]:
    """``window``; raises ``InvalidArgument`` where there is nothing in it for a model to answer."""
    if not window or window[-1].role not in ROLES:
        raise InvalidArgument(
            "There is nothing for the model to answer: a tool's result needs the call that it "
            "answers within the window, right before it."
        )
    return window


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one turn is asked."""

    messages: list[Message]
    conversation_id: str | None
    owner: str | None
    system_prompt: str | None
    title: str | None = None
    idempotency_key: str | None = None


def asked(
    messages: object,
    *,
    conversation_id: str | None,
    owner: str | None,
    system_prompt: str | None,
    title: str | None = None,
    idempotency_key: str | None = None,
) -> Asked:
    """What a turn is asked. Raises ``InvalidArgument``."""
    check_idempotency_key(idempotency_key)
    if idempotency_key is not None and conversation_id is None:
        if owner is None:
            raise InvalidArgument(
                "An idempotency_key needs a conversation_id or an owner: the reply is kept there."
            )
        # The same key starts the same conversation.
        conversation_id = str(
            uuid5(NAMESPACE_URL, f"chatledger:{len(owner)}:{owner}:{idempotency_key}")
        )
    return Asked(
        messages=question(messages),
        conversation_id=conversation_id,
        owner=owner,
        system_prompt=system_prompt,
        title=title,
        idempotency_key=idempotency_key,
    )


def question(messages: object) -> list[Message]:
    """The messages that ask for a reply. Raises ``InvalidArgument``."""
    if isinstance(messages, str):
        messages = Message.user(messages)
    given = [messages] if isinstance(messages, Message) else messages
    if not isinstance(given, Sequence) or not given:
        raise InvalidArgument(_ASKED)
    for message in given:
        if not isinstance(message, Message) or message.role not in ROLES:
            raise InvalidArgument(_ASKED)
    if all(message.role == "user" for message in given) and not valid_for_models(given):
        raise InvalidMessage("The message is blank; write something.")
    return [turn_metadata.unmarked(message) for message in given]
