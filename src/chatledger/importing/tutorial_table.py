"""Bringing the table of the usual Chalice, Bedrock and DynamoDB chatbot into a Chatledger store.

There a conversation is one item: ``conversation_id`` (the key), ``user_id``, ``created_at``,
``updated_at``, maybe ``ttl`` (seconds since 1970), ``messages``, a list of maps with ``role``,
``content`` and ``timestamp``, and ``metadata``, a map with ``message_count``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from chatledger.copying import Mismatch, Progress, Tell
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
from chatledger.importing.comparison import bring, standing
from chatledger.importing.tutorial_items import ATTRIBUTES, ROLE_NAMES, Found, Reading
from chatledger.langchain.connections import complete
from chatledger.langchain.refusals import HistoryTableMissing
from chatledger.messages import ROLES, Role
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item, Plan, paced
from chatledger.stores.dynamodb.errors import NO_CREDENTIALS, translated

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedTable:
    """What a copy of a tutorial's table did.

    ``conversations`` is how many stand in the store as in the source, be it from this run or from
    one before; ``messages`` how many this run brought over, and ``undated`` how many of these had
    no time of their own that could be read. ``expired`` conversations were left out; ``others``
    are items without a ``conversation_id``. What is in ``mismatches`` needs somebody to look at it.
    """

    conversations: int = 0
    messages: int = 0
    undated: int = 0
    expired: int = 0
    others: int = 0
    mismatches: tuple[Mismatch, ...] = ()


def unchanged(user_id: str | None) -> str | None:
    return user_id


def copy_tutorial_table(
    source: str,
    store: Store,
    *,
    client: "DynamoDBClient",
    owner: Callable[[str | None], str | None] = unchanged,
    roles: Mapping[str, Role] = ROLE_NAMES,
    units_per_second: float | None = None,
    progress: Tell | None = None,
) -> CopiedTable:
    """Copy every conversation of the table ``source`` to ``store``; nothing is written to it.

    ``client`` is ``boto3.client("dynamodb")``, for the account and region of the table; of that it
    needs ``dynamodb:Scan``. A conversation keeps its id, its owner (what ``owner`` makes of the
    ``user_id``; without one it is nobody's), its times, its metadata but for ``message_count``, and
    its messages in the order of their list, whatever their timestamps say. It expires at the second
    that its ``ttl`` says, and after each later change lives as long as it had left at its last one.
    One that has expired is left out. A ``ttl`` that is no number, or lies over five years back or a
    hundred ahead, is none.

    ``roles`` says which role a name, in lower case, stands for. Times may be ISO 8601, in UTC where
    they name no zone, or numbers since 1970. A message whose timestamp is missing, or cannot be
    read, bears that of the one before it, and the first one ``created_at``. A message without an id
    gets one made of the conversation's id and its place, so the same at every run. Its fields
    beside role, content, timestamp, id, tool_calls and tool_call_id are in ``extra["tutorial"]``,
    and so is a timestamp that cannot be read.

    A conversation of which anything else cannot be read is left out as a whole. One that the store
    has with other messages, with another owner, or with more than the source has, is not touched.
    All of these are named in ``mismatches``.

    Whatever ends it, call it again: what has arrived is compared, and not written again; what the
    source has got since is added. It takes ``units_per_second`` read units at most. At a time it
    holds a page of the table, of 1 MB, and the messages of one conversation. ``progress`` is told
    after each of these.

    Raises ``InvalidArgument``, ``TableMissing``, ``StoreUnavailable`` and ``AccessRefused``.
    """
    if not ROLES.issuperset(roles.values()):
        raise InvalidArgument(f"roles must name one of {', '.join(sorted(ROLES))} for each name.")
    copying = _Copying(store, Reading(owner, roles), progress)
    place: Item | None = None
    while True:
        page = _ask(paced(_page(source, place), units_per_second), client, source)
        for item in page["Items"]:
            copying.item(item)
        place = page.get("LastEvaluatedKey")
        if place is None:
            return copying.done()


@dataclass(slots=True)
class _Copying:
    """Brings one conversation after the other, and counts."""

    store: Store
    reading: Reading
    progress: Tell | None
    conversations: int = 0
    messages: int = 0
    undated: int = 0
    expired: int = 0
    others: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)

    def item(self, item: Item) -> None:
        """Copy the conversation that ``item`` is, if it is one."""
        id = _id_of(item)
        if id is None:
            self.others += 1
            return
        try:
            found = self.reading.conversation(id, item)
            if found is None:
                self.expired += 1
            else:
                self._bring(found)
                self.conversations += 1
        except NotFound:
            why = "It expired, or was deleted in the store, while it was copied."
            self.mismatches.append(Mismatch(id, why))
        except (StoreMismatch, InvalidArgument, AlreadyExists, Conflict) as refused:
            self.mismatches.append(Mismatch(id, str(refused)))
        if self.progress is not None:
            through = self.conversations + self.expired + len(self.mismatches)
            self.progress(
                Progress(conversations=through, messages=self.messages, conversation_id=id)
            )

    def _bring(self, found: Found) -> None:
        there = standing(self.store, found.conversation, found.messages, found.same)
        if there.revision is not None and there.revision > there.through:
            raise StoreMismatch(
                f"In the store it was changed, or went on, behind message {there.through}; it is "
                "left as it is there."
            )
        missing = found.messages[len(found.messages) - there.missing :]
        for count in bring(self.store, found.conversation, there):
            self.messages += count
            self.undated += sum(message.id in found.undated for message in missing[:count])
            del missing[:count]

    def done(self) -> CopiedTable:
        return CopiedTable(
            conversations=self.conversations,
            messages=self.messages,
            undated=self.undated,
            expired=self.expired,
            others=self.others,
            mismatches=tuple(self.mismatches),
        )


def _id_of(item: Item) -> str | None:
    attribute = item.get("conversation_id", {})
    if not isinstance(attribute, dict):
        raise InvalidArgument(
            "client is that of a boto3 resource, which changes what DynamoDB answers; pass "
            'boto3.client("dynamodb").'
        )
    return attribute.get("S")


def _page(table: str, place: Item | None) -> Plan[dict[str, Any]]:
    params: dict[str, Any] = {
        "TableName": table,
        "ConsistentRead": True,  # what was said just before is to come along
        # "ttl" and "messages" by themselves are not allowed here.
        "ProjectionExpression": ", ".join(f"#{name}" for name in ATTRIBUTES),
        "ExpressionAttributeNames": {f"#{name}": name for name in ATTRIBUTES},
    }
    if place is not None:
        params["ExclusiveStartKey"] = place
    reply: dict[str, Any] = yield Call("Scan", params)
    return reply


def _ask(plan: Plan[T], client: "DynamoDBClient", table: str) -> T:
    try:
        return complete(plan, client)
    except CallFailed as failed:
        raise _refusal(failed, table) from failed.__cause__


def _refusal(failed: CallFailed, table: str) -> ChatledgerError:
    if failed.code == "ResourceNotFoundException":
        remedy = "name a table that is there, and make the client for its region."
        return HistoryTableMissing(table, remedy)
    error = translated(failed, table)
    if isinstance(error, AccessRefused) and failed.code != NO_CREDENTIALS:
        return AccessRefused(
            f"AWS refused the call ({failed.code}): the credentials have expired, or may not read "
            f"table {table!r}; renew them, or allow dynamodb:Scan."
        )
    if isinstance(error, TableMismatch):
        return InvalidArgument(f"DynamoDB cannot scan {table!r}: {failed.message}")
    return error


__all__ = ["ROLE_NAMES", "CopiedTable", "copy_tutorial_table"]
