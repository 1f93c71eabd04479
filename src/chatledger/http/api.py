"""The HTTP API without a web framework: the rules of all requests, and how they are parsed."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import fields as fields_of

from chatledger.conversations import MAX_ID_BYTES, MAX_REVISION, MAX_TITLE_CHARACTERS, Conversation
from chatledger.errors import InvalidArgument
from chatledger.http.errors import ApiError
from chatledger.stores.arguments import (
    checked_id,
    checked_idempotency_key,
    checked_number,
    checked_query,
)
from chatledger.values import checked_text

MAX_MESSAGE_CHARACTERS = 32_000
"""The longest message or system prompt that a request may contain."""
MAX_BODY_BYTES = 256 * 1024
"""The longest request body that is accepted, unless its route takes longer ones."""
MAX_BODY_VALUES = 1_000_000
"""The most JSON values in a body that is longer than ``MAX_BODY_BYTES``: one that is parsed needs
up to a hundred times the memory of its text."""
MAX_PAGE_SIZE = 100
"""The largest number of conversations or messages in one response."""

CORS_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
)
"""The request headers that pages of an allowed origin may send."""
CORS_RESPONSE_HEADERS = (
    "Content-Disposition",
    "ETag",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "x-amzn-Remapped-WWW-Authenticate",
)
"""The response headers that those pages may read.

API Gateway renames the ``WWW-Authenticate`` header of a Lambda function to
``x-amzn-Remapped-WWW-Authenticate``.
"""
CORS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PREFLIGHT_SECONDS = 600
"""The time for which browsers may cache the response to a CORS preflight request."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Pages of an allowed origin (CORS) can read responses nevertheless.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The headers of every response, unless it has its own."""

PUBLIC_PATHS = frozenset(
    {"/", "/docs", "/health", "/live", "/metrics", "/openapi.json", "/ready", "/sign-in"}
)
"""The paths that need no sign-in, apart from the files of the page."""


def policy_with_connections(origin: str) -> str:
    """Return the Content-Security-Policy of a page that may also send requests to ``origin``."""
    return CONTENT_SECURITY_POLICY.replace("connect-src 'self'", f"connect-src 'self' {origin}")


def is_public(path: str) -> bool:
    """Return whether the percent-decoded ``path`` can be requested without signing in."""
    return path in PUBLIC_PATHS or path.startswith("/page/")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is "localhost" or a loopback address, with or without brackets."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def allowed_hosts(
    address: str, *, public: Sequence[str] = (), has_sign_in: bool
) -> frozenset[str] | None:
    """Return the host names that requests to a server on ``address`` may have, or None for any.

    A server on loopback that needs no sign-in answers only to the usual names of this machine, and
    to its ``public`` names: otherwise a page in the user's browser could resolve its own host name
    to 127.0.0.1 and read the responses (DNS rebinding). Such a page has no token to sign in with.
    """
    if has_sign_in or not (is_loopback(address) or public):
        return None
    return frozenset({"localhost", "127.0.0.1", "[::1]", address.lower(), *public})


def check_host(host: str, allowed: Collection[str]) -> None:
    """Raise ``ApiError`` unless the ``Host`` header, without its port, is one of ``allowed``."""
    if re.sub(r":[0-9]*\Z", "", host).lower() not in allowed:
        raise ApiError(400, "unknown_host", "This server does not answer to that host name.")


Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
Text = Annotated[str, Meta(max_length=MAX_MESSAGE_CHARACTERS)]
MessageText = Annotated[str, Meta(pattern=r"\S", max_length=MAX_MESSAGE_CHARACTERS)]
Title = Annotated[str, Meta(max_length=MAX_TITLE_CHARACTERS)]

_ID = Meta(description=f"text of 1 to {MAX_ID_BYTES:,} bytes in UTF-8")
_TEXT = Meta(description=f"text of at most {MAX_MESSAGE_CHARACTERS:,} characters")
TITLE = Meta(description=f"text of at most {MAX_TITLE_CHARACTERS:,} characters")
METADATA = Meta(description="an object")
_MESSAGE = Meta(description=f"text of 1 to {MAX_MESSAGE_CHARACTERS:,} characters that is not blank")


class RequestBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of the request bodies.

    Each field's description completes the error sentence "The field ... must be ...".
    """

    max_bytes: ClassVar[int] = MAX_BODY_BYTES
    """The longest body that is accepted."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in ("user_id", "conversation_id") and value is not None:
                checked_id(value, name)
            elif isinstance(value, str):
                checked_text(value, name, error=InvalidArgument)


class TurnRequestBody(RequestBody, frozen=True, kw_only=True):
    """The fields of every request for a turn."""

    user_id: Annotated[Id | None, _ID] = None
    model_id: Annotated[str | None, Meta(description="the name of a model")] = None
    system_prompt: Annotated[Text | None, _TEXT] = None
    on_disconnect: Annotated[
        Literal["continue", "stop"] | None,
        Meta(description="continue or stop: whether the reply ends if the client disconnects"),
    ] = None

    @property
    def stops_turn(self) -> bool:
        """True if the turn ends when its client disconnects."""
        return self.on_disconnect == "stop"


