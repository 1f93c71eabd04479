"""Bringing the histories of a table of the old class into a Chatledger store."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from chatledger.conversations import Conversation
from chatledger.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, StoreMismatch
from chatledger.importing.comparison import bring, standing, unordered
from chatledger.langchain.appends import not_a_history
from chatledger.langchain.checkpoints import Checkpoint, Problem, Report
from chatledger.langchain.connections import complete, shared_client
from chatledger.langchain.reading import read
from chatledger.langchain.refusals import HistoryTableMissing, refusal
from chatledger.langchain.segments import ENDED, OF, SEGMENTS, Chain, integer_in
from chatledger.langchain.stored import from_stored
from chatledger.langchain.values import decode
from chatledger.langchain_messages import to_chatledger
from chatledger.messages import Message, now, to_milliseconds
from chatledger.stores.contract import Store
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan, paced

if TYPE_CHECKING:
    import boto3

Key = Mapping[str, Any]
"""The key of an item of the source, such as ``{"SessionId": "1"}``."""

RIGHTS = "dynamodb:DescribeTable, Scan, GetItem and BatchGetItem"
MOST_SEGMENTS = 64


def joined(key: Key) -> str:
    """The values of a key, with ``#`` between them: a session's own id where it is the key."""
    return "#".join(str(value) for value in key.values())


def nobody(_: Key) -> str | None:
    return None


def copy_langchain_table(
    source: str,
    store: Store,
    *,
    endpoint_url: str | None = None,
    boto3_session: "boto3.Session | None" = None,
    history_messages_key: str = "History",
    ttl_key_name: str = "expireAt",
    ttl: int | None = None,
    conversation_id: Callable[[Key], str] = joined,
    owner: Callable[[Key], str | None] = nobody,
    segments: int = 4,
    units_per_second: float | None = None,
    checkpoint: Path | str | None = None,
    progress: Callable[[Report], object] | None = None,
) -> Report:
    """Copy every history of the table ``source`` to ``store``, and write nothing to the source.

    A history becomes the conversation that ``conversation_id`` and ``owner`` make of its key, with
    the same messages in the same order and of the same types. One with a TTL expires at the same
    second. What it lives for after each later change is ``ttl`` seconds, if these are given, which
    should be what the old class was given; or else what it has left now. One that has expired
    already is left out. The old class kept no times: a conversation and its messages bear the time
    of the last write, which is known where ``ttl`` is, or that of the copy.

    A history that cannot be read, or that the store has in another form, is left out as a whole and
    named in the report's ``problems``. Items without the attribute ``history_messages_key`` are no
    histories; ``others`` counts them.

    The table is read in so many ``segments`` at once, at ``units_per_second`` read units together
    at most. Whatever ends it, call it again: what has arrived is compared, and copied no second
    time. With ``checkpoint``, the path of a file, it also reads on from where it was; the file is
    gone when all is done. ``progress`` is told after every page of the source.

    Raises ``InvalidArgument``, ``TableMissing``, ``StoreUnavailable`` and ``AccessRefused``.
    """
    if not isinstance(segments, int) or not 1 <= segments <= MOST_SEGMENTS:
        raise InvalidArgument(f"segments is {segments!r}; it must be from 1 to {MOST_SEGMENTS}.")
    client = shared_client(boto3_session, endpoint_url)
    saved = Checkpoint.load(checkpoint, source, segments)
    chain = Chain(table=source, key={}, history=history_messages_key, ttl_name=ttl_key_name)

    rate = None if units_per_second is None else units_per_second / segments

    def ask(plan: Plan[Any]) -> Any:
        try:
            return complete(plan, client)
        except CallFailed as failed:
            if failed.code == "ResourceNotFoundException":
                remedy = "name a table that is there, and its region or endpoint_url."
                raise HistoryTableMissing(source, remedy) from failed.__cause__
            raise refusal(failed, chain, rights=RIGHTS) from failed.__cause__

    names = ask(_key_names(source))
    copying = _Copying(
        chain, store, names, ttl, conversation_id, owner, lambda plan: ask(paced(plan, rate))
    )
    stopped = Event()

    def segment(n: int) -> None:
        try:
            while not saved.done(n) and not stopped.is_set():
                page = ask(paced(_page(chain, n, segments, saved.place(n)), rate))
                report = Report()
                for item in page["Items"]:
                    copying.item(item, report)
                told = saved.advance(n, page.get("LastEvaluatedKey"), report)
                if progress is not None:
                    progress(told)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(segments, thread_name_prefix="copy-langchain") as pool:
        running = [pool.submit(segment, n) for n in range(segments)]
    for each in running:
        each.result()
    return saved.finished()


