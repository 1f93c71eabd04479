"""The HTTP contract without a framework: what requests hold, what answers and errors look like."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from recollect.chat import Reply
from recollect.conversations import (
    TITLE_CHARACTERS,
    Conversation,
    Listing,
    Page,
    Tail,
    check_id,
    check_idempotency_key,
    check_number,
)
from recollect.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    KeyReused,
    MessageTooLarge,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    RecollectError,
    StoreUnavailable,
    TurnInProgress,
    UnknownModel,
)
from recollect.messages import Message
from recollect.models.contract import Finished

MESSAGE_CHARACTERS = 32_000
"""The longest message and system prompt that are taken."""
BODY_BYTES = 256 * 1024
"""The longest body that is read."""
RETRY_SECONDS = 5.0
"""When to try again, where nothing says how long it will take."""
LIMIT = 100
"""The most conversations or messages that one answer holds."""

OPEN = frozenset({"/", "/health", "/openapi.json"})
"""The paths that nobody signs in for; the files of the page are such too."""

WELCOME = {
    "message": "Welcome to the Recollect chatbot API",
    "documentation": "/openapi.json",
    "health": "/health",
}
HEALTHY = {"status": "healthy"}
DELETED = {"message": "Conversation deleted successfully"}


# Requests -----------------------------------------------------------------------------------------


def is_open(path: str) -> bool:
    """Whether a path, percent-decoded, holds nothing that one must sign in for."""
    return path in OPEN or path.startswith("/page/")


class Refused(Exception):
    """A request that is answered with an error: a status, a code, and a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        sentence: str,
        *,
        retry_after: float | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self._retry_after = retry_after
        self._challenge = challenge

    @property
    def body(self) -> dict[str, str]:
        return {"error": str(self), "code": self.code}

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` where trying again later helps, and ``WWW-Authenticate`` where signing in
        does (RFC 9110)."""
        headers = {} if self._challenge is None else {"WWW-Authenticate": self._challenge}
        seconds = self._retry_after
        if seconds is None and self.status in (429, 503, 504):
            seconds = RETRY_SECONDS
        if seconds is not None:
            headers["Retry-After"] = str(max(math.ceil(seconds), 1))
        return headers


def _id(value: str) -> str:
    check_id(value, "It")
    return value


def _spoken(value: str) -> str:
    if not value.strip():
        raise InvalidArgument("It is blank; write something.")
    return value


Id = Annotated[str, AfterValidator(_id)]
Text = Annotated[str, Field(max_length=MESSAGE_CHARACTERS)]


class _Request(BaseModel):
    # Strict: a number is no text, and "false" is not False.
    model_config = ConfigDict(strict=True)


class ChatRequest(_Request):
    message: Annotated[Text, AfterValidator(_spoken)]
    conversation_id: Id | None = None
    user_id: Id | None = None
    model_id: str | None = None
    system_prompt: Text | None = None
    save_history: bool | None = None


class CreateRequest(_Request):
    user_id: Id
    title: Annotated[str, Field(max_length=TITLE_CHARACTERS)] | None = None


R = TypeVar("R", bound=_Request)


def parsed(
    kind: type[R], body: bytes, content_type: str | None, *, signed_in: str | None = None
) -> R:
    """The request in ``body``. Raises ``Refused``; its sentence repeats nothing of the body.

    Where a user is ``signed_in``, the request is theirs, and may name nobody else.
    """
    # A page of another site may send a form or plain text without asking first, but not this.
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(400, "not_json", "Send JSON, with the header Content-Type: application/json.")
    if len(body) > BODY_BYTES:
        raise too_large()
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "not_json", "The body is not valid JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise Refused(400, "not_an_object", "The body must be a JSON object.")
    if value.get("user_id") is None and signed_in is not None:
        value["user_id"] = signed_in
    try:
        request = kind.model_validate(value)
    except ValidationError as failed:
        raise Refused(422, "invalid_request", _sentence(failed)) from None
    _check_user(value.get("user_id"), signed_in)
    return request


def query(
    parameters: Sequence[tuple[str, str]],
    known: Sequence[str],
    required: Sequence[str] = (),
    *,
    signed_in: str | None = None,
) -> dict[str, str]:
    """The known parameters of a query. Raises ``Refused`` where one is missing or comes twice.

    Where a user is ``signed_in``, they are the ``user_id``, and nobody else may be named.
    """
    found: dict[str, str] = {}
    for name, value in parameters:
        if name in found:
            raise Refused(400, "invalid_request", f"The parameter {name} is given twice.")
        if name in known:
            found[name] = value
    if signed_in is not None:
        found.setdefault("user_id", signed_in)
    for name in required:
        if name not in found:
            raise Refused(400, "invalid_request", f"The parameter {name} is missing.")
    if "user_id" in found:
        check_id(found["user_id"], "user_id")
    _check_user(found.get("user_id"), signed_in)
    return found


def _check_user(named: object, signed_in: str | None) -> None:
    if signed_in not in (None, named):
        raise Refused(403, "wrong_user", "The user_id is not you, who signed in; leave it out.")


def number(
    parameters: Mapping[str, str], name: str, *, most: int, default: int | None = None
) -> int:
    """The parameter as an int of 1 to ``most``. Raises ``InvalidArgument``."""
    text = parameters.get(name)
    if text is None and default is not None:
        return default
    # int() takes other digits, signs, blanks and underscores too.
    if not (text and text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidArgument(f"{name} must be 1 to {most:,}.")
    check_number(int(text), name, least=1, most=most)
    return int(text)


def too_large() -> Refused:
    return Refused(413, "too_large", f"The body may have at most {BODY_BYTES // 1024} KiB.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        # Which of the two is meant differs from one reader of JSON to the next.
        raise ValueError
    return value


def _no_constant(name: str) -> None:
    raise ValueError  # NaN and Infinity are Python's, not JSON's


def _sentence(failed: ValidationError) -> str:
    error = failed.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing":
            return f"The field {field} is missing."
        case "string_too_long":
            return f"The field {field} may have at most {error['ctx']['max_length']:,} characters."
        case "value_error":
            return f"The field {field} is wrong: {error['ctx']['error']}"
        case "bool_type":
            return f"The field {field} must be true or false."
    return f"The field {field} must be text."


def idempotency_key(given: Sequence[str]) -> str | None:
    """The value of the header ``Idempotency-Key``. Raises ``Refused``."""
    if len(given) > 1:
        raise Refused(400, "invalid_request", "The header Idempotency-Key is given twice.")
    try:
        check_idempotency_key(given[0] if given else None)
    except InvalidArgument as wrong:
        raise Refused(
            422, "invalid_request", f"The header Idempotency-Key is wrong: {wrong}"
        ) from None
    return given[0] if given else None


# Answers ------------------------------------------------------------------------------------------


BROKEN_OFF = ("stopped", "failed", "timed_out")
"""How a reply ended that is not all that the model had to say."""


def replied(reply: Reply) -> dict[str, Any]:
    """The reply as a whole; ``stop_reason`` is there where it was cut short."""
    body: dict[str, Any] = {"response": reply.text, "conversation_id": reply.conversation_id}
    if reply.finished.stop_reason != "end_turn":
        body["stop_reason"] = reply.finished.stop_reason
    return body


def done(finished: Finished) -> dict[str, Any]:
    """How a reply ended that was streamed."""
    usage = finished.usage
    return {
        "stop_reason": finished.stop_reason,
        "usage": None if usage is None else usage.counts,
    }


def shown_tail(tail: Tail) -> dict[str, Any]:
    """A conversation with its last messages."""
    newest_first = tail.messages[::-1]
    more = len(newest_first) < tail.conversation.message_count
    return shown(tail.conversation, Page(newest_first, newest_first[-1].seq if more else None))


def shown(conversation: Conversation, page: Page) -> dict[str, Any]:
    """A conversation with the messages of ``page``, a page that was read newest first."""
    body: dict[str, Any] = {
        "conversation_id": conversation.id,
        "user_id": conversation.owner,
        "title": conversation.title,
        "created_at": conversation.created_at.isoformat(timespec="milliseconds"),
        "updated_at": conversation.updated_at.isoformat(timespec="milliseconds"),
        "messages": [_message(message) for message in reversed(page.messages)],
        "metadata": {"message_count": conversation.message_count},
    }
    # Only where there are earlier ones: pass it as ``before``.
    if page.next is not None:
        body["next"] = page.next
    return {"conversation": body}


def listed(listing: Listing) -> dict[str, Any]:
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


def _message(message: Message) -> dict[str, Any]:
    body = {
        "role": message.role,
        "content": message.content,
        "timestamp": message.created_at.isoformat(timespec="milliseconds"),
        "id": message.id,
        "seq": message.seq,
    }
    if (reason := message.extra.get("stop_reason")) in BROKEN_OFF:
        body["stop_reason"] = reason
    return body


# Errors -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    status: int
    code: str
    sentence: str | None = None


# The first that fits. Without a sentence the error's own is shown, which holds nothing secret.
_RULES: dict[type[RecollectError], _Rule] = {
    NotFound: _Rule(404, "not_found", "There is no such conversation."),
    AlreadyExists: _Rule(409, "already_exists", "There is such a conversation already."),
    Conflict: _Rule(409, "conflict", "Somebody else was first; look again and retry."),
    MessageTooLarge: _Rule(413, "too_large", "The message is too large."),
    UnknownModel: _Rule(400, "unknown_model"),
    KeyReused: _Rule(422, "idempotency_key_reused"),
    InvalidArgument: _Rule(422, "invalid_request"),
    StoreUnavailable: _Rule(
        503, "store_unavailable", "The conversations cannot be reached; try again later."
    ),
    TurnInProgress: _Rule(
        409, "turn_in_progress", "A reply in this conversation is still being written."
    ),
    ModelThrottled: _Rule(
        429, "model_throttled", "The model has too much to do; try again in a moment."
    ),
    ModelTimeout: _Rule(504, "model_timeout", "The model took too long; try again."),
    ModelRefused: _Rule(
        502,
        "model_refused",
        "The model does not take this conversation as it stands; whoever runs this server must "
        "look at how the model is set up.",
    ),
    ModelUnavailable: _Rule(
        503, "model_unavailable", "The model does not answer; try again later."
    ),
}
UNKNOWN = Refused(500, "internal_error", "Something went wrong here; try again later.")


def refusal(error: Exception) -> Refused:
    """What a client is told of ``error``; of one that we do not know, nothing."""
    if isinstance(error, Refused):
        return error
    for kind, rule in _RULES.items():
        if isinstance(error, kind):
            return Refused(
                rule.status,
                rule.code,
                rule.sentence or str(error),
                retry_after=getattr(error, "retry_after", None),
            )
    return UNKNOWN
