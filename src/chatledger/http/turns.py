"""Which turn a chat request asks for."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

from chatledger.chat import Chat, Event, SyncChat
from chatledger.chat.any_chat import AnyChat
from chatledger.errors import ModelRefused, NotFound, UnknownModel
from chatledger.http.api import ChatRequest
from chatledger.http.errors import Refused
from chatledger.messages import new_id
from chatledger.models import Models, OpenedModel

Events = TypeVar("Events")


async def turn(
    chat: Chat, models: Models, request: ChatRequest, *, idempotency_key: str | None = None
) -> AsyncGenerator[Event, None]:
    """The turn, its events as ``Chat`` streams them.

    Where nobody is named there is nobody to keep it for: a one-off answer, unless history is
    asked for. Raises ``Refused`` where a conversation that is not there would start for nobody, or
    where a key comes with a one-off answer: nothing of it is kept that a second one could get.
    """
    events: AsyncGenerator[Event, None] = _events(chat, models, request, idempotency_key)
    try:
        async for event in events:
            yield event
    except NotFound as missing:
        if request.user_id is None:
            raise _unknown() from missing
        raise
    finally:
        await events.aclose()


def turn_sync(
    chat: SyncChat, models: Models, request: ChatRequest, *, idempotency_key: str | None = None
) -> Generator[Event, None, None]:
    """As ``turn``, of a ``SyncChat``."""
    events: Generator[Event, None, None] = _events(chat, models, request, idempotency_key)
    try:
        yield from events
    except NotFound as missing:
        if request.user_id is None:
            raise _unknown() from missing
        raise


def _events(
    chat: AnyChat[Any, Any, Events],
    models: Models,
    request: ChatRequest,
    idempotency_key: str | None,
) -> Events:
    model = _model(models, request.model_id)
    owner, conversation_id = request.user_id, request.conversation_id
    named = owner is not None or conversation_id is not None
    kept = named if request.save_history is None else request.save_history
    if kept and not named:
        owner = f"anonymous-{_id_for(idempotency_key)}"
    if kept:
        return chat.stream(
            request.message,
            conversation_id=conversation_id,
            owner=owner,
            system_prompt=request.system_prompt,
            model=model,
            idempotency_key=idempotency_key,
        )
    if idempotency_key is not None:
        raise Refused(
            422,
            "nothing_kept",
            "An Idempotency-Key needs a reply that is kept; name a user_id or a conversation_id.",
        )
    return chat.stream_unkept(
        request.message,
        conversation_id=conversation_id,
        owner=owner,
        system_prompt=request.system_prompt,
        model=model,
    )


def _model(models: Models, model_id: str | None) -> OpenedModel:
    try:
        return models.get(model_id)
    except UnknownModel as wrong:
        if model_id is not None and model_id not in models:
            raise
        # It may be asked for: why it cannot be opened is the affair of whoever runs this.
        raise ModelRefused(str(wrong)) from wrong


def _unknown() -> Refused:
    return Refused(
        400, "unknown_conversation", "There is no such conversation; name a user_id to start it."
    )


def _id_for(idempotency_key: str | None) -> str:
    """An id that nobody has, or for one key always the same."""
    if idempotency_key is None:
        return new_id()
    return str(uuid5(NAMESPACE_URL, f"chatledger:anonymous:{idempotency_key}"))
