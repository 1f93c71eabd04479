"""A table of the old class, or of the drop-in class, as a source of conversations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chatledger.conversations import Conversation
from chatledger.copying.progress import Problem
from chatledger.copying.table import Original, TableSource, id_of_message, plain_values, single_call
from chatledger.errors import StoreMismatch
from chatledger.langchain.elements import decode_messages
from chatledger.langchain.plans import read_history
from chatledger.langchain.stored_history import FIRST_ITEM_KEY, History, is_cleared
from chatledger.langchain_messages import EXTRA_KEY, to_chatledger
from chatledger.messages import Message
from chatledger.stores.dynamodb.calls import Call, Item
from chatledger.values import normalize_time, now

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Key = Mapping[str, Any]
"""The key of an item, such as ``{"SessionId": "1"}``."""


def joined_key(key: Key) -> str:
    """Return the values of a key joined by ``#``; with a single value that is the session id."""
    return "#".join(str(value) for value in key.values())


def no_owner(_: Key) -> str | None:
    return None


class LangChainTable(TableSource):
    """A LangChain table, to be passed to ``copy``.

    A history becomes a conversation with the same messages in the same order and of the same types.
    If it has a TTL, the conversation expires at the same second; expired histories are left out.
    The old class stored no times: the conversation and its messages get the time of the last write
    if ``ttl`` tells it, and otherwise the time of the copy.

    A history that cannot be read is left out as a whole, and is a problem. Items without
    ``history_messages_key`` are not histories.

    Args:
        table: The table's name.
        client: ``boto3.client("dynamodb")`` for the account and region of the table. It needs
            ``dynamodb:DescribeTable``, ``Scan`` and ``BatchGetItem``.
        history_messages_key: Attribute that holds the messages.
        ttl_key_name: The table's TTL attribute.
        ttl: Seconds that a conversation lives after each later change; pass what the old class was
            given. By default this is what the history has left now.
        conversation_id: Returns the conversation id for the key of an item.
        owner: Returns the owner for the key of an item.
        units_per_second: Limit on the read units to consume.
        segment: The segment of the table to read: its number, from 0, and the number of segments.
            Several threads or processes can copy a large table together, a segment each.

    Attributes:
        expired: The number of histories that were left out because they have expired.
        others: The number of items without ``history_messages_key``.

    Raises:
        InvalidArgument: ``segment`` is invalid.
    """

    permissions = "dynamodb:DescribeTable, Scan and BatchGetItem"

    def __init__(
        self,
        table: str,
        *,
        client: "DynamoDBClient",
        history_messages_key: str = "History",
        ttl_key_name: str = "expireAt",
        ttl: int | None = None,
        conversation_id: Callable[[Key], str] = joined_key,
        owner: Callable[[Key], str | None] = no_owner,
        units_per_second: float | None = None,
        segment: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(table, client, units_per_second=units_per_second, segment=segment)
        self._history_template = History(
            table_name=table,
            key={},  # each history's own is filled in when it is read
            messages_attribute=history_messages_key,
            ttl_attribute=ttl_key_name,
        )
        self._lifetime = ttl
        self._id_of = conversation_id
        self._owner_of = owner
        self._started_at = now()
        self._key_names: Sequence[str] = ()

    def conversations(self) -> Iterator[Conversation | Problem]:
        reply = self.run(single_call(Call("DescribeTable", {"TableName": self._table})))
        # HASH sorts before RANGE.
        schema = sorted(reply["Table"]["KeySchema"], key=lambda each: str(each["KeyType"]))
        self._key_names = [each["AttributeName"] for each in schema]
        yield from super().conversations()

    def items(self) -> Iterator[Item]:
        for item in super().items():
            # Skip archives, which are read with their first item, and cleared histories that are
            # not deleted yet.
            if FIRST_ITEM_KEY not in item and not is_cleared(
                item, self._history_template.messages_attribute
            ):
                yield item

    def id_of(self, item: Item) -> str | None:
        if self._history_template.messages_attribute not in item:
            return None
        return self._id_of(plain_values(self._key(item)))

    def read(self, conversation_id: str, item: Item) -> Original | None:
        history = replace(self._history_template, key=self._key(item))
        contents = self.run_within_limit(read_history(history, first=item, finish_removal=False))
        if contents.has_expired:
            return None
        key = plain_values(history.key)
        where = f"{history.messages_attribute!r} in item {key} of table {history.table_name!r}"
        expiry, time = self._times(contents.expires_at)
        messages = [
            _dated(to_chatledger(message), time, id_of_message(conversation_id, n))
            for n, message in enumerate(decode_messages(contents.elements, where), 1)
        ]
        conversation = Conversation(
            id=conversation_id,
            owner=self._owner_of(key),
            title=None,
            metadata={},
            created_at=time,
            updated_at=time,
            message_count=len(messages),
            revision=len(messages),
            expires_at=expiry,
        )
        return conversation, messages

    def _key(self, item: Item) -> Item:
        return {name: item[name] for name in self._key_names}

    def _times(self, expires_at: int | None) -> tuple[datetime | None, datetime]:
        """Return when a history expires, and when it was last written as far as that is known."""
        if expires_at is None:
            return None, self._started_at
        try:
            expiry = datetime.fromtimestamp(expires_at, UTC)
        except (OverflowError, OSError, ValueError):
            raise StoreMismatch(
                f"Its TTL, {expires_at}, is not a time in seconds since 1970; other software seems "
                "to have written it."
            ) from None
        if not self._lifetime:
            return expiry, self._started_at
        return expiry, min(
            self._started_at, normalize_time(expiry - timedelta(seconds=self._lifetime))
        )


def _dated(message: Message, time: datetime, new_id: str) -> Message:
    own = message.extra.get(EXTRA_KEY)
    # A message without an id in LangChain would get another one with each conversion.
    has_own_id = not (isinstance(own, dict) and "id" in own)
    return replace(message, created_at=time, id=message.id if has_own_id else new_id)
