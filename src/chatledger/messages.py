"""Messages: frozen values, checked when they are made so that every store can store them."""

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast, get_args

from chatledger.errors import InvalidMessage, MessageTooLarge
from chatledger.values import (
    Json,
    checked_json,
    checked_object,
    checked_text,
    dumps,
    loads,
    new_id,
    normalize_time,
    now,
)

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_MESSAGE_ID_BYTES",
    "MAX_MESSAGE_METADATA_BYTES",
    "Content",
    "Message",
    "Role",
    "StoredMessage",
    "decode",
    "decode_body",
    "encode",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Content: TypeAlias = str | list[str | dict[str, Json]]

ROLES = frozenset(get_args(Role))
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message that stores accept, in bytes of JSON."""
MAX_MESSAGE_METADATA_BYTES = 16 * 1024
"""The largest ``metadata`` of a message, in bytes of JSON."""
MAX_MESSAGE_ID_BYTES = 1_000
"""The longest ``id`` of a message, in bytes of UTF-8."""
_EMPTY: dict[str, Json] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """One message of a conversation.

    Every field is checked and copied when the message is made, so a message can always be stored,
    and changing a list or dict that was passed in does not change the message. Every store
    returns messages equal to those it was given, with values of the same types.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: Text, or a list of content blocks, each a ``str`` or a ``dict``.
        id: At most ``MAX_MESSAGE_ID_BYTES`` of UTF-8; by default a new UUIDv7.
        created_at: When the message was made, in UTC to the millisecond; by default now.
        metadata: The application's own data, at most ``MAX_MESSAGE_METADATA_BYTES`` as JSON.
        extra: Data that a framework adds to role and content, such as tool calls.
        seq: The message's place in its conversation, assigned by the store; None until it is
            stored. ``==`` ignores it.

    Raises:
        InvalidMessage: A field cannot be stored and read back equal.
    """

    role: Role
    content: Content = ""
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=now)
    metadata: dict[str, Json] = field(default_factory=dict)
    extra: dict[str, Json] = field(default_factory=dict)
    seq: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.role, str) or self.role not in ROLES:
            raise InvalidMessage(
                f"role is {self.role!r}; it must be one of {', '.join(sorted(ROLES))}."
            )
        values = {
            "role": str.__str__(self.role),
            "content": _checked_content(self.content),
            "id": _checked_id(self.id),
            "created_at": _checked_time(self.created_at),
            "metadata": checked_object(
                self.metadata, "metadata", limit=MAX_MESSAGE_METADATA_BYTES, error=InvalidMessage
            ),
            "extra": checked_object(
                self.extra, "extra", limit=MAX_MESSAGE_BYTES, error=InvalidMessage
            ),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def user(cls, content: Content, **fields: Any) -> "Message":
        """Return a message from the user; ``fields`` are further fields of ``Message``."""
        return cls(role="user", content=content, **fields)

    @classmethod
    def assistant(
        cls,
        content: Content = "",
        *,
        tool_calls: Sequence[dict[str, Json]] = (),
        extra: dict[str, Json] = _EMPTY,
        **fields: Any,
    ) -> "Message":
        """Return a reply of the model.

        Args:
            content: The text or content blocks; may be empty, for example if the reply consists
                of tool calls only.
            tool_calls: The tool calls that the model makes, stored as ``extra["tool_calls"]``.
            extra: Further data of the framework.
            **fields: Further fields of ``Message``.
        """
        added: dict[str, Json] = {"tool_calls": list(tool_calls)} if tool_calls else {}
        return cls(role="assistant", content=content, extra=_merged_extra(extra, added), **fields)

    @classmethod
    def system(cls, content: Content, **fields: Any) -> "Message":
        """Return a system message, such as instructions to the model."""
        return cls(role="system", content=content, **fields)

    @classmethod
    def tool(
        cls, content: Content, *, tool_call_id: str, extra: dict[str, Json] = _EMPTY, **fields: Any
    ) -> "Message":
        """Return the result of a tool call.

        Args:
            content: The result.
            tool_call_id: The id of the call, stored as ``extra["tool_call_id"]``.
            extra: Further data of the framework.
            **fields: Further fields of ``Message``.
        """
        added: dict[str, Json] = {"tool_call_id": tool_call_id}
        return cls(role="tool", content=content, extra=_merged_extra(extra, added), **fields)

    @property
    def tool_calls(self) -> list[dict[str, Json]]:
        """The tool calls of an assistant message, in the framework's form; empty if none."""
        calls = self.extra.get("tool_calls")
        return cast(list[dict[str, Json]], calls) if isinstance(calls, list) else []

    @property
    def tool_call_id(self) -> str | None:
        """The id of the tool call that a tool message answers, or None."""
        id = self.extra.get("tool_call_id")
        return id if isinstance(id, str) else None

    @property
    def text(self) -> str:
        """The text of the content, its text blocks joined; other blocks are left out."""
        if isinstance(self.content, str):
            return self.content
        parts = (block if isinstance(block, str) else block.get("text") for block in self.content)
        return "".join(part for part in parts if isinstance(part, str))

    def with_seq(self, seq: int) -> "StoredMessage":
        """Return a copy of the message with this ``seq``."""
        return _unchecked_message(*self._values(), seq)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._values() == other._values()

    def _values(self) -> "tuple[Role, Content, str, datetime, dict[str, Json], dict[str, Json]]":
        return self.role, self.content, self.id, self.created_at, self.metadata, self.extra


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredMessage(Message):
    """A message as a store returns it: a ``Message`` whose ``seq`` is not None."""

    seq: int = field(compare=False)


