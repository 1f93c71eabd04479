"""The import of a conversation from a file that ``chatledger.http.exports`` describes."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from msgspec import Meta

from chatledger.conversations import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, MAX_REVISION
from chatledger.errors import InvalidMessage, MessageTooLarge
from chatledger.http.api import METADATA, TITLE, RequestBody, Title, parse_object
from chatledger.http.errors import ApiError
from chatledger.http.exports import EXTRA_TYPES
from chatledger.messages import MAX_MESSAGE_BYTES, Message, Role, encode

MAX_IMPORT_BYTES = 64 * 1024 * 1024
"""The longest body of an import."""
MAX_QUOTED_CHARACTERS = 300
"""The longest sentence about a value that is passed on; longer ones quote names of the client's."""

_TEXT = Meta(description="text")
_TIME = Meta(description="a time with its zone, such as 2026-12-01T09:30:00+00:00")
_TokenKind = Literal["input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"]
_Count = Annotated[int, Meta(ge=0, le=MAX_REVISION)]


class ImportedMessage(RequestBody, frozen=True, kw_only=True):
    """A message of a conversation that is imported. Its ``seq`` is not kept."""

    def __post_init__(self) -> None:
        """Check nothing: ``Message`` checks the texts, and its errors say where they are."""

    role: Annotated[Role, Meta(description="user, assistant, tool or system")]
    content: Annotated[
        str | list[str | dict[str, Any]], Meta(description="text, or a list of content blocks")
    ]
    id: Annotated[str | None, _TEXT] = None
    created_at: Annotated[Annotated[datetime, Meta(tz=True)] | None, _TIME] = None
    seq: Annotated[int | None, Meta(description="a number")] = None
    metadata: Annotated[dict[str, Any] | None, METADATA] = None
    tool_calls: Annotated[list[dict[str, Any]] | None, Meta(description="a list of objects")] = None
    tool_call_id: Annotated[str | None, _TEXT] = None
    name: Annotated[str | None, _TEXT] = None
    status: Annotated[str | None, _TEXT] = None
    model: Annotated[str | None, _TEXT] = None
    stop_reason: Annotated[str | None, _TEXT] = None
    latency_ms: Annotated[int | None, Meta(description="a number")] = None
    usage: Annotated[
        dict[_TokenKind, _Count] | None,
        Meta(
            description="an object of numbers: input_tokens and output_tokens",
            # msgspec checks the names, but leaves them out of the description.
            extra_json_schema={"propertyNames": {"enum": list(get_args(_TokenKind))}},
        ),
    ] = None


class ImportRequest(RequestBody, frozen=True, kw_only=True):
    """The body of a request to import a conversation: a file as it was exported."""

    max_bytes: ClassVar[int] = MAX_IMPORT_BYTES

    format: Annotated[
        Literal["chatledger-conversation"], Meta(description="chatledger-conversation")
    ]
    version: Annotated[Literal[1], Meta(description="1, as this server knows no other format")]
    title: Annotated[Title | None, TITLE] = None
    metadata: Annotated[dict[str, Any] | None, METADATA] = None
    created_at: Annotated[Annotated[datetime, Meta(tz=True)] | None, _TIME] = None
    exported_at: Annotated[Annotated[datetime, Meta(tz=True)] | None, _TIME] = None
    messages: Annotated[
        Annotated[list[Any], Meta(max_length=MAX_BATCH_MESSAGES)],
        Meta(description=f"a list of at most {MAX_BATCH_MESSAGES:,} messages"),
    ]
    """Each as ``ImportedMessage`` describes it, but not checked yet."""


class Imported(NamedTuple):
    """The messages of an import."""

    messages: list[Message]
    size: int
    """Their size in bytes of JSON, as stores keep them."""


def import_messages(request: ImportRequest) -> Imported:
    """Return the messages of the request, checked.

    Raises ``ApiError``, with a sentence that names the message, if one is not valid.
    """
    messages, size = [], 0
    for n, value in enumerate(request.messages):
        message = _message(value, f"messages[{n}]")
        messages.append(message)
        try:
            size += len(encode(message).encode())
        except MessageTooLarge:
            raise ApiError(
                413,
                "too_large",
                f"messages[{n}] is larger than {MAX_MESSAGE_BYTES // 2**20} MiB; shorten it.",
            ) from None
    if size > MAX_BATCH_BYTES:
        raise ApiError(
            413,
            "too_large",
            f"The messages are larger than {MAX_BATCH_BYTES // 2**20} MiB; send fewer at once.",
        )
    return Imported(messages, size)


def _message(value: object, place: str) -> Message:
    if not isinstance(value, dict):
        raise ApiError(422, "invalid_request", f"{place} must be an object.")
    try:
        message = parse_object(ImportedMessage, value, place=place)
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        given = {name: each for name, each in fields.items() if each is not None}
        extra = {name: given.pop(name) for name in EXTRA_TYPES if name in given}
        given.pop("seq", None)
        return Message(**given, extra=extra)
    except InvalidMessage as invalid:
        sentence = str(invalid)
        if len(sentence) > MAX_QUOTED_CHARACTERS:
            sentence = "a value in it cannot be stored."
            raise ApiError(422, "invalid_request", f"{place} is not valid: {sentence}") from None
        raise ApiError(422, "invalid_request", f"{place}.{sentence}") from None
