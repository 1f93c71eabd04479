"""Parser that turns the items of a tutorial's table into conversations, without I/O."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID, uuid5

from chatledger.conversations import Conversation
from chatledger.errors import InvalidMessage, StoreMismatch
from chatledger.importing.comparison import canonical_text
from chatledger.json_values import Json
from chatledger.langchain.values import decode_value
from chatledger.messages import MAX_MESSAGE_ID_BYTES, Content, Message, Role, normalize_time, now
from chatledger.stores.arguments import checked_metadata
from chatledger.stores.dynamodb.calls import Item

ATTRIBUTES: Final = (
    *("conversation_id", "user_id", "created_at", "updated_at", "ttl", "messages", "metadata"),
)

ROLE_NAMES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "system": "system",
        "developer": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "ai": "assistant",
        "bot": "assistant",
        "model": "assistant",
        "tool": "tool",
    }
)
"""Roles by the names that stand for them, in lower case."""

EXTRA_KEY: Final = "tutorial"
"""Key in a message's ``extra`` of the fields that Chatledger has no place for."""

# DynamoDB does not delete items whose TTL is further back, so an item with "ttl": 0 is kept.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/howitworks-ttl.html
MAX_TTL_AGE: Final = timedelta(days=5 * 365)
MAX_TTL_AHEAD: Final = timedelta(days=36_500)

_NAMESPACE: Final = UUID("0f5d0f5e-58f2-5b52-9c0c-6d1b0c2f3a77")
"""Namespace (RFC 9562) of the ids of messages that had none. It must never change."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Seconds, milliseconds, microseconds or nanoseconds, but not "20240501" or "20240501120000".
_TIMESTAMP: Final = re.compile(r"(\d{9,10}|\d{13}|\d{16}|\d{19})(\.\d+)?")
_MAX_SECONDS: Final = 1e11  # the year 5138
_OTHER_SOFTWARE = "other software seems to have written it"


@dataclass(frozen=True, slots=True)
class SourceConversation:
    """A conversation of the source.

    Attributes:
        undated: The ids of the messages without a readable time of their own.
    """

    conversation: Conversation
    messages: list[Message]
    undated: frozenset[str]

    def is_same(self, theirs: Message, ours: Message) -> bool:
        """Return whether the store's message ``theirs`` is a copy of ``ours``."""
        return canonical_text(theirs) == canonical_text(ours) and (
            theirs.created_at == ours.created_at or ours.id in self.undated
        )


