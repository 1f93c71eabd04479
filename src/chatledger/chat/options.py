"""The options of a chat and the requests of its turns, and their checks."""

import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from chatledger.chat import turn_metadata
from chatledger.chat.events import Reply
from chatledger.errors import InvalidArgument, InvalidMessage
from chatledger.messages import Message
from chatledger.stores.arguments import checked_idempotency_key
from chatledger.stores.contract import AsyncStore, Store
from chatledger.values import milliseconds_since_epoch, now, uuid_from_key
from chatledger.windows import Window, valid_for_models

DEFAULT_LEASE = timedelta(seconds=30)
"""The default time for which a turn may run without renewing its lease."""
QUESTION_ROLES = ("user", "tool")
_NOT_MESSAGES = (
    "messages must be a string, a Message of role 'user' or 'tool', or a list of such messages."
)


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


def _now_ms() -> int:
    return milliseconds_since_epoch(now())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """The options that all turns of a chat share."""

    window: Window
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
        if not isinstance(self.hooks, Sequence) or not all(map(_is_hook, self.hooks)):
            raise InvalidArgument(
                "hooks must be a list of objects with the methods before_model and after_reply."
            )

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

    model_id: str
    system_prompt: str | None
    """The turn's own, instead of the chat's."""
    conversation_id: str | None
    owner: str | None
    messages: list[Message] = field(default_factory=list)
    """The messages to store, unless the turn answers one that is already stored."""
    title: str | None = None
    key: turn_metadata.RequestKey | None = None


def key_for(
    idempotency_key: str | None, messages: Sequence[Message], *more: str | None
) -> turn_metadata.RequestKey | None:
    """Return the key with the digest of the request, which consists of ``messages`` and ``more``.

    Raises ``InvalidArgument`` if the key is not valid.
    """
    checked_idempotency_key(idempotency_key)
    if idempotency_key is None:
        return None
    digest = turn_metadata.request_digest(messages, *more)
    return turn_metadata.RequestKey(idempotency_key, digest)


def conversation_id_for(idempotency_key: str, owner: str | None) -> str:
    """Return the id of the conversation that the owner starts with the key, always the same."""
    if owner is None:
        raise InvalidArgument(
            "An idempotency_key needs a conversation_id or an owner; pass one, so that the "
            "stored reply can be found again."
        )
    # With the owner's length, two different pairs of owner and key cannot concatenate to the same
    # text.
    return uuid_from_key(str(len(owner)), owner, idempotency_key)


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


def check_store(store: object, *, is_async: bool) -> None:
    """Raise ``InvalidArgument`` unless ``store`` is a store for async callers, or for sync ones."""
    wanted, unwanted = ("an async", "a sync") if is_async else ("a sync", "an async")
    opener, other_chat = ("open_async_store", "SyncChat") if is_async else ("open_store", "Chat")
    read = getattr(store, "tail", None)
    if isinstance(store, type) or not callable(read):
        raise InvalidArgument(
            f"store is {_described(store)}; pass {wanted} store, such as {opener}(url) returns."
        )
    # A store that only wraps another one inherits from neither.
    if isinstance(store, Store | AsyncStore):
        is_async_store = isinstance(store, AsyncStore)
    else:
        is_async_store = inspect.iscoroutinefunction(read)
    if is_async_store is not is_async:
        raise InvalidArgument(
            f"store is {unwanted} store; pass {wanted} one, such as {opener}(url) returns, or use "
            f"a {other_chat}."
        )


def _is_hook(hook: object) -> bool:
    methods = [getattr(hook, name, None) for name in ("before_model", "after_reply")]
    return all(map(callable, methods)) and not isinstance(hook, type)


def _described(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}, not an object"
    return f"of type {type(value).__name__}"
