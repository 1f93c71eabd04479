"""``ChatledgerStore``, LangGraph's long-term memory in any store."""

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
)

from chatledger.conversations import MAX_LIMIT
from chatledger.entries import Entries, Entry
from chatledger.errors import Conflict, InvalidArgument, NotFound
from chatledger.langgraph.filters import common_beginning, fields_test, matches
from chatledger.langgraph.items import (
    StoredItem,
    checked_ttl,
    content_of,
    end_of_namespace,
    lifetime_of,
    name_of,
    prefix_of,
    split_name,
)
from chatledger.langgraph.vectors import Ranking, pack_vector, unit_vector
from chatledger.sansio import arun, run
from chatledger.stores.arguments import checked_entry_value, checked_id, checked_number
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.cursors import encode_cursor

T = TypeVar("T")

PAGE_SIZE: Final = 100
"""The entries that are read at once to list namespaces, or to rank items."""
GUARDED_PUTS: Final = 4
"""The most times that a put reads the item again after a rival, before it replaces any value."""


class Embed(NamedTuple):
    """A step: embed texts, and return one vector for each."""

    texts: list[str]
    is_query: bool


Steps: TypeAlias = Generator[Callable[[], Any] | Embed, Any, T]
"""A generator that yields store operations and texts to embed."""


class Put(NamedTuple):
    """A checked ``PutOp``."""

    name: str
    value: dict[str, Any] | None
    """None deletes the item."""
    texts: list[str]
    """The texts of it that are embedded."""
    ttl: float | None


