"""The table of the usual Chalice, Bedrock and DynamoDB chatbot tutorial, as a source.

In that table a conversation is one item: ``conversation_id`` (the key), ``user_id``,
``created_at``, ``updated_at``, possibly ``ttl`` (seconds since 1970), ``messages``, a list of maps
with ``role``, ``content`` and ``timestamp``, and ``metadata``, a map with ``message_count``.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from chatledger.conversations import Conversation
from chatledger.copying.table import Original, TableSource, id_of_message, plain_values
from chatledger.errors import InvalidArgument, InvalidMessage, StoreMismatch
from chatledger.messages import MAX_MESSAGE_ID_BYTES, ROLES, Content, Message, Role
from chatledger.stores.arguments import checked_metadata
from chatledger.stores.dynamodb.calls import Item
from chatledger.values import Json, normalize_time, now, to_datetime

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["ROLE_NAMES", "TutorialTable"]

ATTRIBUTES: Final = (
    "conversation_id",
    "user_id",
    "created_at",
    "updated_at",
    "ttl",
    "messages",
    "metadata",
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

# Seconds, milliseconds, microseconds or nanoseconds, but not "20240501" or "20240501120000".
_TIMESTAMP: Final = re.compile(r"(\d{9,10}|\d{13}|\d{16}|\d{19})(\.\d+)?")
_MAX_SECONDS: Final = 1e11  # the year 5138
_OTHER_SOFTWARE = "other software seems to have written it"


def same_owner(user_id: str | None) -> str | None:
    return user_id


class TutorialTable(TableSource):
    """A tutorial's table, to be passed to ``copy``.

    A conversation keeps its id, its owner, its times, its metadata except ``message_count``, and
    its messages in the order of their list, whatever their timestamps are.

    It expires at the second given by its ``ttl``; after each later change it lives as long as it
    had left at its last change in the table. Expired conversations are left out. A ``ttl`` is
    ignored if it is not a number, or is more than five years in the past or a hundred years in the
    future.

    Times may be ISO 8601, in UTC unless they have a zone, or numbers since 1970. A message without
    a readable timestamp gets the time of the message before it, or ``created_at`` if it is the
    first. A message without an id gets one derived from the conversation id and its position, the
    same in every run. Fields other than role, content, timestamp, id, tool_calls and tool_call_id
    are stored in ``extra["tutorial"]``, as is a timestamp that cannot be read.

    A conversation is left out as a whole, and is a problem, if anything else in it cannot be read.

    Args:
        table: The table's name.
        client: ``boto3.client("dynamodb")`` for the account and region of the table. It needs
            ``dynamodb:Scan``.
        owner: Returns the owner for a ``user_id``, or None for an anonymous conversation.
        roles: Roles by the names that stand for them, in lower case.
        units_per_second: Limit on the read units to consume.
        segment: The segment of the table to read: its number, from 0, and the number of segments.
            Several threads or processes can copy a large table together, a segment each.

    Attributes:
        expired: The number of conversations that were left out because they have expired.
        others: The number of items without a ``conversation_id``.
        undated: The number of messages read so far that have no readable time of their own.

    Raises:
        InvalidArgument: ``roles`` or ``segment`` is invalid.
    """

    permissions = "dynamodb:Scan"

    def __init__(
        self,
        table: str,
        *,
        client: "DynamoDBClient",
        owner: Callable[[str | None], str | None] = same_owner,
        roles: Mapping[str, Role] = ROLE_NAMES,
        units_per_second: float | None = None,
        segment: tuple[int, int] | None = None,
    ) -> None:
        if not ROLES.issuperset(roles.values()):
            raise InvalidArgument(f"roles must map each name to one of {', '.join(sorted(ROLES))}.")
        super().__init__(table, client, units_per_second=units_per_second, segment=segment)
        self.undated = 0
        self._owner_of = owner
        self._roles = roles
        self._started_at = now()

    def scan_params(self) -> dict[str, Any]:
        return {
            # Placeholders, because "ttl" and "messages" are reserved words.
            "ProjectionExpression": ", ".join(f"#{name}" for name in ATTRIBUTES),
            "ExpressionAttributeNames": {f"#{name}": name for name in ATTRIBUTES},
        }

    def id_of(self, item: Item) -> str | None:
        id: str | None = item.get("conversation_id", {}).get("S")
        return id

    def read(self, conversation_id: str, item: Item) -> Original | None:
        fields = plain_values(item)
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
            created_at = known_times[0] if known_times else updated_at or self._started_at
        updated_at = updated_at or max(known_times, default=created_at)
        if expires_at is not None and expires_at <= max(created_at, updated_at):
            raise StoreMismatch("It changed after its ttl, by its own times; one of them is wrong.")
        messages: list[Message] = []
        time = created_at
        for n, (entry, own_time) in enumerate(zip(entries, times, strict=True), 1):
            time = own_time or time
            is_dated = own_time is not None
            messages.append(self._message(conversation_id, n, entry, time, is_dated=is_dated))
        conversation = Conversation(
            id=conversation_id,
            owner=self._owner_of(_owner(fields.get("user_id"))),
            title=None,
            metadata=_metadata(fields.get("metadata")),
            created_at=created_at,
            updated_at=updated_at,
            message_count=len(messages),
            revision=len(messages),
            expires_at=expires_at,
        )
        self.undated += times.count(None)
        return conversation, messages

    def _expiry(self, ttl: object) -> datetime | None:
        # DynamoDB ignores a TTL that is not a number.
        if isinstance(ttl, bool) or not isinstance(ttl, int | float):
            return None
        ahead = int(ttl) - self._started_at.timestamp()
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
        role = self._roles.get(role_name.strip().lower()) if isinstance(role_name, str) else None
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
            id = id_of_message(conversation_id, n)
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
            return to_datetime(round(number / scale * 1_000))
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
