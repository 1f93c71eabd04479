"""The chats: ``Chat`` for async callers, and ``SyncChat`` for callers without an event loop."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from chatledger.chat.lease import (
    LastTurn,
    fork_without_turn,
    last_turn,
    request_digest,
    stop_turn,
    total_usage,
    without_metadata,
)
from chatledger.chat.protocol import (
    DEFAULT_LEASE,
    QUESTION_ROLES,
    ChatOptions,
    Event,
    Hook,
    Reply,
    RequestKey,
    Started,
    StopFunctions,
    Turn,
    TurnRequest,
    collect,
    collect_sync,
)
from chatledger.chat.runner_sync import run_turn
from chatledger.chat.turn import EditTurn, RegenerateTurn, SendTurn, unsaved_turn
from chatledger.conversations import MAX_REVISION, Conversation
from chatledger.errors import InvalidArgument, InvalidMessage
from chatledger.messages import Message, StoredMessage
from chatledger.models.protocol import Model, SyncModel, Usage, check_model
from chatledger.sansio import Steps, arun, run
from chatledger.stores.arguments import (
    checked_id,
    checked_idempotency_key,
    checked_number,
    checked_revision,
)
from chatledger.stores.contract import AnyStore, AsyncStore, Store
from chatledger.values import uuid_from_key
from chatledger.windows import Window, last, valid_for_models

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

    @property
    def system_prompt(self) -> str | None:
        """The system prompt of every turn that is not given its own."""
        return self._options.system_prompt

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
        must_exist: bool = False,
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
                must_exist=must_exist,
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
        must_exist: bool = False,
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
            must_exist: True to raise ``NotFound`` instead of creating the conversation
                ``conversation_id``, so that callers cannot choose the ids of new ones.

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
        if conversation_id is None:
            must_exist = False
            if key is not None:
                conversation_id = conversation_id_for(key.text, owner)
        request = TurnRequest(
            model_id=model.id,
            system_prompt=system_prompt,
            conversation_id=conversation_id,
            owner=owner,
            messages=given,
            title=title,
            key=key,
            must_exist=must_exist,
        )
        turn = SendTurn(self.store, self._options, request)
        return self._events(turn.steps(), model)

    def regenerate(
        self,
        conversation_id: str,
        *,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
        revision: int | None = None,
        idempotency_key: str | None = None,
    ) -> E:
        """Replace the replies to the last user or tool message with a new one.

        The turn runs as in ``stream``, and raises the same errors.

        Args:
            conversation_id: The conversation.
            owner: Its owner, as for ``stream``.
            system_prompt: The system prompt for this turn, instead of the chat's.
            model: The model for this turn, instead of the chat's.
            revision: Replace them only if the conversation's revision is exactly this.
            idempotency_key: As long as the new reply is the last one, calling again with the same
                key yields that reply and does not call the model.

        Raises:
            Conflict: The revision is not ``revision``.
            InvalidArgument: The messages that a turn reads contain no user or tool message.
        """
        model = self._checked_model(model)
        request = TurnRequest(
            model_id=model.id,
            system_prompt=system_prompt,
            conversation_id=checked_id(conversation_id),
            owner=owner,
            key=key_for(idempotency_key, [], "regenerate", system_prompt, model.id),
            revision=checked_revision(revision),
        )
        turn = RegenerateTurn(self.store, self._options, request)
        return self._events(turn.steps(), model)

    def edit(
        self,
        conversation_id: str,
        seq: int,
        message: str | Message,
        *,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
        revision: int | None = None,
        keep_branch: bool = False,
    ) -> E:
        """Replace the user's message at ``seq``, and all messages after it, with ``message``.

        The turn runs as in ``stream``, and raises the same errors.

        Args:
            conversation_id: The conversation.
            seq: The seq of the message.
            message: The message to store in its place.
            owner: The conversation's owner, as for ``stream``.
            system_prompt: The system prompt for this turn, instead of the chat's.
            model: The model for this turn, instead of the chat's.
            revision: Replace it only if the conversation's revision is exactly this.
            keep_branch: True to copy the conversation first, as ``fork`` of the store does. The
                event ``Started`` names the copy. If the edit then fails, the copy may stay.

        Raises:
            Conflict: The revision is not ``revision``.
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
            revision=checked_revision(revision),
        )
        turn = EditTurn(self.store, self._options, request, seq, keep_branch=keep_branch)
        return self._events(turn.steps(), model)

    def stream_without_saving(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
        must_exist: bool = False,
    ) -> E:
        """Run a turn without storing it, and yield its events.

        The model sees the conversation ``conversation_id``, if one is given. Hooks are not called.
        The arguments and the other errors are those of ``stream``.

        Raises:
            NotFound: The conversation belongs to another owner, or does not exist although it must
                or no owner is given.
        """
        model = self._checked_model(model)
        request = TurnRequest(
            model_id=model.id,
            system_prompt=system_prompt,
            conversation_id=conversation_id,
            owner=owner,
            messages=checked_messages(messages),
            must_exist=must_exist,
        )
        return self._events(unsaved_turn(self.store, self._options, request), model)

    def is_replying(self, messages: Sequence[StoredMessage]) -> bool:
        """Return whether a process is writing a reply in the conversation that ends with these.

        ``messages`` are its last messages, such as those that ``tail`` of a store returns.
        """
        turn = last_turn(messages, self._options)
        return turn is not None and turn.is_running

    def stop_here(self, started: Started) -> bool:
        """Stop the turn that began with ``started``, as ``stop`` does, if this chat is running it.

        Returns whether it is. A turn that is not stored cannot be stopped; its caller leaves it.
        """
        key = (started.conversation_id or "", started.reply_id or "")
        stop = self._stop_functions.get(key)
        if stop is None:
            return False
        stop()
        return True

    @abstractmethod
    def _events(self, turn: Turn, model: M) -> E:
        """Run the turn and yield its events."""

    @abstractmethod
    def _collect(self, events: E) -> R: ...

    def _checked_model(self, model: M | None) -> M:
        if model is None:
            return self.model
        check_model(model, method="stream" if self._is_async else "stream_sync")
        return model

    def _stop(
        self, conversation_id: str, owner: str | None, idempotency_key: str | None
    ) -> Steps[bool]:
        functions = list(self._stop_functions.items())
        return stop_turn(
            self.store,
            self._options,
            conversation_id,
            owner,
            {reply_id: stop for (id, reply_id), stop in functions if id == conversation_id},
            idempotency_key=checked_idempotency_key(idempotency_key),
        )

    def _fork(
        self, conversation_id: str, at: int | None, owner: str | None, idempotency_key: str | None
    ) -> Steps[Conversation]:
        return fork_without_turn(
            self.store,
            self._options,
            conversation_id,
            at=at,
            owner=owner,
            idempotency_key=idempotency_key,
        )

    def _last_turn(self, conversation_id: str, owner: str | None) -> Steps[LastTurn | None]:
        limit = self._options.read_limit
        tail = yield partial(self.store.tail, conversation_id, limit, owner=owner)
        return last_turn(tail.messages, self._options)

    def _usage(self, conversation_id: str, owner: str | None) -> Steps[Usage]:
        limit = self._options.read_limit
        tail = yield partial(self.store.tail, conversation_id, limit, owner=owner)
        return total_usage(tail.messages) or Usage(0, 0)


