"""The base of async and sync chats: the methods that start a turn and return its events."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from chatledger.chat.effects import Turn
from chatledger.chat.hooks import Hook
from chatledger.chat.options import DEFAULT_LEASE, ChatOptions
from chatledger.chat.turn_factory import TurnFactory
from chatledger.chat.turn_setup import AnyStore
from chatledger.messages import Message
from chatledger.windows import Window, last


class HasId(Protocol):
    """The part of a model that this module needs: its id."""

    @property
    def id(self) -> str: ...


S = TypeVar("S", bound=AnyStore)
M = TypeVar("M", bound=HasId)
E = TypeVar("E", covariant=True)
M_contra = TypeVar("M_contra", bound=HasId, contravariant=True)


class AnyTurnRunner(Protocol[M_contra, E]):
    """A runner of turns, async or sync; ``E`` is the type of its event generators."""

    def run(self, turn: Turn, model: M_contra, *, stoppable: bool = True) -> E: ...


class AnyChat(ABC, Generic[S, M, E]):
    """The base of ``Chat`` and ``SyncChat``.

    ``S`` is the type of the store, ``M`` that of the model and ``E`` that of the event generators.
    """

    _runner: AnyTurnRunner[M, E]

    def __init__(
        self,
        store: S,
        model: M,
        *,
        window: Window | None = None,
        system_prompt: str | None = None,
        lease: timedelta = DEFAULT_LEASE,
        time_limit: timedelta | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.store = store
        self.model = model
        self._options = ChatOptions(
            window=window or last(20),
            system_prompt=system_prompt,
            lease=lease,
            time_limit=time_limit,
            hooks=hooks,
        )
        self._turns = TurnFactory(store, self._options)
        self._runner = self._new_runner()

    @abstractmethod
    def _new_runner(self) -> AnyTurnRunner[M, E]: ...

    def stream(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
        title: str | None = None,
        model: M | None = None,
        idempotency_key: str | None = None,
    ) -> E:
        """Run a turn in the conversation and yield its events.

        Ask for each next event before the lease ends: the turn renews its lease only while you wait
        for an event.

        Args:
            messages: A string, a message of role ``user`` or ``tool``, or a list of such messages.
            conversation_id: The conversation to continue; by default, the turn starts a new one.
            owner: The conversation's owner. If ``conversation_id`` does not exist yet, the turn
                creates it for this owner; without an ``owner`` it must exist.
            system_prompt: The system prompt for this turn, instead of the chat's.
            title: The title of a conversation that this turn starts; by default, the beginning of
                the message.
            model: The model for this turn, instead of the chat's.
            idempotency_key: For at least a day, sending again with the same key on the same
                conversation yields the stored reply and does not call the model. Without a
                ``conversation_id``, the key also identifies the owner's new conversation, so that
                sending again does not start a second one. If the earlier turn had no reply, or a
                failed one, it is tried again, unless the conversation has moved on since.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
            TurnInProgress: Another turn of the conversation is running.
            KeyReused: The key was used for a different request, or its turn cannot be tried
                again.
            InvalidArgument: An argument is not valid.
            ModelError: The model failed. Other errors that it raises pass through unchanged.
            StoreUnavailable: The store failed. Its other errors pass through unchanged.
        """
        model = model or self.model
        turn = self._turns.send_turn(
            messages,
            conversation_id=conversation_id,
            owner=owner,
            system_prompt=system_prompt,
            title=title,
            model=model.id,
            idempotency_key=idempotency_key,
        )
        return self._runner.run(turn, model)

    def regenerate(
        self,
        conversation_id: str,
        *,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
    ) -> E:
        """Replace the replies to the last user or tool message with a new one.

        The turn runs as in ``stream``, and raises the same errors.

        Raises:
            InvalidArgument: The messages that a turn reads contain no user or tool message.
        """
        model = model or self.model
        turn = self._turns.regenerate_turn(
            conversation_id, owner=owner, system_prompt=system_prompt, model=model.id
        )
        return self._runner.run(turn, model)

    def edit(
        self,
        conversation_id: str,
        seq: int,
        message: str | Message,
        *,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
    ) -> E:
        """Replace the user's message at ``seq``, and all messages after it, with ``message``.

        The turn runs as in ``stream``, and raises the same errors.

        Raises:
            NotFound: There is no message at ``seq``.
            InvalidArgument: The message at ``seq`` is not the user's.
        """
        model = model or self.model
        turn = self._turns.edit_turn(
            conversation_id, seq, message, owner=owner, system_prompt=system_prompt, model=model.id
        )
        return self._runner.run(turn, model)

    def stream_without_saving(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
    ) -> E:
        """Run a turn without storing it, and yield its events.

        The model sees the conversation ``conversation_id``, if one is given. Hooks are not called.
        The arguments and the other errors are those of ``stream``.

        Raises:
            NotFound: The conversation belongs to another owner, or does not exist and no owner is
                given.
        """
        model = model or self.model
        turn = self._turns.turn_without_saving(
            messages, conversation_id=conversation_id, owner=owner, system_prompt=system_prompt
        )
        return self._runner.run(turn, model, stoppable=False)