@dataclass(frozen=True, slots=True)
class ItemParser:
    """Turns items into conversations."""

    owner_of: Callable[[str | None], str | None]
    roles: Mapping[str, Role]
    started_at: datetime = field(default_factory=now)

    def parse(self, id: str, item: Item) -> SourceConversation | None:
        """Return the conversation in an item, or None if it has expired.

        Raises:
            StoreMismatch: The item cannot be read. Neither error quotes a message.
            InvalidArgument: A value in the item is invalid.
        """
        fields = {name: decode_value(attribute, ()) for name, attribute in item.items()}
        expires_at = self._expiry(fields.get("ttl"))
        if expires_at is not None and expires_at <= now():
            return None
        entries = fields.get("messages")
        if entries is not None and not isinstance(entries, list):
            raise StoreMismatch(f"Its messages are not a list; {_OTHER_SOFTWARE}.")
        entries = entries or []
        times = [
            parse_time(entry.get("timestamp")) if isinstance(entry, dict) else None
            for entry in entries
        ]
        known_times = [time for time in times if time is not None]
        created_at = parse_time(fields.get("created_at"))
        updated_at = parse_time(fields.get("updated_at"))
        if created_at is None:
            created_at = known_times[0] if known_times else updated_at or self.started_at
        updated_at = updated_at or max(known_times, default=created_at)
        if expires_at is not None and expires_at <= max(created_at, updated_at):
            raise StoreMismatch("It changed after its ttl, by its own times; one of them is wrong.")
        messages: list[Message] = []
        time = created_at
        for n, (entry, own_time) in enumerate(zip(entries, times, strict=True), 1):
            time = own_time or time
            messages.append(self._message(id, n, entry, time, is_dated=own_time is not None))
        conversation = Conversation(
            id=id,
            owner=self.owner_of(_owner(fields.get("user_id"))),
            title=None,
            metadata=_metadata(fields.get("metadata")),
            created_at=created_at,
            updated_at=updated_at,
            message_count=len(messages),
            revision=max(len(messages), 1),
            expires_at=expires_at,
        )
        undated = (
            message.id
            for message, own_time in zip(messages, times, strict=True)
            if own_time is None
        )
        return SourceConversation(conversation, messages, frozenset(undated))

    def _expiry(self, ttl: object) -> datetime | None:
        # DynamoDB ignores a TTL that is not a number.
        if isinstance(ttl, bool) or not isinstance(ttl, int | float):
            return None
        ahead = int(ttl) - self.started_at.timestamp()
        if not -MAX_TTL_AGE.total_seconds() < ahead < MAX_TTL_AHEAD.total_seconds():
            return None
        return datetime.fromtimestamp(int(ttl), UTC)

    def _message(
        self, conversation_id: str, n: int, entry: Any, time: datetime, *, is_dated: bool
    ) -> Message:
        where = f"Message {n} of conversation {conversation_id!r}"
        if not isinstance(entry, dict):
            raise StoreMismatch(f"{where} is not a map; {_OTHER_SOFTWARE}.")
        fields = dict(entry)
        role_name = fields.pop("role", None)
        role = self.roles.get(role_name.strip().lower()) if isinstance(role_name, str) else None
        if role is None:
            raise StoreMismatch(
                f"{where} has no role, or an unknown one; pass what it stands for, such as "
                'roles={**ROLE_NAMES, "agent": "assistant"}.'
            )
        content = _content(fields.pop("content", None), where)
        if is_dated or not fields.get("timestamp"):
            fields.pop("timestamp", None)
        if _is_valid_id(fields.get("id")):
            id = fields.pop("id")
        else:
            id = str(uuid5(_NAMESPACE, f"{n} {conversation_id}"))
        extra: dict[str, Json] = {
            name: fields.pop(name) for name in ("tool_calls", "tool_call_id") if name in fields
        }
        if fields:
            extra[EXTRA_KEY] = fields
        try:
            return Message(role=role, content=content, id=id, created_at=time, extra=extra)
        except InvalidMessage:
            # The original error may quote a part of the message.
            raise StoreMismatch(
                f"{where} has a value that cannot be stored, such as bytes or a set; store it as "
                "text in the source."
            ) from None


def parse_time(value: object) -> datetime | None:
    """Return the time to the millisecond, or None if it cannot be read."""
    with suppress(ValueError, OverflowError):
        match value:
            case bool():
                return None
            case int() | float():
                return _since_epoch(value)
            case str() if _TIMESTAMP.fullmatch(value.strip()):
                return _since_epoch(float(value))
            case str():
                time = datetime.fromisoformat(value.strip())
                # Lambda's clock is in UTC, but datetime.now().isoformat() has no time zone.
                return normalize_time(time if time.tzinfo else time.replace(tzinfo=UTC))
    return None


def _since_epoch(number: float) -> datetime | None:
    # The magnitude tells seconds, milliseconds, microseconds and nanoseconds apart.
    for scale in (1, 1e3, 1e6, 1e9):
        if abs(number) < _MAX_SECONDS * scale:
            return _EPOCH + timedelta(milliseconds=round(number / scale * 1_000))
    return None


def _content(value: object, where: str) -> Content:
    match value:
        case None:
            return ""
        case str():
            return value
        case list() if all(isinstance(block, str | dict) for block in value):
            return value
    raise StoreMismatch(f"{where} has content that is neither text nor a list of content blocks.")


def _is_valid_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_MESSAGE_ID_BYTES


def _owner(value: object) -> str | None:
    match value:
        case None | str():
            return value if value and value.strip() else None
        case int() if not isinstance(value, bool):
            return str(value)
    raise StoreMismatch("Its user_id is neither text nor a whole number.")


def _metadata(value: object) -> dict[str, Json]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StoreMismatch(f"Its metadata is not a map; {_OTHER_SOFTWARE}.")
    # Chatledger counts the messages itself.
    return checked_metadata({name: each for name, each in value.items() if name != "message_count"})