def _refuse_change(message: Message, name: str, value: object = None) -> None:
    raise FrozenInstanceError(
        f"{name} cannot be set: a Message does not change. Make another one, for example with "
        "dataclasses.replace(message, content=...)."
    )


for _class in (Message, StoredMessage):
    setattr(_class, "__setattr__", _refuse_change)  # noqa: B010  mypy takes no assignment
    setattr(_class, "__delattr__", _refuse_change)  # noqa: B010


def encode(message: Message) -> str:
    """Return the message as JSON text, the form in which stores keep it, without its seq.

    Raises:
        MessageTooLarge: The text is longer than ``MAX_MESSAGE_BYTES`` in UTF-8.
    """
    body: dict[str, object] = {
        "role": message.role,
        "content": message.content,
        "id": message.id,
        "created_at": message.created_at.isoformat(timespec="milliseconds"),
    }
    if message.metadata:
        body["metadata"] = message.metadata
    if message.extra:
        body["extra"] = message.extra
    text = dumps(body)
    # A character takes at most 4 bytes, so only long texts need to be measured.
    if len(text) * 4 > MAX_MESSAGE_BYTES and (size := len(text.encode())) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(f"Message {message.id!r}", size=size, limit=MAX_MESSAGE_BYTES)
    return text


def decode(text: str, *, seq: int) -> StoredMessage:
    """Return the message that ``encode`` encoded as ``text``, with this ``seq``.

    The fields are not checked again: a rule that a later version adds to ``Message`` must not make
    conversations that are already stored unreadable.
    """
    return decode_body(loads(text), seq=seq)


def decode_body(body: dict[str, Any], *, seq: int) -> StoredMessage:
    """Return the message whose decoded JSON is ``body``, as ``decode`` does."""
    return _unchecked_message(
        body["role"],
        body["content"],
        body["id"],
        datetime.fromisoformat(body["created_at"]),
        body.get("metadata") or {},
        body.get("extra") or {},
        seq,
    )


def _unchecked_message(
    role: str,
    content: Content,
    id: str,
    created_at: datetime,
    metadata: dict[str, Json],
    extra: dict[str, Json],
    seq: int,
) -> StoredMessage:
    """Return a message without checking its fields: they were checked before it was stored."""
    message = object.__new__(StoredMessage)
    set_field = object.__setattr__
    set_field(message, "role", role)
    set_field(message, "content", content)
    set_field(message, "id", id)
    set_field(message, "created_at", created_at)
    set_field(message, "metadata", metadata)
    set_field(message, "extra", extra)
    set_field(message, "seq", seq)
    return message


def _checked_content(content: object) -> Content:
    match content:
        case str():
            return checked_text(content, "content", error=InvalidMessage)
        case list():
            for n, block in enumerate(content):
                if not isinstance(block, str | dict):
                    raise InvalidMessage(
                        f"content[{n}] is of type {type(block).__name__}; "
                        "a content block is a str or a dict."
                    )
            return cast(Content, checked_json(content, "content", error=InvalidMessage))
    raise InvalidMessage(
        f"content is of type {type(content).__name__}; it must be text or a list of content blocks."
    )


def _checked_id(value: object) -> str:
    text = checked_text(value, "id", error=InvalidMessage)
    if not text or len(text.encode()) > MAX_MESSAGE_ID_BYTES:
        raise InvalidMessage(f"id must have 1 to {MAX_MESSAGE_ID_BYTES:,} bytes in UTF-8.")
    return text


def _checked_time(value: object) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidMessage(
            "created_at must be an aware datetime, such as datetime.now(UTC); "
            "without a time zone it means a different moment on each machine."
        )
    try:
        return normalize_time(value)
    except OverflowError:
        raise InvalidMessage("created_at is outside the years 1 to 9999 in UTC.") from None


def _merged_extra(extra: object, added: dict[str, Json]) -> dict[str, Json]:
    return extra | added if isinstance(extra, dict) else cast(dict[str, Json], extra)
