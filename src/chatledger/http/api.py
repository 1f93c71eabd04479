"""The HTTP API without a web framework: requests, endpoints and responses.

An endpoint is written once for all frameworks: it takes the store and the parsed parts of a
request, and returns the steps that lead to the body of the response. A framework reads the request,
runs the steps, and sends the body.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Any, TypeAlias, TypeVar

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import fields as fields_of

from chatledger.chat import Reply
from chatledger.chat.chat import AnyChat
from chatledger.conversations import (
    MAX_ID_BYTES,
    MAX_REVISION,
    MAX_TITLE_CHARACTERS,
    Conversation,
    Listing,
    Page,
    Tail,
)
from chatledger.errors import InvalidArgument, ModelRefused, NotFound, UnknownModel
from chatledger.http.errors import ApiError
from chatledger.messages import Message
from chatledger.models import Models, OpenedModel
from chatledger.models.protocol import Finished
from chatledger.sansio import Steps
from chatledger.stores.arguments import checked_id, checked_idempotency_key, checked_number
from chatledger.stores.contract import AnyStore
from chatledger.values import checked_text, new_id, uuid_from_key

MAX_MESSAGE_CHARACTERS = 32_000
"""The longest message or system prompt that a request may contain."""
MAX_BODY_BYTES = 256 * 1024
"""The longest request body that is accepted."""
MAX_PAGE_SIZE = 100
"""The largest number of conversations or messages in one response."""

CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key")
"""The request headers that pages of an allowed origin may send."""
CORS_RESPONSE_HEADERS = ("Retry-After", "WWW-Authenticate", "x-amzn-Remapped-WWW-Authenticate")
"""The response headers that those pages may read.

API Gateway renames the ``WWW-Authenticate`` header of a Lambda function to
``x-amzn-Remapped-WWW-Authenticate``.
"""
PREFLIGHT_SECONDS = 600
"""The time for which browsers may cache the response to a CORS preflight request."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The headers of every response, unless it has its own."""

PUBLIC_PATHS = frozenset({"/", "/health", "/openapi.json"})
"""The paths that need no sign-in, apart from the files of the page."""


def is_public(path: str) -> bool:
    """Return whether the percent-decoded ``path`` can be requested without signing in."""
    return path in PUBLIC_PATHS or path.startswith("/page/")


LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""The usual names of this machine, as they are written in ``Host`` headers."""


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is "localhost" or a loopback address, with or without brackets."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
Text = Annotated[str, Meta(max_length=MAX_MESSAGE_CHARACTERS)]
Title = Annotated[str, Meta(max_length=MAX_TITLE_CHARACTERS)]

_ID = Meta(description=f"text of 1 to {MAX_ID_BYTES:,} bytes in UTF-8")
_TEXT = Meta(description=f"text of at most {MAX_MESSAGE_CHARACTERS:,} characters")


class RequestBody(Struct, frozen=True, kw_only=True):
    """The base of the request bodies.

    Each field's description completes the error sentence "The field ... must be ...".
    """

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in ("user_id", "conversation_id") and value is not None:
                checked_id(value, name)
            elif isinstance(value, str):
                checked_text(value, name, error=InvalidArgument)


class ChatRequest(RequestBody, frozen=True, kw_only=True):
    """The body of a request for a turn."""

    message: Annotated[
        Text,
        Meta(
            pattern=r"\S",
            description=f"text of 1 to {MAX_MESSAGE_CHARACTERS:,} characters that is not blank",
        ),
    ]
    conversation_id: Annotated[Id | None, _ID] = None
    user_id: Annotated[Id | None, _ID] = None
    model_id: Annotated[str | None, Meta(description="the name of a model")] = None
    system_prompt: Annotated[Text | None, _TEXT] = None
    save_history: Annotated[bool | None, Meta(description="true or false")] = None


class CreateRequest(RequestBody, frozen=True, kw_only=True):
    """The body of a request for a new conversation."""

    user_id: Annotated[Id, _ID]
    title: Annotated[
        Title | None, Meta(description=f"text of at most {MAX_TITLE_CHARACTERS:,} characters")
    ] = None


RequestT = TypeVar("RequestT", bound=RequestBody)


def parse_body(
    kind: type[RequestT],
    body: bytes,
    content_type: str | None,
    *,
    signed_in_user: str | None = None,
) -> RequestT:
    """Parse and check a request body.

    Args:
        kind: The type of the request body.
        body: The body as it was sent.
        content_type: The request's ``Content-Type`` header, if any.
        signed_in_user: The user whom the request's token names: the default of ``user_id``, and the
            only value it may have.

    Raises:
        ApiError: The body is not a valid request. The error's text repeats no part of the body.
        InvalidArgument: An id or a text in the body is not valid.
    """
    # Browsers let a page of another site send forms and plain text without a CORS preflight, but
    # not JSON.
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(400, "not_json", "Send JSON with the header Content-Type: application/json.")
    if len(body) > MAX_BODY_BYTES:
        raise body_too_large()
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_unique_keys, parse_constant=_reject_constant
        )
    except (ValueError, RecursionError):
        raise ApiError(400, "not_json", "The body is not valid JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "not_an_object", "The body must be a JSON object.")
    if value.get("user_id") is None and signed_in_user is not None:
        value["user_id"] = signed_in_user
    fields = _converted_fields(kind, value)
    request = kind(**fields)
    _check_user(fields.get("user_id"), signed_in_user)
    return request


class Query:
    """The query of a request; parameters that an endpoint does not ask for are ignored.

    Args:
        parameters: The names and decoded values, in the order of the query.
        signed_in_user: The default of ``user_id``, and the only value it may have.
    """

    def __init__(
        self, parameters: Sequence[tuple[str, str]], *, signed_in_user: str | None = None
    ) -> None:
        self._parameters = parameters
        self._signed_in_user = signed_in_user

    def get(self, name: str) -> str | None:
        """Return the parameter, or None if it is missing; raise ``ApiError`` if it occurs twice."""
        values = [value for given, value in self._parameters if given == name]
        if len(values) > 1:
            raise ApiError(
                400, "invalid_request", f"The parameter {name} is given more than once; send one."
            )
        return values[0] if values else None

    def user_id(self) -> str | None:
        """Return the user, or None if the request names none.

        Raises:
            ApiError: The parameter occurs twice, or is not the signed-in user.
            InvalidArgument: It is not a valid id.
        """
        user_id = self.get("user_id")
        if user_id is None:
            return self._signed_in_user
        checked_id(user_id, "user_id")
        _check_user(user_id, self._signed_in_user)
        return user_id

    def number(self, name: str, *, most: int, default: int | None = None) -> int:
        """Return the parameter as an int; raise ``InvalidArgument`` if it is out of range."""
        text = self.get(name)
        if text is None and default is not None:
            return default
        # int() also accepts digits of other scripts, signs, blanks and underscores.
        if not (text and text.isascii() and text.isdigit() and len(text) <= 16):
            raise InvalidArgument(f"{name} must be 1 to {most:,}.")
        checked_number(int(text), name, least=1, most=most)
        return int(text)


def _check_user(user_id: object, signed_in_user: str | None) -> None:
    if signed_in_user not in (None, user_id):
        raise ApiError(403, "wrong_user", "The user_id is not the signed-in user; leave it out.")


def body_too_large() -> ApiError:
    return ApiError(
        413, "too_large", f"The body is too large; send at most {MAX_BODY_BYTES // 1024} KiB."
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        # JSON parsers disagree on which of two values with the same key to use.
        raise ValueError
    return value


def _reject_constant(name: str) -> None:
    raise ValueError  # Python accepts NaN and Infinity, JSON does not


def _converted_fields(kind: type[RequestBody], value: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields of ``kind`` in ``value``, converted to their types.

    Raises ``ApiError`` if one is missing or not valid.
    """
    converted = {}
    for field in fields_of(kind):
        if field.name not in value and not field.required:
            continue
        try:
            converted[field.name] = convert(value.get(field.name), field.type)
        except ValidationError:
            expected = field.type.__metadata__[-1].description
            sentence = f"The field {field.name} must be {expected}."
            raise ApiError(422, "invalid_request", sentence) from None
    return converted


