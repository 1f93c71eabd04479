"""What async and sync chats have in common: the turns that they are asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from chatledger.chat.effects import Turn
from chatledger.chat.hooks import Hook
from chatledger.chat.options import LEASE, Terms
from chatledger.chat.requests import Requests
from chatledger.chat.turn_setup import AnyStore
from chatledger.messages import Message
from chatledger.windows import Window, last


class Named(Protocol):
    """A model, as far as it is named."""

    @property
    def id(self) -> str: ...


S = TypeVar("S", bound=AnyStore)
M = TypeVar("M", bound=Named)
E = TypeVar("E", covariant=True)
M_contra = TypeVar("M_contra", bound=Named, contravariant=True)


class Drives(Protocol[M_contra, E]):
    """What drives turns; ``E`` is a generator of their events."""

    def events(self, turn: Turn, model: M_contra, *, stoppable: bool = True) -> E: ...


class AnyChat(ABC, Generic[S, M, E]):
    """Turns over stores ``S`` and models ``M``; each is a generator ``E`` of its events."""

    _driver: Drives[M, E]

    def __init__(
        self,
        store: S,
        model: M,
        *,
        window: Window | None = None,
        system_prompt: str | None = None,
        lease: timedelta = LEASE,
        time_limit: timedelta | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.store = store
        self.model = model
        self._terms = Terms(
            window=window or last(20),
            system_prompt=system_prompt,
            lease=lease,
            time_limit=time_limit,
            hooks=hooks,
        )
        self._requests = Requests(store, self._terms)
        self._driver = self._new_driver()

    @abstractmethod
    def _new_driver(self) -> Drives[M, E]: ...

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
        """A turn in the conversation, which starts for ``owner`` where there is none.

        ``messages`` are a text, or messages of the user or of tools. Without an owner the
        conversation must exist. One that starts is named ``title``, or after its first message.
        ``system_prompt`` and ``model`` are for this turn, instead of the chat's.

        The same ``idempotency_key`` on the same conversation answers with the reply that is stored,
        for a day at least, and asks no model; without a ``conversation_id`` it starts one
        conversation. Where that turn had no reply, or one that failed, it is tried again, unless
        the conversation has gone on since.

        Take each event within the lease: it is renewed while you wait for the next one.

        Raises ``NotFound``, also where it is somebody else's, ``TurnInProgress``, ``KeyReused``
        where the key was used for another message or cannot be tried again, the model's errors
        and the store's.
        """
        model = model or self.model
        turn = self._requests.send(
            messages,
            conversation_id=conversation_id,
            owner=owner,
            system_prompt=system_prompt,
            title=title,
            model=model.id,
            idempotency_key=idempotency_key,
        )
        return self._driver.events(turn, model)

    def regenerate(
        self,
        conversation_id: str,
        *,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
    ) -> E:
        """Another reply to the last message, in the place of those that it had; as ``stream``.

        Raises ``InvalidArgument`` where there is no message to reply to.
        """
        model = model or self.model
        turn = self._requests.regenerate(
            conversation_id, owner=owner, system_prompt=system_prompt, model=model.id
        )
        return self._driver.events(turn, model)

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
        """``message`` in the place of the user's at ``seq`` and of all behind it; as ``stream``.

        Raises ``NotFound`` where there is no such message, and ``InvalidArgument`` where it is not
        the user's.
        """
        model = model or self.model
        turn = self._requests.edit(
            conversation_id, seq, message, owner=owner, system_prompt=system_prompt, model=model.id
        )
        return self._driver.events(turn, model)

    def stream_unkept(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None = None,
        owner: str | None = None,
        system_prompt: str | None = None,
        model: M | None = None,
    ) -> E:
        """A reply that nothing is stored of, in view of the conversation if one is named.

        Without an owner it must exist. Raises ``NotFound``, also where it is somebody else's. Hooks
        are not called.
        """
        model = model or self.model
        turn = self._requests.send_unkept(
            messages, conversation_id=conversation_id, owner=owner, system_prompt=system_prompt
        )
        return self._driver.events(turn, model, stoppable=False)