class ChatRequest(TurnRequestBody, frozen=True, kw_only=True):
    """The body of a request for a reply to a message."""

    message: Annotated[MessageText, _MESSAGE]
    conversation_id: Annotated[Id | None, _ID] = None
    save_history: Annotated[bool | None, Meta(description="true or false")] = None


class RegenerateRequest(TurnRequestBody, frozen=True, kw_only=True):
    """The body of a request for another reply to the last message."""


class EditRequest(TurnRequestBody, frozen=True, kw_only=True):
    """The body of a request to replace a message of the user, and to answer it anew."""

    message: Annotated[MessageText, _MESSAGE]
    keep_branch: Annotated[
        bool | None, Meta(description="true or false: whether a copy of the conversation is kept")
    ] = None


class CreateRequest(RequestBody, frozen=True, kw_only=True):
    """The body of a request for a new conversation."""

    user_id: Annotated[Id, _ID]
    title: Annotated[Title | None, TITLE] = None
    metadata: Annotated[dict[str, Any] | None, METADATA] = None


class UpdateRequest(RequestBody, frozen=True, kw_only=True):
    """The body of a request to change what describes a conversation.

    A field that is missing stays as it is. An empty title removes the title.
    """

    user_id: Annotated[Id | None, _ID] = None
    title: Annotated[Title | None, TITLE] = None
    metadata: Annotated[dict[str, Any] | None, METADATA] = None


class ForkRequest(RequestBody, frozen=True, kw_only=True):
    """The body of a request for a copy of a conversation."""

    user_id: Annotated[Id | None, _ID] = None
    at: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_REVISION)] | None,
        Meta(description="the seq of the last message to copy"),
    ] = None


