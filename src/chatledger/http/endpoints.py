"""The endpoints of the API, each written once for all web frameworks.

An endpoint takes the store and the parts of a request, and returns the steps that lead to the body
of the response. A framework reads the request, runs the steps, and sends the body.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

from chatledger.chat import Reply
from chatledger.chat.chat import AnyChat
from chatledger.conversations import MAX_REVISION, Conversation, Listing, Page, Tail
from chatledger.errors import ModelRefused, NotFound, UnknownModel
from chatledger.http.api import MAX_PAGE_SIZE, ChatRequest, CreateRequest, Query
from chatledger.http.errors import ApiError
from chatledger.messages import Message
from chatledger.models import Models, OpenedModel
from chatledger.models.protocol import Finished
from chatledger.sansio import Steps
from chatledger.stores.contract import AsyncStore, Store
from chatledger.values import new_id, uuid_from_key

AnyStore: TypeAlias = Store | AsyncStore
Body: TypeAlias = dict[str, Any]
Events = TypeVar("Events")


def check_health(store: AnyStore) -> Steps[Body]:
    with suppress(NotFound):
        yield partial(store.get, "health")
    return HEALTHY


def create_conversation(store: AnyStore, request: CreateRequest) -> Steps[Body]:
    created = yield partial(store.create, owner=request.user_id, title=request.title)
    return {"conversation_id": created.id}


def list_conversations(store: AnyStore, query: Query) -> Steps[Body]:
    owner = query.user_id()
    if owner is None:
        raise ApiError(400, "invalid_request", "The parameter user_id is missing.")
    limit = query.number("limit", most=MAX_PAGE_SIZE, default=20)
    listing = yield partial(store.list, owner, limit=limit, cursor=query.get("cursor"))
    return listing_body(listing)


def read_conversation(store: AnyStore, conversation_id: str, query: Query) -> Steps[Body]:
    owner = query.user_id()
    limit = query.number("limit", most=MAX_PAGE_SIZE, default=MAX_PAGE_SIZE)
    if query.get("before") is None:
        tail = yield partial(store.tail, conversation_id, limit, owner=owner)
        return tail_body(tail)
    before = query.number("before", most=MAX_REVISION)
    conversation = yield partial(store.get, conversation_id, owner=owner)
    page = yield partial(store.page, conversation_id, before=before, limit=limit, owner=owner)
    return conversation_body(conversation, page)


def delete_conversation(store: AnyStore, conversation_id: str, query: Query) -> Steps[Body]:
    yield partial(store.delete, conversation_id, owner=query.user_id())
    return DELETED


# Turns --------------------------------------------------------------------------------------------


def start_turn(
    chat: AnyChat[Any, Any, Events, Any],
    models: Models,
    request: ChatRequest,
    idempotency_key: str | None,
) -> Events:
    """Return the events of the requested turn, as ``chat.stream`` does.

    A turn without a user and a conversation is not stored, unless ``save_history`` is true. Take
    the first event within ``explain_unknown_conversation``.

    Raises:
        ApiError: There is an idempotency key, but the reply is not saved and so cannot be returned
            again.
    """
    model = _requested_model(models, request.model_id)
    owner, conversation_id = request.user_id, request.conversation_id
    is_named = owner is not None or conversation_id is not None
    saves = is_named if request.save_history is None else request.save_history
    if saves and not is_named:
        # The same key gives the same owner, so that the stored reply is found again.
        anonymous_id = uuid_from_key("anonymous", idempotency_key) if idempotency_key else new_id()
        owner = f"anonymous-{anonymous_id}"
    if not saves and idempotency_key is not None:
        raise ApiError(
            422,
            "nothing_kept",
            "An Idempotency-Key needs a reply that is saved; add a user_id or a conversation_id, "
            "and do not set save_history to false.",
        )
    stream = (
        partial(chat.stream, idempotency_key=idempotency_key)
        if saves
        else chat.stream_without_saving
    )
    return stream(
        request.message,
        conversation_id=conversation_id,
        owner=owner,
        system_prompt=request.system_prompt,
        model=model,
    )


@contextmanager
def explain_unknown_conversation(request: ChatRequest) -> Iterator[None]:
    """Raise ``ApiError`` instead of ``NotFound`` if the request names no user to own a new one."""
    try:
        yield
    except NotFound as missing:
        if request.user_id is not None:
            raise
        raise ApiError(
            400, "unknown_conversation", "There is no such conversation; add a user_id to start it."
        ) from missing


def _requested_model(models: Models, model_id: str | None) -> OpenedModel:
    try:
        return models.get(model_id)
    except UnknownModel as unknown:
        if model_id is not None and model_id not in models:
            raise
        # The model is configured but cannot be opened, which only the operator can fix.
        raise ModelRefused(str(unknown)) from unknown


# Response bodies, and the headers of every response ----------------------------------------------


SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

WELCOME = {
    "message": "Welcome to the Chatledger chatbot API",
    "documentation": "/openapi.json",
    "health": "/health",
}
HEALTHY = {"status": "healthy"}
DELETED = {"message": "Conversation deleted successfully"}

INTERRUPTED = ("stopped", "failed", "timed_out")
"""The stop reasons of replies that ended before the model had finished."""


def reply_body(reply: Reply) -> dict[str, Any]:
    """Return the body for a reply; it has a ``stop_reason`` unless that is ``end_turn``."""
    body: dict[str, Any] = {"response": reply.text, "conversation_id": reply.conversation_id}
    if reply.finished.stop_reason != "end_turn":
        body["stop_reason"] = reply.finished.stop_reason
    return body


def done_body(finished: Finished) -> dict[str, Any]:
    """Return the data of the ``done`` event that ends a streamed reply."""
    usage = finished.usage
    return {"stop_reason": finished.stop_reason, "usage": None if usage is None else usage.counts}


def tail_body(tail: Tail) -> dict[str, Any]:
    """Return the body for a conversation and its last messages."""
    newest_first = tail.messages[::-1]
    has_more = len(newest_first) < tail.conversation.message_count
    page = Page(newest_first, newest_first[-1].seq if has_more else None)
    return conversation_body(tail.conversation, page)


def conversation_body(conversation: Conversation, page: Page) -> dict[str, Any]:
    """Return the body for a conversation and a page of its messages, read newest first."""
    body: dict[str, Any] = {
        "conversation_id": conversation.id,
        "user_id": conversation.owner,
        "title": conversation.title,
        "created_at": conversation.created_at.isoformat(timespec="milliseconds"),
        "updated_at": conversation.updated_at.isoformat(timespec="milliseconds"),
        "messages": [_message_body(message) for message in reversed(page.messages)],
        "metadata": {"message_count": conversation.message_count},
    }
    # Included only if there are earlier messages; to get them, clients send it as ``before``.
    if page.next is not None:
        body["next"] = page.next
    return {"conversation": body}


def listing_body(listing: Listing) -> dict[str, Any]:
    """Return the body for a list of conversations."""
    return {
        "conversations": [
            {
                "conversation_id": conversation.id,
                "title": conversation.title,
                "created_at": conversation.created_at.isoformat(timespec="milliseconds"),
                "updated_at": conversation.updated_at.isoformat(timespec="milliseconds"),
                "message_count": conversation.message_count,
            }
            for conversation in listing.conversations
        ],
        "cursor": listing.cursor,
    }


def _message_body(message: Message) -> dict[str, Any]:
    body = {
        "role": message.role,
        "content": message.content,
        "timestamp": message.created_at.isoformat(timespec="milliseconds"),
        "id": message.id,
        "seq": message.seq,
    }
    if (reason := message.extra.get("stop_reason")) in INTERRUPTED:
        body["stop_reason"] = reason
    return body