def parse_idempotency_key(values: Sequence[str]) -> str | None:
    """Return the idempotency key in the ``Idempotency-Key`` headers, or None if there is none.

    Raises ``ApiError`` if there are several headers, or if the key is not valid.
    """
    if len(values) > 1:
        raise ApiError(
            400, "invalid_request", "The header Idempotency-Key is given more than once; send one."
        )
    try:
        checked_idempotency_key(values[0] if values else None)
    except InvalidArgument as invalid:
        raise ApiError(
            422, "invalid_request", f"The header Idempotency-Key is not valid: {invalid}"
        ) from None
    return values[0] if values else None


def parse_authorization(values: Sequence[str]) -> str | None:
    """Return the value of the ``Authorization`` headers, or None if there is none."""
    # Two headers, joined, are not a valid token and sign nobody in.
    return ", ".join(values) or None


# Response bodies ----------------------------------------------------------------------------------

ResponseBody: TypeAlias = dict[str, Any]
"""The body of a response, which is sent as JSON."""

WELCOME = {
    "message": "Welcome to the Chatledger chatbot API",
    "documentation": "/openapi.json",
    "health": "/health",
}
HEALTHY = {"status": "healthy"}
DELETED = {"message": "Conversation deleted successfully"}

INTERRUPTED = ("stopped", "failed", "timed_out")
"""The stop reasons of replies that ended before the model had finished."""


def reply_body(reply: Reply) -> ResponseBody:
    """Return the body for a reply; it has a ``stop_reason`` unless that is ``end_turn``."""
    body: ResponseBody = {"response": reply.text, "conversation_id": reply.conversation_id}
    if reply.finished.stop_reason != "end_turn":
        body["stop_reason"] = reply.finished.stop_reason
    return body


def done_body(finished: Finished) -> ResponseBody:
    """Return the data of the ``done`` event that ends a streamed reply."""
    usage = finished.usage
    return {"stop_reason": finished.stop_reason, "usage": None if usage is None else usage.counts}


def tail_body(tail: Tail) -> ResponseBody:
    """Return the body for a conversation and its last messages."""
    newest_first = tail.messages[::-1]
    has_more = len(newest_first) < tail.conversation.message_count
    page = Page(newest_first, newest_first[-1].seq if has_more else None)
    return conversation_body(tail.conversation, page)


def conversation_body(conversation: Conversation, page: Page) -> ResponseBody:
    """Return the body for a conversation and a page of its messages, read newest first."""
    body: ResponseBody = {
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


def listing_body(listing: Listing) -> ResponseBody:
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


def _message_body(message: Message) -> ResponseBody:
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


# Endpoints ----------------------------------------------------------------------------------------

Events = TypeVar("Events")


def check_health(store: AnyStore) -> Steps[ResponseBody]:
    """Read from the store, which raises an error if it cannot be reached."""
    with suppress(NotFound):
        yield partial(store.get, "health")
    return HEALTHY


def create_conversation(store: AnyStore, request: CreateRequest) -> Steps[ResponseBody]:
    """Create a conversation without messages."""
    created = yield partial(store.create, owner=request.user_id, title=request.title)
    return {"conversation_id": created.id}


def list_conversations(store: AnyStore, query: Query) -> Steps[ResponseBody]:
    """List the user's conversations, a page at a time."""
    owner = query.user_id()
    if owner is None:
        raise ApiError(400, "invalid_request", "The parameter user_id is missing.")
    limit = query.number("limit", most=MAX_PAGE_SIZE, default=20)
    listing = yield partial(store.list, owner, limit=limit, cursor=query.get("cursor"))
    return listing_body(listing)


def read_conversation(store: AnyStore, conversation_id: str, query: Query) -> Steps[ResponseBody]:
    """Return a conversation with its last messages, or with those before ``before``."""
    owner = query.user_id()
    limit = query.number("limit", most=MAX_PAGE_SIZE, default=MAX_PAGE_SIZE)
    if query.get("before") is None:
        tail = yield partial(store.tail, conversation_id, limit, owner=owner)
        return tail_body(tail)
    before = query.number("before", most=MAX_REVISION)
    conversation = yield partial(store.get, conversation_id, owner=owner)
    page = yield partial(store.page, conversation_id, before=before, limit=limit, owner=owner)
    return conversation_body(conversation, page)


def delete_conversation(store: AnyStore, conversation_id: str, query: Query) -> Steps[ResponseBody]:
    """Delete a conversation; with a user, only if it is the user's own."""
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
