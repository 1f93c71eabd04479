"""Replacement for ``langchain_community``'s history class, on the same tables.

    from chatledger.langchain import DynamoDBChatMessageHistory

The module ``stored_history`` describes how a history is stored.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from chatledger.errors import InvalidArgument, StoreUnavailable
from chatledger.langchain.connections import shared_client
from chatledger.langchain.elements import decode_messages, encode_messages
from chatledger.langchain.errors import error_for
from chatledger.langchain.plans import append_messages, clear_history, read_history
from chatledger.langchain.stored_history import LARGEST_ARCHIVE, RESERVED_ATTRIBUTES, History
from chatledger.stores.arguments import checked_number
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import CallFailed, Item, Plan
from chatledger.values import checked_text

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import Table

T = TypeVar("T")

MIN_FIRST_ITEM_BYTES = 1024


class DynamoDBChatMessageHistory(BaseChatMessageHistory):
    """The messages of a session in a DynamoDB table created for LangChain's class of this name.

    Parameters and attributes are those of ``langchain_community``'s class, in the same order. All
    errors are ``ChatledgerError``. The constructor makes no request.

    If a history is too large for one item (400 KB), its oldest messages move to further items.
    LangChain's class sees only the newest messages, which stay in the first one.

    Args:
        table_name: The table.
        session_id: The session.
        endpoint_url: URL of DynamoDB; by default that of the AWS region.
        primary_key_name: The table's partition key, if it has no sort key.
        key: The item's whole primary key, instead of ``primary_key_name``.
        boto3_session: Session to take credentials and region from.
        kms_key_id: Not supported; anything but None raises ``InvalidArgument``.
        ttl: Seconds from each append until the history expires. None leaves the TTL as it is.
        ttl_key_name: The table's TTL attribute.
        history_size: Number of last messages to read. None reads all.
        history_messages_key: Attribute that holds the messages.
        coerce_float_to_decimal: Accepted without effect; floats are read back as floats.
        first_item_bytes: Bytes of messages that the first item may hold before the oldest move to
            an archive. This bounds the cost of an append, no matter how long the history is. None
            fills the item.
        trim_storage: Whether to delete messages beyond ``history_size`` as well, with a second
            request per append. Messages in further items are deleted by whole items.
        consistent: Whether reads see all completed writes. False halves their price.

    Raises:
        InvalidArgument: An argument is invalid.
        AccessRefused: The AWS configuration is invalid.
    """

    def __init__(
        self,
        table_name: str,
        session_id: str,
        endpoint_url: str | None = None,
        primary_key_name: str = "SessionId",
        key: Mapping[str, str] | None = None,
        boto3_session: "boto3.Session | None" = None,
        kms_key_id: str | None = None,
        ttl: int | None = None,
        ttl_key_name: str = "expireAt",
        history_size: int | None = None,
        history_messages_key: str = "History",
        *,
        coerce_float_to_decimal: bool = False,
        first_item_bytes: int | None = None,
        trim_storage: bool = False,
        consistent: bool = True,
    ) -> None:
        if kms_key_id is not None:
            raise InvalidArgument(
                "kms_key_id means client-side encryption, which is not supported; encrypt the "
                "table with your KMS key instead: aws dynamodb update-table --table-name "
                f"{table_name} --sse-specification Enabled=true,SSEType=KMS,KMSMasterKeyId=..., "
                "and leave kms_key_id out."
            )
        _check_text(table_name, "table_name")
        _check_text(session_id, "session_id")
        self.session_id = session_id
        self.key: dict[str, Any] = dict(key) if key else {primary_key_name: session_id}
        self.ttl = ttl
        self.ttl_key_name = ttl_key_name
        self.history_size = history_size
        self.history_messages_key = history_messages_key
        self.coerce_float_to_decimal = coerce_float_to_decimal
        self.first_item_bytes = first_item_bytes
        self.trim_storage = trim_storage
        self.consistent = consistent
        self._table_name = table_name
        self._endpoint = endpoint_url or None
        self._session = boto3_session
        self._history()
        self._client()

    @cached_property
    def table(self) -> "Table":
        """The table as a boto3 resource, created on first use."""
        import boto3

        session = self._session or boto3.DEFAULT_SESSION or boto3.Session()
        return session.resource("dynamodb", endpoint_url=self._endpoint).Table(self._table_name)

    @property
    def messages(self) -> list[BaseMessage]:
        """All messages in order, or the last ``history_size``.

        Empty if the history has expired, even if DynamoDB has not deleted it yet.
        """
        history = self._history()
        try:
            elements = self._run(read_history(history), history).elements
        except StoreUnavailable as failed:
            failed.may_have_landed = False  # a read writes nothing
            raise
        name = history.messages_attribute
        where = f"{name!r} in the history {self.key} of table {history.table_name!r}"
        skipped = max(0, len(elements) - self.history_size) if self.history_size else 0
        return decode_messages(elements[skipped:], where, first=skipped)

    @messages.setter
    def messages(self, messages: list[BaseMessage]) -> None:
        raise NotImplementedError(
            "Direct assignment to 'messages' is not allowed. Use the 'add_messages' instead."
        )

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append ``messages``, all of them or none.

        This takes one request, or a few if the first item is full. Chunks are stored as messages.

        Raises:
            InvalidArgument: ``messages`` is not a list of messages.
            InvalidMessage: A message cannot be stored; the error names the part at fault.
            MessageTooLarge: A message does not fit in an item, or all are more than 3 MB.
            StoreMismatch: The table or the item is not one of a LangChain history.
            StoreUnavailable: DynamoDB did not complete the append in time.
        """
        if elements := encode_messages(messages):
            history = self._history()
            keep = self.history_size if self.trim_storage else None
            self._run(append_messages(history, elements, keep=keep or None), history)

    def clear(self) -> None:
        """Remove all messages. The next append starts a new history."""
        history = self._history()
        self._run(clear_history(history), history)

    def _run(self, plan: Plan[T], history: History) -> T:
        try:
            return Boto3Calls(self._client()).run_untranslated(plan)
        except CallFailed as failed:
            raise error_for(failed, history) from failed.__cause__

    def _client(self) -> "DynamoDBClient":
        return shared_client(self._session, self._endpoint)

    def _history(self) -> History:
        """Return the history with the current settings, which are public attributes.

        Raises:
            InvalidArgument: A setting is invalid.
        """
        key = _checked_key(self.key)
        names = {"ttl_key_name": self.ttl_key_name}
        names["history_messages_key"] = self.history_messages_key
        for parameter, name in names.items():
            _check_text(name, parameter)
            if name in RESERVED_ATTRIBUTES or name in key:
                raise InvalidArgument(
                    f"{parameter} is {name!r}, which is the name of another attribute; use another "
                    "name."
                )
        if self.ttl_key_name == self.history_messages_key:
            raise InvalidArgument("ttl_key_name and history_messages_key must differ.")
        if self.ttl is not None:
            checked_number(self.ttl, "ttl", least=0)
        if self.history_size is not None:
            checked_number(self.history_size, "history_size", least=0)
        if self.first_item_bytes is not None:
            checked_number(
                self.first_item_bytes,
                "first_item_bytes",
                least=MIN_FIRST_ITEM_BYTES,
                most=LARGEST_ARCHIVE,
            )
        return History(
            table_name=self._table_name,
            key=key,
            messages_attribute=self.history_messages_key,
            ttl_attribute=self.ttl_key_name,
            lifetime=self.ttl or None,
            first_item_bytes=self.first_item_bytes,
            consistent=self.consistent,
        )


def _checked_key(key: Mapping[str, object]) -> Item:
    item: Item = {}
    for name, value in key.items():
        _check_text(name, "a name in key")
        if isinstance(value, int) and not isinstance(value, bool):
            item[name] = {"N": str(int(value))}
        else:
            _check_text(value, f"key[{name!r}]")
            item[name] = {"S": str.__str__(value)}
    if len(item) > 2 or all("N" in value for value in item.values()):
        raise InvalidArgument(
            f"key has the attributes {', '.join(map(repr, item))}; pass the table's partition key "
            "and, if there is one, its sort key; one of them must be text."
        )
    return item


def _check_text(value: object, name: str) -> None:
    if not checked_text(value, name, error=InvalidArgument):
        raise InvalidArgument(f"{name} is empty; pass a non-empty str.")
