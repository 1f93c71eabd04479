"""The class that takes the place of ``langchain_community``'s, on the same tables.

    from chatledger.langchain import DynamoDBChatMessageHistory

How it keeps a history is in ``segments``.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from chatledger.errors import InvalidArgument, StoreUnavailable
from chatledger.json_values import checked_text
from chatledger.langchain.appends import append, not_a_history
from chatledger.langchain.clearing import clear
from chatledger.langchain.connections import complete, settings_of, shared_client
from chatledger.langchain.memory import Memory, Places
from chatledger.langchain.reading import History, read
from chatledger.langchain.refusals import refusal
from chatledger.langchain.segments import LARGEST_SEGMENT, OURS, Chain
from chatledger.langchain.stored import from_stored, to_stored
from chatledger.langchain.trimming import trim_first, trim_segments
from chatledger.stores.dynamodb.calls import CallFailed, Item, Plan

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import Table

T = TypeVar("T")

SMALLEST_SEGMENT = 1024
_PLACES = Places()


class DynamoDBChatMessageHistory(BaseChatMessageHistory):
    """A session's messages in a DynamoDB table that was made for LangChain's class of this name.

    The parameters are that class's, in its order, and so are the attributes: ``table``,
    ``session_id``, ``key``, ``ttl``, ``ttl_key_name``, ``history_size``, ``history_messages_key``
    and ``coerce_float_to_decimal``, which is taken and has no effect: floats come back as floats.
    ``kms_key_id`` is refused.

    Of ``history_size`` messages the last are read; with ``trim_storage`` no more are kept, either
    (to the message in a history of one item, and by whole items in one of several), which takes a
    second request an append.

    A history that is too large for one item goes on in further ones. With ``segment_bytes`` it
    does so as soon as an item holds that many bytes of messages, and an append costs no more than
    that, however long the history; LangChain's class sees the first item only. Without, there is
    one item as long as it fits (400 KB).

    ``consistent=False`` halves the price of reads, which then may miss what was just written.

    Nothing is sent by the constructor. All errors are ``ChatledgerError``.
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
        segment_bytes: int | None = None,
        trim_storage: bool = False,
        consistent: bool = True,
    ) -> None:
        """Raises ``InvalidArgument``, and ``AccessRefused`` for a configuration of AWS that is
        none.
        """
        if kms_key_id is not None:
            raise InvalidArgument(
                "kms_key_id asks for encryption on the client, which is not done here; have the "
                "table encrypted with your KMS key instead: aws dynamodb update-table --table-name "
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
        self.segment_bytes = segment_bytes
        self.trim_storage = trim_storage
        self.consistent = consistent
        self._table_name = table_name
        self._endpoint = endpoint_url or None
        self._session = boto3_session
        self._chain()
        self._client()

    @cached_property
    def table(self) -> "Table":
        """The table as boto3's resource has it, made when it is asked for."""
        import boto3

        session = self._session or boto3.DEFAULT_SESSION or boto3.Session()
        return session.resource("dynamodb", endpoint_url=self._endpoint).Table(self._table_name)

    @property
    def messages(self) -> list[BaseMessage]:
        """All messages in order, or the last ``history_size``.

        None where the history has expired, whether DynamoDB has deleted it or not.
        """
        chain = self._chain()
        history = self._read(chain)
        elements = []
        for item in history.items:
            attribute = item.get(chain.history, {"L": []})
            if "L" not in attribute:
                raise not_a_history(chain)
            elements += attribute["L"]
        where = f"{chain.history!r} in the history {self.key} of table {chain.table!r}"
        size = self.history_size
        skipped = max(0, len(elements) - size) if size else 0
        return from_stored(elements[skipped:], where, first=skipped)

    @messages.setter
    def messages(self, messages: list[BaseMessage]) -> None:
        raise NotImplementedError(
            "Direct assignment to 'messages' is not allowed. Use the 'add_messages' instead."
        )

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add ``messages`` behind the last one, all of them or none, in one request.

        Chunks are stored as the messages they make up. Raises ``InvalidMessage``,
        ``MessageTooLarge``, ``StoreMismatch`` and ``StoreUnavailable``.
        """
        elements = to_stored(messages)
        if not elements:
            return
        chain = self._chain()
        size = self.history_size if self.trim_storage else None
        answer = "UPDATED_NEW" if size else "NONE"
        appended = self._run(append(chain, elements, self._memory(chain), answer=answer), chain)
        if not size:
            return
        if appended.grown:
            self._run(trim_segments(chain, size), chain)
        elif appended.elements and self._memory(chain).get() is None:
            self._run(trim_first(chain, appended.elements, size), chain)

    def clear(self) -> None:
        """Remove all messages. What is added from then on begins a new history."""
        chain = self._chain()
        self._memory(chain).forget()
        self._run(clear(chain), chain)

    def _read(self, chain: Chain) -> History:
        try:
            history = self._run(read(chain), chain)
        except StoreUnavailable as failed:
            failed.may_have_landed = False  # there was nothing to land
            raise
        self._memory(chain).seen(history.place)
        return history

    def _run(self, plan: Plan[T], chain: Chain) -> T:
        try:
            return complete(plan, self._client())
        except CallFailed as failed:
            raise refusal(failed, chain) from failed.__cause__

    def _client(self) -> "DynamoDBClient":
        return shared_client(self._session, self._endpoint)

    def _memory(self, chain: Chain) -> Memory:
        where = settings_of(self._session, self._endpoint)
        key = tuple(sorted((name, repr(value)) for name, value in chain.key.items()))
        history: Hashable = (where, chain.table, key, chain.history)
        return Memory(_PLACES, history)

    def _chain(self) -> Chain:
        """By the attributes as they are now; they are public. Raises ``InvalidArgument``."""
        key = _checked_key(self.key)
        names = {"ttl_key_name": self.ttl_key_name}
        names["history_messages_key"] = self.history_messages_key
        for what, name in names.items():
            _check_text(name, what)
            if name in OURS or name in key:
                raise InvalidArgument(
                    f"{what} is {name!r}, which is the name of another attribute."
                )
        if self.ttl_key_name == self.history_messages_key:
            raise InvalidArgument("ttl_key_name and history_messages_key must differ.")
        _check_number(self.ttl, "ttl", 0)
        _check_number(self.history_size, "history_size", 0)
        _check_number(self.segment_bytes, "segment_bytes", SMALLEST_SEGMENT, LARGEST_SEGMENT)
        return Chain(
            table=self._table_name,
            key=key,
            history=self.history_messages_key,
            ttl_name=self.ttl_key_name,
            lifetime=self.ttl or None,
            segment_bytes=self.segment_bytes,
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
            f"key has the attributes {', '.join(map(repr, item))}; it has the table's partition "
            "key and, where there is one, its sort key, and one of them is text."
        )
    return item


def _check_text(value: object, what: str) -> None:
    if not checked_text(value, what, error=InvalidArgument):
        raise InvalidArgument(f"{what} is empty; it must name something.")


def _check_number(value: object, what: str, least: int, most: int | None = None) -> None:
    if value is None:
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not least <= value <= (most or value)
    ):
        until = "" if most is None else f" to {most:,}"
        raise InvalidArgument(
            f"{what} is {value!r}; it must be a whole number from {least:,}{until}."
        )
