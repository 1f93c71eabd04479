"""What requests hold, without a framework; ``answers`` and ``refusals`` are what they get."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from recollect.conversations import (
    TITLE_CHARACTERS,
    check_id,
    check_idempotency_key,
    check_number,
)
from recollect.errors import InvalidArgument
from recollect.http.refusals import Refused

MESSAGE_CHARACTERS = 32_000
"""The longest message and system prompt that are taken."""
BODY_BYTES = 256 * 1024
"""The longest body that is read."""
LIMIT = 100
"""The most conversations or messages that one answer holds."""

OPEN = frozenset({"/", "/health", "/openapi.json"})
"""The paths that nobody signs in for; the files of the page are such too."""


def is_open(path: str) -> bool:
    """Whether a path, percent-decoded, holds nothing that one must sign in for."""
    return path in OPEN or path.startswith("/page/")


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