class StopRequest(RequestBody, frozen=True, kw_only=True):
    """The body of a request to stop the reply that is being written."""

    user_id: Annotated[Id | None, _ID] = None


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
    if len(body) > kind.max_bytes:
        raise body_too_large(kind.max_bytes)
    if len(body) > MAX_BODY_BYTES:
        _check_value_count(body)
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_unique_keys, parse_constant=_reject_constant
        )
    except (ValueError, RecursionError):
        raise ApiError(400, "not_json", "The body is not valid JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "not_an_object", "The body must be a JSON object.")
    names_user = "user_id" in kind.__struct_fields__
    if names_user and value.get("user_id") is None and signed_in_user is not None:
        value["user_id"] = signed_in_user
    request = parse_object(kind, value)
    if names_user:
        _check_user(value.get("user_id"), signed_in_user)
    return request


class Parameter(NamedTuple):
    """A parameter of a query: text, a number up to ``most``, or one of ``choices``."""

    name: str
    description: str
    most: int | None = None
    least: int = 1
    default: int | None = None
    is_required: bool = False
    """Whether a request must have it; a signed-in user may leave out the ``user_id``."""
    longest: int | None = None
    """The most characters that the text may have; None if there is no such limit."""
    choices: tuple[str, ...] = ()
    """The values that it may have; the first is the default."""


USER_ID = Parameter("user_id", "the owner of the conversation")


class Query:
    """The query of a request.

    Args:
        parameters: The names and decoded values, in the order of the query.
        known: The parameters that the endpoint takes.
        signed_in_user: The default of ``user_id``, and the only value it may have.

    Raises:
        ApiError: A parameter is not known.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, str]],
        *,
        known: Sequence[Parameter],
        signed_in_user: str | None = None,
    ) -> None:
        _check_names(
            "The query has an unknown parameter",
            [name for name, _ in parameters],
            [parameter.name for parameter in known],
        )
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

    def words(self, parameter: Parameter) -> str | None:
        """Return the parameter, a query for words, or None if it is missing and may be.

        Raises:
            ApiError: The parameter occurs twice, or is missing.
            InvalidArgument: It is too long, or has no words.
        """
        text = self.get(parameter.name)
        if text is not None:
            checked_query(text, parameter.name)
        elif parameter.is_required:
            raise ApiError(400, "invalid_request", f"The parameter {parameter.name} is missing.")
        return text

    def number(self, parameter: Parameter) -> int:
        """Return the parameter as an int; raise ``InvalidArgument`` if it is out of range."""
        name, least, most = parameter.name, parameter.least, parameter.most
        text = self.get(name)
        assert most is not None, f"{name} is not a number"
        if text is None and parameter.default is not None:
            return parameter.default
        number = parse_number(text or "")
        if number is None:
            raise InvalidArgument(f"{name} must be {least} to {most:,}.")
        return checked_number(number, name, least=least, most=most)

    def choice(self, parameter: Parameter) -> str:
        """Return the parameter; raise ``ApiError`` if it is not one of its choices."""
        choices, text = parameter.choices, self.get(parameter.name)
        if text is None:
            return choices[0]
        if text not in choices:
            sentence = f"{parameter.name} must be {' or '.join(choices)}."
            raise ApiError(422, "invalid_request", sentence)
        return text


def parse_number(text: str) -> int | None:
    """Return the number that the text writes in 1 to 16 digits, or None."""
    # int() also accepts digits of other scripts, signs, blanks and underscores.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else None


def _check_user(user_id: object, signed_in_user: str | None) -> None:
    if signed_in_user not in (None, user_id):
        raise ApiError(403, "wrong_user", "The user_id is not the signed-in user; leave it out.")


def body_too_large(most: int) -> ApiError:
    kib = most // 1024
    size = f"{kib} KiB" if kib < 1024 else f"{kib // 1024} MiB"
    return ApiError(
        413, "too_large", f"The body is too large; send at most {size}.", limit="body_bytes"
    )


_JSON_TEXT = re.compile(rb'"(?:[^"\\]++|\\.?+)*+"?+', re.DOTALL)
"""A text in JSON, even one without an end: if it did not match, the search would start again."""


def _check_value_count(body: bytes) -> None:
    """Raise ``ApiError`` if the JSON in ``body`` has more than ``MAX_BODY_VALUES`` values.

    Each value in a list or an object begins after a comma or the bracket; empty ones count too.
    """
    count, end = 0, 0
    for number, text in enumerate(_JSON_TEXT.finditer(body)):
        count += sum(body.count(sign, end, text.start()) for sign in b",[{")
        end = text.end()
        if max(count, number // 2) > MAX_BODY_VALUES:  # a value has at most a text and a name
            break
    else:
        count += sum(body.count(sign, end) for sign in b",[{")
        if count <= MAX_BODY_VALUES:
            return
    raise ApiError(
        413,
        "too_large",
        f"The body has more than {MAX_BODY_VALUES:,} values; send fewer at once.",
        limit="body_bytes",
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        # JSON parsers disagree on which of two values with the same key to use.
        raise ValueError
    return value


def _reject_constant(name: str) -> None:
    raise ValueError  # Python accepts NaN and Infinity, JSON does not


def _check_names(complaint: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raise ``ApiError`` with the complaint and a known name if one of ``names`` is not known."""
    for name in names:
        if name not in known:
            # The unknown name itself is not repeated: it may be anything that a client sends.
            advice = f"send only {', '.join(known)}." if known else "leave it out."
            if nearest := get_close_matches(name, known, n=1):
                advice = f"did you mean {nearest[0]}?"
            raise ApiError(422, "invalid_request", f"{complaint}; {advice}")


def parse_object(kind: type[RequestT], value: Mapping[str, object], *, place: str = "") -> RequestT:
    """Return the fields of ``kind`` in ``value``, converted to their types.

    Args:
        kind: The type to return.
        value: A parsed JSON object.
        place: Where ``value`` is in the body, such as ``messages[17]``; empty for the body itself.

    Raises:
        ApiError: A field is missing, not valid or not known.
        InvalidArgument: An id or a text is not valid.
    """
    whole = place or "The body"
    _check_names(f"{whole} has an unknown field", value, kind.__struct_fields__)
    try:
        return convert(value, kind)
    except ValidationError:
        _check_fields(kind, value, f"{place}." if place else "")
        return kind(**value)  # raises


def _check_fields(kind: type[RequestBody], value: Mapping[str, object], prefix: str) -> None:
    """Raise ``ApiError`` if a field of ``kind`` is missing in ``value``, or is not valid."""
    for field in fields_of(kind):
        if field.name not in value and not field.required:
            continue
        try:
            convert(value.get(field.name), field.type)
        except ValidationError:
            expected = field.type.__metadata__[-1].description
            sentence = f"The field {prefix}{field.name} must be {expected}."
            raise ApiError(422, "invalid_request", sentence) from None


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


class Version(NamedTuple):
    """The version of a conversation that an ``ETag`` names: its revisions."""

    revision: int
    metadata_revision: int

    @property
    def etag(self) -> str:
        return f'"{self.revision}.{self.metadata_revision}"'


def version_of(conversation: Conversation) -> Version:
    return Version(conversation.revision, conversation.metadata_revision)


ETAG_PATTERN = r'"([0-9]{1,16})\.([0-9]{1,16})"'
"""The pattern of the ``ETag`` of a conversation."""


def parse_if_match(values: Sequence[str]) -> Version | None:
    """Return the version in the ``If-Match`` headers; None if there is none, or it is ``*``.

    Raises ``ApiError`` if there are several headers, or if it is not an ``ETag`` of a conversation.
    """
    if not values or values == ["*"]:
        return None
    match = re.fullmatch(ETAG_PATTERN, values[0])
    if len(values) > 1 or match is None or max(map(int, match.groups())) > MAX_REVISION:
        raise ApiError(
            400,
            "invalid_request",
            "The header If-Match is not valid; send the one ETag that the conversation had.",
        )
    return Version(*map(int, match.groups()))


def parse_authorization(values: Sequence[str]) -> str | None:
    """Return the value of the ``Authorization`` headers, or None if there is none."""
    # Two headers, joined, are not a valid token and sign nobody in.
    return ", ".join(values) or None