class Chat(AnyChat[AsyncStore, Model, AsyncGenerator[Event, None], Coroutine[Any, Any, Reply]]):
    """A chat, which runs turns with any async store and any model.

    A turn yields ``Started`` once the user's message is stored, then the pieces of the reply, then
    ``Finished`` once the reply is stored too. However a turn ends, the next one works:

    - The model fails: the part of the reply received so far is stored with the ``stop_reason``
      ``failed`` in ``extra``, and the caller gets the error. If there is no part yet, only the
      user's message stays. The same message sent again is not stored twice, and replaces that part.
    - The caller leaves (closes the generator or is cancelled), or the turn is stopped: the part
      received so far is stored with the ``stop_reason`` ``stopped``.
    - The turn reaches its ``time_limit``: the part received so far is stored with ``timed_out``. If
      there is no part yet, the caller gets ``ModelTimeout``.
    - The process dies: the conversation accepts a new turn once the turn's ``lease`` has ended, and
      at once on the same machine, if that is Linux.
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

    async def stop(
        self, conversation_id: str, *, owner: str | None = None, idempotency_key: str | None = None
    ) -> bool:
        """Stop the turn that is running in the conversation; return whether there was one.

        The part of the reply received so far is stored, and the turn's caller gets
        ``Finished("stopped")``. A turn in another process loses its lease at once, so that the next
        turn can start; it ends within half of its lease.

        Args:
            conversation_id: The conversation.
            owner: Its owner, as for ``stream``.
            idempotency_key: For a day, and as long as it is among the last 100 of the conversation,
                calling again with the same key returns the same, and stops no other turn than the
                first call.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
        """
        return await arun(self._stop(conversation_id, owner, idempotency_key))

    async def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        """Copy the conversation to a new one, up to the message ``at``, as ``fork`` of the store.

        A turn that is running in the original does not run in the copy, whose next turn can start
        at once.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
            KeyReused: The key was used for another call.
        """
        return await arun(self._fork(conversation_id, at, owner, idempotency_key))

    async def last_turn(self, conversation_id: str, *, owner: str | None = None) -> LastTurn | None:
        """Return the last turn of the conversation with its reply, or None if there is none.

        Only the last messages that a turn reads are searched for it.

        Raises:
            NotFound: There is no such conversation, or it belongs to another owner.
        """
        return await arun(self._last_turn(conversation_id, owner))

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

    def _events(self, turn: Turn, model: Model) -> AsyncGenerator[Event, None]:
        return self._runner.run(turn, model, self._stop_functions)

    def _collect(self, events: AsyncGenerator[Event, None]) -> Coroutine[Any, Any, Reply]:
        return collect(events)


class SyncChat(AnyChat[Store, SyncModel, Generator[Event, None, None], Reply]):
    """A chat with a sync store and a sync model, and with the methods of ``Chat``.

    Each call to the model runs in a thread of its own. The caller leaves a turn by closing the
    generator or by a ``KeyboardInterrupt``.
    """

    _is_async = False

    def stop(
        self, conversation_id: str, *, owner: str | None = None, idempotency_key: str | None = None
    ) -> bool:
        return run(self._stop(conversation_id, owner, idempotency_key))

    def fork(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        return run(self._fork(conversation_id, at, owner, idempotency_key))

    def last_turn(self, conversation_id: str, *, owner: str | None = None) -> LastTurn | None:
        return run(self._last_turn(conversation_id, owner))

    def usage(self, conversation_id: str, *, owner: str | None = None) -> Usage:
        return run(self._usage(conversation_id, owner))

    def _events(self, turn: Turn, model: SyncModel) -> Generator[Event, None, None]:
        return run_turn(turn, model, self._stop_functions)

    def _collect(self, events: Generator[Event, None, None]) -> Reply:
        return collect_sync(events)


SyncChat.stop.__doc__ = Chat.stop.__doc__
SyncChat.fork.__doc__ = Chat.fork.__doc__
SyncChat.last_turn.__doc__ = Chat.last_turn.__doc__
SyncChat.usage.__doc__ = Chat.usage.__doc__


# Arguments ----------------------------------------------------------------------------------------

_NOT_MESSAGES = (
    "messages must be a string, a Message of role 'user' or 'tool', or a list of such messages."
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
    return [without_metadata(message) for message in given]


def key_for(
    idempotency_key: str | None, messages: Sequence[Message], *more: str | None
) -> RequestKey | None:
    """Return the key with the digest of the request, which consists of ``messages`` and ``more``.

    Raises ``InvalidArgument`` if the key is not valid.
    """
    checked_idempotency_key(idempotency_key)
    if idempotency_key is None:
        return None
    digest = request_digest(messages, *more)
    return RequestKey(idempotency_key, digest)


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


def _described(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}, not an object"
    return f"of type {type(value).__name__}"
