"""Copy of the table of the usual Chalice, Bedrock and DynamoDB chatbot tutorial to a store.

In that table a conversation is one item: ``conversation_id`` (the key), ``user_id``,
``created_at``, ``updated_at``, possibly ``ttl`` (seconds since 1970), ``messages``, a list of maps
with ``role``, ``content`` and ``timestamp``, and ``metadata``, a map with ``message_count``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from chatledger.copying import Mismatch, OnProgress, Progress
from chatledger.errors import (
    AccessRefused,
    AlreadyExists,
    ChatledgerError,
    Conflict,
    InvalidArgument,
    NotFound,
    StoreMismatch,
    TableMismatch,
)
from chatledger.importing.comparison import compare, import_missing
from chatledger.importing.tutorial_items import (
    ATTRIBUTES,
    ROLE_NAMES,
    ItemParser,
    SourceConversation,
)
from chatledger.langchain.connections import run_plan
from chatledger.langchain.errors import HistoryTableMissing
from chatledger.messages import ROLES, Role
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, paced
from chatledger.stores.dynamodb.errors import INVALID_SIGNATURE, NO_CREDENTIALS, store_error

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["ROLE_NAMES", "CopiedTable", "copy_tutorial_table"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedTable:
    """Result of ``copy_tutorial_table``.

    Attributes:
        conversations: Conversations that are now the same in the store as in the source, whether
            this run or an earlier one copied them.
        messages: Messages that this run copied.
        undated: How many of these had no readable time of their own.
        expired: Conversations that were left out because they have expired.
        others: Items without a ``conversation_id``.
        mismatches: Conversations that were not copied and need attention.
    """

    conversations: int = 0
    messages: int = 0
    undated: int = 0
    expired: int = 0
    others: int = 0
    mismatches: tuple[Mismatch, ...] = ()


def same_owner(user_id: str | None) -> str | None:
    return user_id


def copy_tutorial_table(
    source: str,
    store: Store,
    *,
    client: "DynamoDBClient",
    owner: Callable[[str | None], str | None] = same_owner,
    roles: Mapping[str, Role] = ROLE_NAMES,
    units_per_second: float | None = None,
    progress: OnProgress | None = None,
) -> CopiedTable:
    """Copy every conversation of a tutorial's table to a store. Nothing is written to the source.

    A conversation keeps its id, its owner, its times, its metadata except ``message_count``, and
    its messages in the order of their list, whatever their timestamps are.

    It expires at the second given by its ``ttl``; after each later change it lives as long as it
    had left at its last change in the source. Expired conversations are left out. A ``ttl`` is
    ignored if it is not a number, or is more than five years in the past or a hundred years in the
    future.

    Times may be ISO 8601, in UTC unless they have a zone, or numbers since 1970. A message without
    a readable timestamp gets the time of the message before it, or ``created_at`` if it is the
    first. A message without an id gets one derived from the conversation id and its position, the
    same in every run. Fields other than role, content, timestamp, id, tool_calls and tool_call_id
    are stored in ``extra["tutorial"]``, as is a timestamp that cannot be read.

    A conversation is left out as a whole if anything else in it cannot be read. It is left alone if
    the store has it with other messages, another owner, or more messages than the source. All of
    these are reported in ``mismatches``.

    If the copy is interrupted, call it again: conversations that have arrived are compared and not
    written again, and messages that the source has gained are added. Memory holds one page of the
    table (1 MB) and the messages of one conversation.

    Args:
        source: The table to copy.
        store: The store to copy to.
        client: ``boto3.client("dynamodb")`` for the account and region of the table. It needs
            ``dynamodb:Scan``.
        owner: Returns the owner for a ``user_id``, or None for an anonymous conversation.
        roles: Roles by the names that stand for them, in lower case.
        units_per_second: Limit on the read units to consume.
        progress: Called after each conversation.

    Raises:
        InvalidArgument: An argument is invalid.
        TableMissing: The source does not exist.
        AccessRefused: AWS refused the credentials, or they lack a permission.
        StoreUnavailable: DynamoDB or the store did not answer in time.
    """
    if not ROLES.issuperset(roles.values()):
        raise InvalidArgument(f"roles must map each name to one of {', '.join(sorted(ROLES))}.")
    table_copy = _TutorialCopy(store, ItemParser(owner, roles), progress)
    last_key: Item | None = None
    while True:
        page = _run(paced(_scan_page(source, last_key), units_per_second), client, source)
        for item in page["Items"]:
            table_copy.copy_item(item)
        last_key = page.get("LastEvaluatedKey")
        if last_key is None:
            return table_copy.result()


@dataclass(slots=True)
class _TutorialCopy:
    """Copies single conversations and counts them."""

    store: Store
    parser: ItemParser
    progress: OnProgress | None
    conversations: int = 0
    messages: int = 0
    undated: int = 0
    expired: int = 0
    others: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)

    def copy_item(self, item: Item) -> None:
        """Copy the conversation in ``item``, if it is one."""
        id = _conversation_id(item)
        if id is None:
            self.others += 1
            return
        try:
            conversation = self.parser.parse(id, item)
            if conversation is None:
                self.expired += 1
            else:
                self._import(conversation)
                self.conversations += 1
        except NotFound:
            why = "It expired, or was deleted in the store, while it was copied."
            self.mismatches.append(Mismatch(id, why))
        except (StoreMismatch, InvalidArgument, AlreadyExists, Conflict) as error:
            self.mismatches.append(Mismatch(id, str(error)))
        if self.progress is not None:
            done = self.conversations + self.expired + len(self.mismatches)
            self.progress(Progress(conversations=done, messages=self.messages, conversation_id=id))

    def _import(self, source: SourceConversation) -> None:
        comparison = compare(self.store, source.conversation, source.messages, source.is_same)
        if comparison.revision is not None and comparison.revision > comparison.through:
            raise StoreMismatch(
                "In the store it was changed or continued after message "
                f"{comparison.through}; it was left as it is there."
            )
        missing = comparison.missing
        for count in import_missing(self.store, source.conversation, comparison):
            self.messages += count
            self.undated += sum(message.id in source.undated for message in missing[:count])
            del missing[:count]

    def result(self) -> CopiedTable:
        return CopiedTable(
            conversations=self.conversations,
            messages=self.messages,
            undated=self.undated,
            expired=self.expired,
            others=self.others,
            mismatches=tuple(self.mismatches),
        )


def _conversation_id(item: Item) -> str | None:
    attribute = item.get("conversation_id", {})
    if not isinstance(attribute, dict):
        raise InvalidArgument(
            "client belongs to a boto3 resource, which converts DynamoDB's replies; pass "
            'boto3.client("dynamodb").'
        )
    return attribute.get("S")


def _scan_page(table: str, last_key: Item | None) -> Plan[dict[str, Any]]:
    params: dict[str, Any] = {
        "TableName": table,
        "ConsistentRead": True,  # the copy must include messages saved just before
        # Placeholders, because "ttl" and "messages" are reserved words.
        "ProjectionExpression": ", ".join(f"#{name}" for name in ATTRIBUTES),
        "ExpressionAttributeNames": {f"#{name}": name for name in ATTRIBUTES},
    }
    if last_key is not None:
        params["ExclusiveStartKey"] = last_key
    reply: dict[str, Any] = yield Call("Scan", params)
    return reply


def _run(plan: Plan[T], client: "DynamoDBClient", table: str) -> T:
    try:
        return run_plan(plan, client)
    except CallFailed as failed:
        raise _error_for(failed, table) from failed.__cause__


def _error_for(failed: CallFailed, table: str) -> ChatledgerError:
    if failed.code == "ResourceNotFoundException":
        remedy = "name an existing table, and make the client for its region."
        return HistoryTableMissing(table, remedy)
    error = store_error(failed, table)
    if isinstance(error, AccessRefused) and failed.code not in (INVALID_SIGNATURE, NO_CREDENTIALS):
        return AccessRefused(
            f"AWS refused the call ({failed.code}): the credentials have expired, or may not read "
            f"table {table!r}; renew them, or allow dynamodb:Scan."
        )
    if isinstance(error, TableMismatch):
        return InvalidArgument(f"DynamoDB cannot scan {table!r}: {failed.message}")
    return error
