"""What the items of a tutorial's table say, as conversations; pure."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID, uuid5

from chatledger.conversations import Conversation, checked_metadata
from chatledger.errors import InvalidMessage, StoreMismatch
from chatledger.importing.comparison import unordered
from chatledger.json_values import Json
from chatledger.langchain.values import decode
from chatledger.messages import MESSAGE_ID_BYTES, Content, Message, Role, now, to_milliseconds
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
"""What is taken for which role, in whatever case."""

EXTRA: Final = "tutorial"
"""Where in a message's ``extra`` its fields are that Chatledger has no place for."""

# DynamoDB deletes nothing by a TTL that lies further back: with "ttl": 0 an item lives.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/howitworks-ttl.html
FURTHEST_BACK: Final = timedelta(days=5 * 365)
FURTHEST_AHEAD: Final = timedelta(days=36_500)

_NAMESPACE: Final = UUID("0f5d0f5e-58f2-5b52-9c0c-6d1b0c2f3a77")
"""For the ids (RFC 9562) of messages that had none; for ever the same."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Seconds, milliseconds, microseconds or nanoseconds; "20240501" and "20240501120000" are none.
_NUMBER: Final = re.compile(r"(\d{9,10}|\d{13}|\d{16}|\d{19})(\.\d+)?")
_TOO_LARGE: Final = 1e11  # in seconds that is the year 5138
_UNKNOWN = "other software seems to have written it"


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation of the source, and the ids of its messages that bear no time of their own."""

    conversation: Conversation
    messages: list[Message]
    undated: frozenset[str]

    def same(self, there: Message, ours: Message) -> bool:
        """Whether ``there`` is what a copy made of what is now ``ours``."""
        return _said(there) == _said(ours) and (
            there.created_at == ours.created_at or ours.id in self.undated
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """Makes conversations of items."""

    owner_of: Callable[[str | None], str | None]
    roles: Mapping[str, Role]
    started: datetime = field(default_factory=now)

    def conversation(self, id: str, item: Item) -> Found | None:
        """The conversation; None if it has expired.

        Raises ``StoreMismatch`` or ``InvalidArgument``, which quote no message.
        """
        said = {name: decode(attribute, ()) for name, attribute in item.items()}
        expires = self._expiry(said.get("ttl"))
        if expires is not None and expires <= now():
            return None
        listed = said.get("messages")
        if listed is not None and not isinstance(listed, list):
            raise StoreMismatch(f"Its messages are no list; {_UNKNOWN}.")
        times = [
            time_of(each.get("timestamp")) if isinstance(each, dict) else None
            for each in listed or ()
        ]
        dated = [time for time in times if time is not None]
        created, updated = time_of(said.get("created_at")), time_of(said.get("updated_at"))
        created = created or (dated[0] if dated else updated or self.started)
        updated = updated or max(dated, default=created)
        if expires is not None and expires <= max(created, updated):
            raise StoreMismatch("It was changed, it says, after its ttl; one of them is wrong.")
        messages: list[Message] = []
        time = created
        for n, (each, own) in enumerate(zip(listed or (), times, strict=True), 1):
            time = own or time
            messages.append(self._message(id, n, each, time, dated=own is not None))
        conversation = Conversation(
            id=id,
            owner=self.owner_of(_owner(said.get("user_id"))),
            title=None,
            metadata=_metadata(said.get("metadata")),
            created_at=created,
            updated_at=updated,
            message_count=len(messages),
            revision=max(len(messages), 1),
            expires_at=expires,
        )
        undated = (message.id for message, own in zip(messages, times, strict=True) if own is None)
        return Found(conversation, messages, frozenset(undated))

    def _expiry(self, ttl: object) -> datetime | None:
        # DynamoDB looks at numbers only.
        if isinstance(ttl, bool) or not isinstance(ttl, int | float):
            return None
        ahead = int(ttl) - self.started.timestamp()
        if not -FURTHEST_BACK.total_seconds() < ahead < FURTHEST_AHEAD.total_seconds():
            return None
        return datetime.fromtimestamp(int(ttl), UTC)

    def _message(self, id: str, n: int, said: Any, time: datetime, *, dated: bool) -> Message:
        where = f"Message {n} of conversation {id!r}"
        if not isinstance(said, dict):
            raise StoreMismatch(f"{where} is no map; {_UNKNOWN}.")
        fields = dict(said)
        role = fields.pop("role", None)
        named = self.roles.get(role.strip().lower()) if isinstance(role, str) else None
        if named is None:
            raise StoreMismatch(
                f"{where} has no role, or one of another name; name it for the copy, such as with "
                'roles={**ROLE_NAMES, "agent": "assistant"}.'
            )
        content = _content(fields.pop("content", None), where)
        if dated or not fields.get("timestamp"):
            fields.pop("timestamp", None)
        if _is_id(fields.get("id")):
            own_id = fields.pop("id")
        else:
            own_id = str(uuid5(_NAMESPACE, f"{n} {id}"))
        extra: dict[str, Json] = {
            name: fields.pop(name) for name in ("tool_calls", "tool_call_id") if name in fields
        }
        if fields:
            extra[EXTRA] = fields
        try:
            return Message(role=named, content=content, id=own_id, created_at=time, extra=extra)
        except InvalidMessage:
            # Not as it words it, which may quote a part of the message.
            raise StoreMismatch(
                f"{where} holds what no message can, such as bytes or a set; as text it could."
            ) from None


def time_of(value: object) -> datetime | None:
    """The time, to the millisecond; None where it is none that can be read."""
    with suppress(ValueError, OverflowError):
        match value:
            case bool():
                return None
            case int() | float():
                return _since_epoch(value)
            case str() if _NUMBER.fullmatch(value.strip()):
                return _since_epoch(float(value))
            case str():
                time = datetime.fromisoformat(value.strip())
                # Lambda's clock is in UTC, and datetime.now().isoformat() does not say so.
                return to_milliseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
    return None


def _since_epoch(number: float) -> datetime | None:
    # Milliseconds, microseconds and nanoseconds are known by their size.
    for scale in (1, 1e3, 1e6, 1e9):
        if abs(number) < _TOO_LARGE * scale:
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
    raise StoreMismatch(f"{where} has a content that is neither text nor a list of content blocks.")


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= MESSAGE_ID_BYTES


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
        raise StoreMismatch(f"Its metadata is no map; {_UNKNOWN}.")
    # How many messages there are, Chatledger counts.
    return checked_metadata({name: each for name, each in value.items() if name != "message_count"})


def _said(message: Message) -> str:
    """By text, for ``==`` takes 1 for 1.0."""
    return repr(unordered([message.id, message.role, message.content, message.extra]))
