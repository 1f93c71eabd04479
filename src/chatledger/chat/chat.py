"""The chats: ``Chat`` for async callers, and ``SyncChat`` for callers without an event loop."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from chatledger.chat import turn_metadata
from chatledger.chat.events import Event, Reply, StopFunctions, Turn, collect, collect_sync
from chatledger.chat.lease import force_release
from chatledger.chat.options import (
    DEFAULT_LEASE,
    ChatOptions,
    Hook,
    TurnRequest,
    check_store,
    checked_messages,
    conversation_id_for,
    key_for,
)
from chatledger.chat.runner_sync import run_turn
from chatledger.chat.turn import EditTurn, RegenerateTurn, SendTurn, unsaved_turn
from chatledger.conversations import MAX_REVISION
from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.models.protocol import Model, SyncModel, Usage, check_model
from chatledger.sansio import Steps, arun, run
from chatledger.stores.arguments import checked_id, checked_number
from chatledger.stores.contract import AnyStore, AsyncStore, Store
from chatledger.windows import Window, last

if TYPE_CHECKING:
    from chatledger.chat.runner import TurnRunner

S = TypeVar("S", bound=AnyStore)
M = TypeVar("M", bound=Model | SyncModel)
E = TypeVar("E")
R = TypeVar("R")


class AnyChat(ABC, Generic[S, M, E, R]):
    """The base of ``Chat`` and ``SyncChat``.

    ``S`` is the type of the store, ``M`` that of the model, ``E`` that of the event generators, and
    ``R`` what ``send`` returns.
    """

    _is_async: ClassVar[bool]

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
        check_store(store, is_async=self._is_async)
        check_model(model, method="stream" if self._is_async else "stream_sync")
        self.store = store
        self.model = model
        self._options = ChatOptions(
            window=last(20) if window is None else window,
            system_prompt=system_prompt,
            lease=lease,
            time_limit=time_limit,
            hooks=hooks,
        )
        self._stop_functions: StopFunctions = {}

    def send(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
        title: str | None = None,
        model: M | None = None,
        idempotency_key: str | None = None,
    ) -> R:
        """Run a turn as ``stream`` does, and return the complete reply."""
        return self._collect(
            self.stream(
                messages,
                conversation_id=conversation_id,
                owner=owner,
                system_prompt=system_prompt,
                title=title,
                model=model,
                idempotency_key=idempotency_key,
            )
        )

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
        model = self._checked_model(model)
        given = checked_messages(messages)
        key = key_for(idempotency_key, given, system_prompt, model.id)
        if key is not None and conversation_id is None:
            conversation_id = conversation_id_for(key.text, owner)
        request = TurnRequest(
            model_id=model.id,
            system_prompt=system_prompt,
            conversation_id=conversation_id,
            owner=owner,
            messages=given,
            title=title,
            key=key,
        )
        turn = SendTurn(self.store, self._options, request)
        return self._events(turn.steps(), model, self._stop_functions)

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
        model = self._checked_model(model)
        request = TurnRequest(
            model_id=model.id,
            system_prompt=system_prompt,
            conversation_id=checked_id(conversation_id),
            owner=owner,
        )
        turn = RegenerateTurn(self.store, self._options, request)
        return self._events(turn.steps(), model, self._stop_functions)

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
        model = self._checked_model(model)
        checked_number(seq, "seq", least=1, most=MAX_REVISION - 1)
        given = checked_messages(message)
        if [each.role for each in given] != ["user"]:
            raise InvalidArgument(
                "A message can only be replaced by one user message; pass a string or a "
                "Message.user(...)."
            )
        request = TurnRequest(
            model_id=model.id,
            system_prompt=system_prompt,
            conversation_id=checked_id(conversation_id),
            owner=owner,
            messages=given,
        )
        turn = EditTurn(self.store, self._options, request, seq)
        return self._events(turn.steps(), model, self._stop_functions)

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
        model = self._checked_model(model)
        request = TurnRequest(
            model_id=model.id,
            system_prompt=system_prompt,
            conversation_id=conversation_id,
            owner=owner,
            messages=checked_messages(messages),
        )
        # ``stop`` must not find this turn: it ends only turns that are stored.
        return self._events(unsaved_turn(self.store, self._options, request), model, {})

    @abstractmethod
    def _events(self, turn: Turn, model: M, stop_functions: StopFunctions) -> E:
        """Run the turn and yield its events."""

    @abstractmethod
    def _collect(self, events: E) -> R: ...

    def _checked_model(self, model: M | None) -> M:
        if model is None:
            return self.model
        check_model(model, method="stream" if self._is_async else "stream_sync")
        return model

    def _stop(self, conversation_id: str, owner: str | None) -> Steps[bool]:
        yield partial(self.store.get, conversation_id, owner=owner)
        stop = self._stop_functions.get(conversation_id)
        if stop is not None:
            stop()
            return True
        return (yield from force_release(self.store, self._options, conversation_id, owner))

    def _usage(self, conversation_id: str, owner: str | None) -> Steps[Usage]:
        limit = self._options.read_limit
        tail = yield partial(self.store.tail, conversation_id, limit, owner=owner)
        return turn_metadata.total_usage(tail.messages) or Usage(0, 0)


class Chat(AnyChat[AsyncStore, Model, AsyncGenerator[Event, None], Coroutine[Any, Any, Reply]]):
    """A chat, which runs turns with any async store and any model.

    A turn yields ``Started`` once the user's message is stored, then the pieces of the reply, then
    ``Finished`` once the reply is stored too. However a turn ends, the next one works:

    - The model fails: the part of the reply received so far is stored with the ``stop_reason``
      ``failed`` in ``extra``, and the caller gets the error. If there is no part yet, only the
      user's message stays; sending the same message again does not store it twice.
    - The caller leaves (closes the generator or is cancelled), or the turn is stopped: the part
      received so far is stored with the ``stop_reason`` ``stopped``.
    - The turn reaches its ``time_limit``: the part received so far is stored with ``timed_out``. If
      there is no part yet, the caller gets ``ModelTimeout``.
    - The process dies: the conversation accepts a new turn once the turn's ``lease`` has ended.
    - The user's message is removed, or the conversation deleted, meanwhile: the reply is dropped.

    Only one turn of a conversation runs at a time; a second one raises ``TurnInProgress``. A turn
    that takes longer than its lease renews it. The clocks of machines that share a store must agree
    to within a few seconds.

    Args:
        store: Any async store.
        model: The model that turns call unless they name another.
        window: The part of the conversation that the model sees; by default the last 20 messages.
        system_prompt: The system prompt of every turn that is not given its own.
        lease: The time for which a turn may run without renewing its lease.
        time_limit: The longest that a turn may take; by default there is no limit.
        hooks: The hooks to call, in this order, in every turn that is stored.

    Raises:
        InvalidArgument: An argument is not valid.
    """

    _is_async = True

    async def stop(self, conversation_id: str, *, owner: str | None = None) -> bool:
        """Stop the turn that is running in the conversation; return whether there was one.

        The part of the reply received so far is stored, and the turn's caller gets
        ``Finished("stopped")``. A turn in another process loses its lease at once, so that the next
        turn can start; it ends within a third of its lease.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
        """
        return await arun(self._stop(conversation_id, owner))

    async def usage(self, conversation_id: str, *, owner: str | None = None) -> Usage:
        """Return the tokens that all replies of the conversation used.

        Replies that were regenerated or edited away are included. The sum is stored with each
        reply. It starts again at zero if none of the last messages that a turn reads has a sum.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
        """
        return await arun(self._usage(conversation_id, owner))

    async def close(self) -> None:
        """Wait until the turns whose callers left have stored their replies."""
        await self._runner.close()

    @cached_property
    def _runner(self) -> "TurnRunner":
        # Imported late: programs without an event loop should not pay for importing asyncio.
        from chatledger.chat.runner import TurnRunner

        return TurnRunner()

    def _events(
        self, turn: Turn, model: Model, stop_functions: StopFunctions
    ) -> AsyncGenerator[Event, None]:
        return self._runner.run(turn, model, stop_functions)

    def _collect(self, events: AsyncGenerator[Event, None]) -> Coroutine[Any, Any, Reply]:
        return collect(events)


class SyncChat(AnyChat[Store, SyncModel, Generator[Event, None, None], Reply]):
    """A chat with a sync store and a sync model, and with the methods of ``Chat``.

    Each call to the model runs in a thread of its own. The caller leaves a turn by closing the
    generator or by a ``KeyboardInterrupt``.
    """

    _is_async = False

    def stop(self, conversation_id: str, *, owner: str | None = None) -> bool:
        return run(self._stop(conversation_id, owner))

    def usage(self, conversation_id: str, *, owner: str | None = None) -> Usage:
        return run(self._usage(conversation_id, owner))

    def _events(
        self, turn: Turn, model: SyncModel, stop_functions: StopFunctions
    ) -> Generator[Event, None, None]:
        return run_turn(turn, model, stop_functions)

    def _collect(self, events: Generator[Event, None, None]) -> Reply:
        return collect_sync(events)


SyncChat.stop.__doc__ = Chat.stop.__doc__
SyncChat.usage.__doc__ = Chat.usage.__doc__