@dataclass(frozen=True, slots=True)
class _Copying:
    """Brings one history after the other."""

    chain: Chain
    store: Store
    names: Sequence[str]
    ttl: int | None
    id_of: Callable[[Key], str]
    owner_of: Callable[[Key], str | None]
    ask: Callable[[Plan[Any]], Any]
    started: datetime = field(default_factory=now)

    def item(self, item: Item, report: Report) -> None:
        """Copy the history that begins with ``item``, if one does, and say so in ``report``."""
        if OF in item:
            return  # it belongs to another, with which it is read
        if self.chain.history not in item:
            report.others += 1
            return
        if ENDED in item and SEGMENTS not in item and not item[self.chain.history].get("L"):
            return  # what is left of one that was cleared
        key = {name: decode(item[name], ()) for name in self.names}
        chain = replace(self.chain, key={name: item[name] for name in self.names})
        try:
            found = self._read(chain, item)
            if found is None:
                report.expired += 1
                return
            elements, expires = found
            where = f"{chain.history!r} in item {key} of table {chain.table!r}"
            messages = [to_chatledger(message) for message in from_stored(elements, where)]
            self._bring(self._conversation(key, len(messages), expires), messages, report)
            report.conversations += 1
        except (StoreMismatch, InvalidArgument, AlreadyExists, Conflict, NotFound) as why:
            report.problems.append(Problem(key, str(why)))

    def _read(self, chain: Chain, item: Item) -> tuple[list[Attribute], int | None] | None:
        """Its elements and its end; None if that is past."""
        items: Sequence[Item] = (item,)
        expires = integer_in(item, chain.ttl_name)
        if SEGMENTS in item:
            history = self.ask(read(chain, finish=False))
            items, expires = history.items, history.expires
        if not items or (expires is not None and expires <= chain.now()):
            return None
        elements: list[Attribute] = []
        for each in items:
            attribute = each.get(chain.history, {"L": []})
            if "L" not in attribute:
                raise not_a_history(chain)
            elements += attribute["L"]
        return elements, expires

    def _conversation(self, key: Key, count: int, expires: int | None) -> Conversation:
        time = self.started
        try:
            ends = None if expires is None else datetime.fromtimestamp(expires, UTC)
        except (OverflowError, OSError, ValueError):
            raise StoreMismatch(
                f"Its TTL, {expires}, is no time in seconds since 1970; other software seems to "
                "have written it."
            ) from None
        if ends is not None and self.ttl:
            time = min(time, to_milliseconds(ends - timedelta(seconds=self.ttl)))
        return Conversation(
            id=self.id_of(key),
            owner=self.owner_of(key),
            title=None,
            metadata={},
            created_at=time,
            updated_at=time,
            message_count=count,
            revision=count,
            expires_at=ends,
        )

    def _bring(
        self, conversation: Conversation, messages: Sequence[Message], report: Report
    ) -> None:
        """Put into the store what is missing there. Raises ``StoreMismatch`` if it has another."""
        time = conversation.updated_at
        dated = [replace(message, created_at=time) for message in messages]
        there = standing(self.store, conversation, dated, _same)
        for count in bring(self.store, conversation, there):
            report.messages += count


def _same(there: Message, ours: Message) -> bool:
    return _said(there) == _said(ours)


def _said(message: Message) -> tuple[str | None, str]:
    """What does not depend on when it was copied; by text, for ``==`` takes 1 for 1.0."""
    own = message.extra.get("langchain")
    unnamed = isinstance(own, dict) and "id" in own  # then Chatledger's id is a new one each time
    id = None if unnamed else message.id
    return id, repr(unordered([message.role, message.content, message.extra]))


def _key_names(table: str) -> Plan[list[str]]:
    reply = yield Call("DescribeTable", {"TableName": table})
    schema = sorted(reply["Table"]["KeySchema"], key=lambda each: str(each["KeyType"]))  # HASH
    return [each["AttributeName"] for each in schema]


def _page(chain: Chain, n: int, segments: int, place: Item | None) -> Plan[dict[str, Any]]:
    params: dict[str, Any] = {
        "TableName": chain.table,
        "Segment": n,
        "TotalSegments": segments,
        "ConsistentRead": True,
    }
    if place is not None:
        params["ExclusiveStartKey"] = place
    reply: dict[str, Any] = yield Call("Scan", params)
    return reply