class ChatledgerStore(BaseStore):
    """LangGraph's long-term memory in any Chatledger store: SQLite, DynamoDB or one of your own.

    Each item is an entry of one owner, and a put or a delete is durable when it returns. A
    ``ChatledgerStore`` may be used by any number of threads, tasks and processes at once. It makes
    no request when it is made, and does not close the Chatledger store, whose errors each method
    may raise.

    **Owners.** All items are in one partition on DynamoDB, which takes 1,000 write units and 3,000
    read units a second. To spread them, make one ``ChatledgerStore`` for each tenant or user, with
    its own ``owner``: it costs nothing. Then ``Store.delete_owner`` also removes all that a tenant
    has.

    **Search.** Results come in the order of their namespaces and keys, or with a ``query`` in the
    order of their scores, those that are not embedded last. A search without a filter reads as many
    items as it returns and skips; one with a filter reads on until it has found enough. One with a
    query reads every item in the namespace and ranks them exactly; if more than 10,000 embedded
    items match, it raises ``InvalidArgument``.

    **Filters.** A field is given by its value, or by ``$eq``, ``$ne``, ``$gt``, ``$gte``, ``$lt``
    and ``$lte``. A missing field counts as None. The last four compare numbers, which may be given
    as text; with anything else, such a comparison does not hold.

    **Times.** ``created_at`` is when an item was put that did not exist, and ``updated_at`` when it
    was last put, by the clock of the Chatledger store.

    **TTL.** An item that is put with a TTL is gone from that moment on, and freed by itself;
    ``omit_expired`` and ``sweep_interval_minutes`` need not be set. A read that refreshes the TTL
    writes the item again, which on DynamoDB costs as much as the put; ``refresh_on_read=False``
    avoids it.

    **Differences from ``InMemoryStore``.** Values must be JSON. ``created_at`` survives a put. An
    item that is put again loses the embeddings of its former value. Namespaces without items are
    not listed. A filter that compares a text with a number finds nothing, rather than raise an
    error. ``index=["$"]`` embeds the whole value, as ``fields=["$"]`` does.

    Args:
        store: With a ``Store``, all methods work, the async ones in a thread. With an
            ``AsyncStore``, only the async methods work; the others raise ``InvalidArgument``.
        owner: The owner of the entries. Other entries of the same owner are left alone.
        index: Embeds items for searches with a ``query``: ``dims``, ``embed`` and ``fields``. An
            item's embeddings are stored in its entry, each with 4 bytes a dimension: on DynamoDB,
            one of 1,536 dimensions adds 6 write units to a put, and 2 read units at most to a
            search that reads the item.
        ttl: The default TTL of items in minutes, and whether reads refresh TTLs.

    Raises:
        InvalidArgument: An argument is invalid.
    """

    supports_ttl = True

    def __init__(
        self,
        store: Store | AsyncStore,
        *,
        owner: str = "langgraph",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        if not isinstance(store, Store | AsyncStore):
            raise InvalidArgument(
                f"store is of type {type(store).__name__}; pass a store that open_store or "
                "open_async_store returned."
            )
        self.store = store
        self.owner = checked_id(owner, "owner")
        self.index_config = index
        self.ttl_config = ttl
        checked_ttl((ttl or {}).get("default_ttl"))
        self.embeddings = None
        self._dims, self._fields = 0, ["$"]
        if index is not None:
            self._dims = checked_number(index.get("dims"), "index['dims']", least=1)
            self._fields = _checked_fields(index.get("fields") or ["$"])
            self.embeddings = ensure_embeddings(index.get("embed"))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Perform the operations and return their results, in their order.

        All reads come before all puts, and of several puts of an item only the last one counts.
        Every operation is checked before anything is written, but not whether an item is too large
        with its embeddings. Each put is a write of its own: if one fails, those before it remain.

        Raises:
            InvalidArgument: An operation is invalid, or the store is an ``AsyncStore``.
        """
        if isinstance(self.store, AsyncStore):
            raise InvalidArgument(
                "This ChatledgerStore is over an AsyncStore: use the async methods, such as aget "
                "and aput, and the graph's, such as ainvoke, or give it a Store, which open_store "
                "returns."
            )
        return run(self._batch(ops), self._perform)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do the same as ``batch``, asynchronously."""
        return await arun(self._batch(ops), self._aperform)

    def _batch(self, ops: Iterable[Op]) -> Steps[list[Result]]:
        ops = list(ops)
        # A dict, so that the last put of an item counts.
        puts = {put.name: put for put in map(self._checked_put, _of_type(PutOp, ops))}
        queries = {op.query for op in _of_type(SearchOp, ops) if op.query}
        vectors = yield from self._embed(queries, is_query=True)
        results: list[Result] = []
        for op in ops:
            match op:
                case GetOp():
                    results.append((yield from self._get(op)))
                case SearchOp():
                    results.append((yield from self._search(op, vectors.get(op.query or ""))))
                case ListNamespacesOp():
                    results.append((yield from self._list_namespaces(op)))
                case PutOp():
                    results.append(None)
                case _:
                    raise InvalidArgument(
                        f"An operation is of type {type(op).__name__}; it must be a GetOp, "
                        "SearchOp, ListNamespacesOp or PutOp."
                    )
        texts = (text for put in puts.values() for text in put.texts)
        vectors = yield from self._embed(texts, is_query=False)
        for put in puts.values():
            if put.value is None:
                yield from self._delete(put.name)
            else:
                packed = [pack_vector(vectors[text]) for text in dict.fromkeys(put.texts)]
                yield from self._put(put, put.value, packed)
        return results

    def _checked_put(self, op: PutOp) -> Put:
        name = name_of(op.namespace, op.key)
        if op.value is None:
            return Put(name, None, [], None)
        if not isinstance(op.value, Mapping):
            raise InvalidArgument(f"value is of type {type(op.value).__name__}; it must be a dict.")
        value = cast(dict[str, Any], checked_entry_value(dict(op.value))[0])
        texts: list[str] = []
        if self.embeddings is not None and op.index is not False:
            for field in self._fields if op.index is None else _checked_fields(op.index):
                texts += get_text_at_path(value, field)
        return Put(name, value, texts, checked_ttl(op.ttl))

    def _embed(self, texts: Iterable[str], *, is_query: bool) -> Steps[dict[str, list[float]]]:
        """Return the vectors of the texts, at length 1."""
        distinct = list(dict.fromkeys(texts))
        if self.embeddings is None or not distinct:
            return {}
        vectors = yield Embed(distinct, is_query)
        if len(vectors) != len(distinct):
            raise InvalidArgument(
                f"embed returned {len(vectors):,} vectors for {len(distinct):,} texts; it must "
                "return one for each."
            )
        units = (unit_vector(vector, self._dims) for vector in vectors)
        return dict(zip(distinct, units, strict=True))

    # Reading -------------------------------------------------------------------------------------

    def _find(self, name: str) -> Steps[StoredItem | None]:
        try:
            entry: Entry = yield partial(self._entries.entry, None, name, owner=self.owner)
        except NotFound:
            return None
        return StoredItem.of(entry)

    def _page(self, prefix: str, limit: int, cursor: str | None) -> Steps[Entries]:
        read = partial(self._entries.entries, None, prefix=prefix, limit=limit, cursor=cursor)
        page: Entries = yield partial(read, owner=self.owner)
        return page

    def _get(self, op: GetOp) -> Steps[Item | None]:
        item = yield from self._find(name_of(op.namespace, op.key))
        if item is None:
            return None
        yield from self._refresh(op.refresh_ttl, [item])
        return item.as_item()

    def _search(self, op: SearchOp, query: list[float] | None) -> Steps[list[SearchItem]]:
        prefix = prefix_of(op.namespace_prefix)
        offset = checked_number(op.offset, "offset", least=0)
        wanted = offset + checked_number(op.limit, "limit", least=0)
        is_wanted = fields_test(op.filter or {})
        if not op.limit:
            return []
        ranking = Ranking(query, wanted)
        page_size, cursor = wanted if query is None else PAGE_SIZE, None
        while True:
            page = yield from self._page(prefix, min(page_size, MAX_LIMIT), cursor)
            ranking.add(item for item in map(StoredItem.of, page) if is_wanted(item.value))
            cursor = page.cursor
            if cursor is None or ranking.is_complete:
                break
            if query is None:
                page_size *= 2  # the filter lets few items through
        found = ranking.results()[offset:]
        yield from self._refresh(op.refresh_ttl, [item for _, item in found])
        return [item.as_search_item(score) for score, item in found]

    def _list_namespaces(self, op: ListNamespacesOp) -> Steps[list[tuple[str, ...]]]:
        conditions = op.match_conditions or ()
        prefix = prefix_of(common_beginning(conditions))
        offset = checked_number(op.offset, "offset", least=0)
        end = offset + checked_number(op.limit, "limit", least=0)
        depth = None if op.max_depth is None else checked_number(op.max_depth, "max_depth", least=0)
        found: set[tuple[str, ...]] = set()
        cursor: str | None = None
        while True:
            page = yield from self._page(prefix, PAGE_SIZE, cursor)
            namespaces = [split_name(entry.name)[0] for entry in page]
            found.update(
                namespace[:depth]
                for namespace in set(namespaces)
                if all(matches(condition, namespace) for condition in conditions)
            )
            if page.cursor is None:
                return sorted(found)[offset:end]
            # The other items of the last namespace say nothing new.
            cursor = encode_cursor(0, end_of_namespace(namespaces[-1]))

    def _refresh(self, is_asked_for: bool, items: Sequence[StoredItem]) -> Steps[None]:
        """Let those of the items that have a TTL live for that long from now on."""
        for item in items:
            if is_asked_for and item.ttl is not None:
                with suppress(Conflict):  # a rival has refreshed it too, replaced it or deleted it
                    yield self._put_entry(item.name, item.content, item.ttl, item.revision)

    # Writing -------------------------------------------------------------------------------------

    def _put(self, put: Put, value: dict[str, Any], vectors: Sequence[str]) -> Steps[None]:
        for attempts_left in reversed(range(GUARDED_PUTS + 1)):
            former = yield from self._find(put.name)
            content = content_of(
                value,
                created_at=None if former is None else former.created_at,
                ttl=put.ttl,
                vectors=vectors,
            )
            # Given the revision, the put need not read the entry again, and created_at is certain.
            revision = 0 if former is None else former.revision
            try:
                yield self._put_entry(
                    put.name, content, put.ttl, revision if attempts_left else None
                )
                return
            except Conflict:
                if not attempts_left:
                    raise

    def _put_entry(
        self, name: str, content: dict[str, Any], ttl: float | None, revision: int | None
    ) -> Callable[[], Any]:
        return partial(
            self._entries.put_entry,
            None,
            name,
            content,
            revision=revision,
            expires_in=lifetime_of(ttl),
            owner=self.owner,
        )

    def _delete(self, name: str) -> Steps[None]:
        with suppress(NotFound):
            yield partial(self._entries.delete_entry, None, name, owner=self.owner)

    # Running -------------------------------------------------------------------------------------

    @property
    def _entries(self) -> Store:
        return cast(Store, self.store)  # an AsyncStore's methods are the same, but are awaited

    def _perform(self, step: Callable[[], Any] | Embed) -> Any:
        if not isinstance(step, Embed):
            return step()
        assert self.embeddings is not None
        if step.is_query:
            return [self.embeddings.embed_query(text) for text in step.texts]
        return self.embeddings.embed_documents(step.texts)

    async def _aperform(self, step: Callable[[], Any] | Embed) -> Any:
        if not isinstance(step, Embed):
            if isinstance(self.store, AsyncStore):
                return await step()
            return await asyncio.to_thread(step)
        assert self.embeddings is not None
        if step.is_query:
            return await asyncio.gather(*map(self.embeddings.aembed_query, step.texts))
        return await self.embeddings.aembed_documents(step.texts)


def _of_type(kind: type[T], ops: Iterable[object]) -> list[T]:
    return [op for op in ops if isinstance(op, kind)]


def _checked_fields(fields: object) -> list[str]:
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise InvalidArgument(
            "The fields to embed must be a list of paths, such as ['text', 'tags[*]']."
        )
    return fields
