"""The turn for a chat request."""

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

from chatledger.chat import Chat, Event, SyncChat
from chatledger.chat.chat import AnyChat
from chatledger.conversations import uuid_from_key
from chatledger.errors import ModelRefused, NotFound, UnknownModel
from chatledger.http.api import ChatRequest
from chatledger.http.errors import ApiError
from chatledger.ids import new_id
from chatledger.models import Models, OpenedModel

Events = TypeVar("Events")


async def stream_turn(
    chat: Chat, models: Models, request: ChatRequest, *, idempotency_key: str | None = None
) -> AsyncGenerator[Event, None]:
    """Run the requested turn and yield its events as ``Chat.stream`` does.

    A turn without a user and a conversation is not stored, unless ``save_history`` is true.

    Raises:
        ApiError: The conversation does not exist and the request names no user to own it; or there
            is an idempotency key, but the reply is not saved and so cannot be returned again.
    """
    events: AsyncGenerator[Event, None] = _turn_events(chat, models, request, idempotency_key)
    try:
        async for event in events:
            yield event
    except NotFound as missing:
        if request.user_id is None:
            raise _unknown_conversation() from missing
        raise
    finally:
        await events.aclose()


def stream_turn_sync(
    chat: SyncChat, models: Models, request: ChatRequest, *, idempotency_key: str | None = None
) -> Generator[Event, None, None]:
    """Run the requested turn as ``stream_turn`` does, with a ``SyncChat``."""
    events: Generator[Event, None, None] = _turn_events(chat, models, request, idempotency_key)
    try:
        yield from events
    except NotFound as missing:
        if request.user_id is None:
            raise _unknown_conversation() from missing
        raise


def _turn_events(
    chat: AnyChat[Any, Any, Events, Any],
    models: Models,
    request: ChatRequest,
    idempotency_key: str | None,
) -> Events:
    model = _requested_model(models, request.model_id)
    owner, conversation_id = request.user_id, request.conversation_id
    is_named = owner is not None or conversation_id is not None
    saves = is_named if request.save_history is None else request.save_history
    if saves and not is_named:
        owner = f"anonymous-{_anonymous_id(idempotency_key)}"
    if saves:
        return chat.stream(
            request.message,
            conversation_id=conversation_id,
            owner=owner,
            system_prompt=request.system_prompt,
            model=model,
            idempotency_key=idempotency_key,
        )
    if idempotency_key is not None:
        raise ApiError(
            422,
            "nothing_kept",
            "An Idempotency-Key needs a reply that is saved; add a user_id or a conversation_id, "
            "and do not set save_history to false.",
        )
    return chat.stream_without_saving(
        request.message,
        conversation_id=conversation_id,
        owner=owner,
        system_prompt=request.system_prompt,
        model=model,
    )


def _requested_model(models: Models, model_id: str | None) -> OpenedModel:
    try:
        return models.get(model_id)
    except UnknownModel as unknown:
        if model_id is not None and model_id not in models:
            raise
        # The model is configured but cannot be opened, which only the operator can fix.
        raise ModelRefused(str(unknown)) from unknown


def _unknown_conversation() -> ApiError:
    return ApiError(
        400, "unknown_conversation", "There is no such conversation; add a user_id to start it."
    )


def _anonymous_id(idempotency_key: str | None) -> str:
    """Return a new id, or the same id each time for the same key."""
    if idempotency_key is None:
        return new_id()
    return uuid_from_key("anonymous", idempotency_key)
