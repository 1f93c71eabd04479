"""Tables of other software as sources, read by a scan of one page (1 MB) at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar
from uuid import UUID, uuid5

from boto3.dynamodb.types import TypeDeserializer

from chatledger.conversations import Conversation, Page
from chatledger.copying.progress import Problem
from chatledger.errors import (
    ChatledgerError,
    InvalidArgument,
    StoreMismatch,
    TableMismatch,
    TableMissing,
)
from chatledger.messages import Message
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, paced
from chatledger.stores.dynamodb.errors import store_error

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

Original: TypeAlias = tuple[Conversation, Sequence[Message]]
"""A conversation and all its messages."""

_NAMESPACE = UUID("0f5d0f5e-58f2-5b52-9c0c-6d1b0c2f3a77")
"""Namespace (RFC 9562) of the ids of messages that had none. It must never change."""


class TableReader:
    """Reads a DynamoDB table of other software.

    Args:
        table: The table's name.
        client: ``boto3.client("dynamodb")`` for the account and region of the table.
        units_per_second: Limit on the read units to consume.
        segment: The segment of the table to read: its number, from 0, and the number of segments.
            Several threads or processes can copy a large table together, a segment each.

    Attributes:
        expired: The number of conversations that were left out because they have expired.
    """

    permissions: ClassVar[str]
    """The IAM permissions to name if access is denied."""

    def __init__(
        self,
        table: str,
        client: "DynamoDBClient",
        *,
        units_per_second: float | None,
        segment: tuple[int, int] | None,
    ) -> None:
        if segment is not None and not 0 <= segment[0] < segment[1]:
            raise InvalidArgument(
                "segment must be the number of a segment, from 0, and the number of segments."
            )
        self._table = table
        self._calls = Boto3Calls(client)
        self._units_per_second = units_per_second
        self._segment = segment
        self.expired = 0

    def run(self, plan: Plan[T]) -> T:
        """Run a plan and return its result.

        Raises:
            AccessRefused: AWS refused the credentials, or they lack a permission.
            StoreUnavailable: DynamoDB did not answer in time.
            TableMissing: There is no such table.
        """
        try:
            return self._calls.run_untranslated(plan)
        except CallFailed as failed:
            raise self._error_for(failed) from failed.__cause__

    def run_within_limit(self, plan: Plan[T]) -> T:
        """Run a plan as ``run`` does, within the limit on read units."""
        return self.run(paced(plan, self._units_per_second))

    def scan_params(self) -> dict[str, Any]:
        """Return further parameters for ``Scan``."""
        return {}

    def items(self) -> Iterator[Item]:
        """Yield every item, unless a subclass leaves some out."""
        params = {
            "TableName": self._table,
            "ConsistentRead": True,  # the copy must include messages saved just before
            **self.scan_params(),
        }
        if self._segment is not None:
            params["Segment"], params["TotalSegments"] = self._segment
        while True:
            reply = self.run_within_limit(single_call(Call("Scan", params)))
            for item in reply["Items"]:
                if not all(isinstance(attribute, dict) for attribute in item.values()):
                    raise InvalidArgument(
                        "client belongs to a boto3 resource, which converts DynamoDB's replies; "
                        'pass boto3.client("dynamodb").'
                    )
                yield item
            last_key = reply.get("LastEvaluatedKey")
            if last_key is None:
                return
            params["ExclusiveStartKey"] = last_key

    def _error_for(self, failed: CallFailed) -> ChatledgerError:
        if failed.code == "ResourceNotFoundException":
            remedy = "name an existing table, and make the client for its region."
            return TableMissing(self._table, remedy)
        error = store_error(failed, self._table, use="read", grant=f"allow {self.permissions}")
        if isinstance(error, TableMismatch):
            return InvalidArgument(f"DynamoDB cannot read {self._table!r}: {failed.message}")
        return error


class TableSource(TableReader, ABC):
    """A DynamoDB table of other software whose conversations ``copy`` copies to a store.

    Only one page and one conversation are in memory at a time. The arguments are those of
    ``TableReader``.

    Attributes:
        others: The number of items that are not conversations.
    """

    others = 0
    _messages: Sequence[Message] = ()

    @abstractmethod
    def id_of(self, item: Item) -> str | None:
        """Return the id of the conversation in ``item``, or None if it is not a conversation."""

    @abstractmethod
    def read(self, conversation_id: str, item: Item) -> Original | None:
        """Return the conversation in ``item``, or None if it has expired.

        Raises:
            StoreMismatch: It cannot be read. Neither error quotes a message.
            InvalidArgument: A value in it is invalid.
        """

    def conversations(self) -> Iterator[Conversation | Problem]:
        """Yield every conversation, as ``Source`` promises."""
        for item in self.items():
            id = self.id_of(item)
            if id is None:
                self.others += 1
                continue
            try:
                original = self.read(id, item)
            except (StoreMismatch, InvalidArgument) as error:
                yield Problem(id, str(error))
                continue
            if original is None:
                self.expired += 1
            else:
                conversation, self._messages = original
                yield conversation

    def page(self, conversation_id: str, *, after: int, limit: int) -> Page:
        """Return messages of the conversation that was yielded last, as ``Source`` promises."""
        end = after + limit
        messages = [
            message.with_seq(seq)
            for seq, message in enumerate(self._messages[after:end], after + 1)
        ]
        return Page(messages, end if end < len(self._messages) else None)


def single_call(call: Call) -> Plan[Any]:
    """Make one call and return its reply."""
    return (yield call)


def id_of_message(conversation_id: str, number: int) -> str:
    """Return an id for a message without one: the same in every run."""
    return str(uuid5(_NAMESPACE, f"{number} {conversation_id}"))


class _Deserializer(TypeDeserializer):
    """Numbers become int or float, and not Decimal; binary values stay bytes."""

    def _deserialize_n(self, value: str) -> int | float:
        number = Decimal(value)
        return int(number) if number == number.to_integral_value() else float(value)

    def _deserialize_b(self, value: bytes) -> bytes:
        return value


_deserializer: Any = _Deserializer()


def plain_values(item: Item) -> dict[str, Any]:
    """Return an item's attributes as plain values, by their names."""
    return {name: _deserializer.deserialize(attribute) for name, attribute in item.items()}
