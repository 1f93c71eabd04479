"""What requests hold, without a framework; ``answers`` and ``refusals`` are what they get."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import fields as fields_of

from chatledger.conversations import (
    ID_BYTES,
    TITLE_CHARACTERS,
    check_id,
    check_idempotency_key,
    check_number,
)
from chatledger.errors import InvalidArgument
from chatledger.http.errors import Refused
from chatledger.json_values import checked_text

MESSAGE_CHARACTERS = 32_000
"""The longest message and system prompt that are taken."""
BODY_BYTES = 256 * 1024
"""The longest body that is read."""
LIMIT = 100
"""The most conversations or messages that one answer holds."""

SENT_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key")
"""What pages of another site may send, where they may call at all (CORS)."""
SEEN_HEADERS = ("Retry-After", "WWW-Authenticate", "x-amzn-Remapped-WWW-Authenticate")
"""What they may read of an answer; API Gateway gives a function's WWW-Authenticate the last name.
"""
PREFLIGHT_SECONDS = 600

OPEN = frozenset({"/", "/health", "/openapi.json"})
"""The paths that nobody signs in for; the files of the page are such too."""


def is_open(path: str) -> bool:
    """Whether a path, percent-decoded, holds nothing that one must sign in for."""
    return path in OPEN or path.startswith("/page/")


Id = Annotated[str, Meta(min_length=1, max_length=ID_BYTES)]
Text = Annotated[str, Meta(max_length=MESSAGE_CHARACTERS)]
Title = Annotated[str, Meta(max_length=TITLE_CHARACTERS)]

_ID = Meta(description=f"text of 1 to {ID_BYTES:,} bytes in UTF-8")
_TEXT = Meta(description=f"text of at most {MESSAGE_CHARACTERS:,} characters")


class Request(Struct, frozen=True, kw_only=True):
    """The description of a field says what it must be, in errors too."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in ("user_id", "conversation_id") and value is not None:
                check_id(value, name)
            elif isinstance(value, str):
                checked_text(value, name, error=InvalidArgument)


class ChatRequest(Request, frozen=True, kw_only=True):
    message: Annotated[
        Text,
        Meta(
            pattern=r"\S",
            description=f"text of 1 to {MESSAGE_CHARACTERS:,} characters that is not blank",
        ),
    ]
    conversation_id: Annotated[Id | None, _ID] = None
    user_id: Annotated[Id | None, _ID] = None
    model_id: Annotated[str | None, Meta(description="text that names a model")] = None
    system_prompt: Annotated[Text | None, _TEXT] = None
    save_history: Annotated[bool | None, Meta(description="true or false")] = None


class CreateRequest(Request, frozen=True, kw_only=True):
    user_id: Annotated[Id, _ID]
    title: Annotated[
        Title | None, Meta(description=f"text of at most {TITLE_CHARACTERS:,} characters")
    ] = None


R = TypeVar("R", bound=Request)


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
    fields = _checked(kind, value)
    request = kind(**fields)
    _check_user(fields.get("user_id"), signed_in)
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


def _checked(kind: type[Request], value: Mapping[str, object]) -> dict[str, Any]:
    """The fields of a request that are in ``value``. Raises ``Refused``."""
    given = {}
    for field in fields_of(kind):
        if field.name not in value and not field.required:
            continue
        try:
            given[field.name] = convert(value.get(field.name), field.type)
        except ValidationError:
            expected = field.type.__metadata__[-1].description
            sentence = f"The field {field.name} must be {expected}."
            raise Refused(422, "invalid_request", sentence) from None
    return given


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
