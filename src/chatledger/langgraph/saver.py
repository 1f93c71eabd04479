"""``ChatledgerSaver``, which keeps the state of LangGraph's graphs in any store."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from threading import Lock
from typing import Any, Final, Literal, TypeVar, cast
from weakref import WeakKeyDictionary

from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from chatledger.errors import InvalidArgument
from chatledger.langgraph import maintenance
from chatledger.langgraph.plans import Plans, Snapshot
from chatledger.langgraph.records import conversation_of
from chatledger.langgraph.settings import Pause, Settings, Steps
from chatledger.langgraph.thread import ThreadCache
from chatledger.sansio import arun, run
from chatledger.stores.arguments import checked_lifetime, checked_number
from chatledger.stores.contract import AsyncStore, Store

T = TypeVar("T")

LOCKS: Final = 256
"""Threads share this many locks."""
CACHE_BYTES: Final = 64 * 1024 * 1024


class ChatledgerSaver(BaseCheckpointSaver[Any]):
    """A checkpointer of LangGraph in any Chatledger store: SQLite, DynamoDB or one of your own.

    Each checkpoint and the writes of each task are appended to a hidden conversation of the thread,
    so the store's promises hold for them: an acknowledged write is never lost, a thread expires
    after the store's lifetime without activity, and ``delete_owner``, ``copy`` and ``sweep``
    include threads. What a checkpoint has in common with earlier ones is not stored again: a list
    is stored element by element, with or without delta channels.

    The saver may be used by any number of threads, tasks and processes at once. It makes no request
    when it is made, and does not close the store. Each method may raise the errors of the store.

    Args:
        store: With a ``Store``, all methods work, the async ones in a thread. With an
            ``AsyncStore``, only the async methods work; the others raise ``InvalidArgument``.
        rivals: What happens if two runs continue the same checkpoint. With ``"fork"``, as with
            LangGraph's own savers, both become branches, and the thread continues with the newer
            one. With ``"refuse"``, the second one raises ``Conflict`` as it puts its first
            checkpoint, and changes nothing; invoke the graph again, and it continues after the
            other run. A run that starts from an older checkpoint on purpose is no rival.
        messages: With ``"conversation"``, each message of the channel ``messages`` is also appended
            to the conversation whose id is the thread's, once its checkpoint is stored, so that
            lists, pages and exports show it. That conversation is a transcript: messages that the
            graph removes or replaces stay in it. ``delete_thread`` deletes both, and if the
            conversation is deleted, or expires because it got no message for its lifetime, the
            thread ends as it is next read.
        owner_key: The name under which each config's ``configurable`` names the owner, such as
            ``"user_id"``. Then a thread belongs to the owner that began it; others do not find it,
            and cannot write to it (``NotFound``). Methods that take a thread id instead of a config
            do not check it.
        expires_in: The lifetime of threads that this saver begins, from 1 second to 36,500 days;
            None gives them the store's.
        serde: LangGraph's serializer of values. An ``EncryptedSerializer`` encrypts each record as
            a whole. Another one whose result differs from call to call also works, but then no
            value equals an earlier one, and all are stored again.
        cache_bytes: About how much memory the threads may take that the saver remembers. A thread
            that it does not remember is read from the beginning.

    Raises:
        InvalidArgument: An argument is invalid.
    """

    def __init__(
        self,
        store: Store | AsyncStore,
        *,
        rivals: Literal["fork", "refuse"] = "fork",
        messages: Literal["conversation"] | None = None,
        owner_key: str | None = None,
        expires_in: timedelta | None = None,
        serde: SerializerProtocol | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__(serde=serde)
        if not isinstance(store, Store | AsyncStore):
            raise InvalidArgument(
                f"store is of type {type(store).__name__}; pass a store that open_store or "
                "open_async_store returned."
            )
        if rivals not in ("fork", "refuse"):
            raise InvalidArgument(f"rivals is {rivals!r}; it must be 'fork' or 'refuse'.")
        if messages not in (None, "conversation"):
            raise InvalidArgument(f"messages is {messages!r}; it must be 'conversation' or None.")
        self.store = store
        self._is_async = isinstance(store, AsyncStore)
        self._settings = Settings(
            store=cast(
                Store, store
            ),  # an AsyncStore has the same methods, whose results are awaited
            rivals=rivals,
            messages=messages,
            owner_key=owner_key,
            expires_in=checked_lifetime(expires_in),
            cache=ThreadCache(checked_number(cache_bytes, "cache_bytes", least=0)),
        )
        self._locks = _Locks()

    @property
    def _plans(self) -> Plans:
        return Plans(self._settings, self.serde)  # with_allowlist makes copies with another serde

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The owner's field, if the saver has owners."""
        key = self._settings.owner_key
        if key is None:
            return []
        return [ConfigurableFieldSpec(id=key, annotation=str, name="Owner", is_shared=True)]

    def get_next_version(self, current: int | str | None, channel: None) -> int | str:
        """Return the version after ``current``: integers from 1 on.

        A thread that was copied from a saver with texts as versions continues with such.
        """
        if isinstance(current, str):
            number = int(current.split(".")[0]) + 1
            return f"{number:032}.{random.random():016}"  # noqa: S311  as LangGraph's savers do
        return 1 if current is None else current + 1

    # Reading -------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that the config names, or the newest one of its namespace.

        The result includes every write that was acknowledged before the call. If this process knows
        the thread, and nobody else has changed it, that is one request; otherwise what is new is
        read, and the first time the whole thread.
        """
        return self._run(self._thread_id(config), self._plans.get_tuple(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._arun(self._thread_id(config), self._plans.get_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest first; of several threads, one thread after the other.

        Args:
            config: Its thread; without ``thread_id``, or None, all threads, or all of the owner,
                for which the whole store is scanned. With a ``checkpoint_ns`` or
                ``checkpoint_id``, only that.
            filter: Only checkpoints whose metadata has these values.
            before: Only checkpoints with ids before that of this config.
            limit: The most checkpoints to yield.
        """
        search = _Search(config, filter, before, limit)
        cursor: str | None = None
        while True:
            thread_ids, cursor = self._run(None, self._threads(config, cursor))
            for thread_id in thread_ids:
                of_thread = search.config_of(thread_id)
                snapshot = self._run(thread_id, self._plans.snapshot(of_thread))
                yield from search.results(snapshot)
                if search.is_over:
                    return
            if cursor is None:
                return

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        search = _Search(config, filter, before, limit)
        cursor: str | None = None
        while True:
            thread_ids, cursor = await self._arun(None, self._threads(config, cursor))
            for thread_id in thread_ids:
                of_thread = search.config_of(thread_id)
                snapshot = await self._arun(thread_id, self._plans.snapshot(of_thread))
                for found in search.results(snapshot):
                    yield found
                if search.is_over:
                    return
            if cursor is None:
                return

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what the values of delta channels are built from.

        That takes no request after a ``get_tuple`` of the same checkpoint, however many ancestors
        there are.
        """
        return self._run(self._thread_id(config), self._plans.delta_history(config, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        steps = self._plans.delta_history(config, channels)
        return await self._arun(self._thread_id(config), steps)

    # Writing -------------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, whose parent is the one that the config names.

        Returns:
            The config of the checkpoint.

        Raises:
            Conflict: Rivals are refused, and another run has continued the thread. Nothing was
                written.
            InvalidArgument: The serde cannot serialize a value, or the thread does not have the
                parent. Nothing was written.
            MessageTooLarge: The changed values take more than about 45 MB after compression, or a
                message is too large for a conversation. Nothing was written.
            NotFound: The thread, or the conversation that would show its messages, belongs to
                another owner.
        """
        steps = self._plans.put(config, checkpoint, metadata, new_versions)
        return self._run(self._thread_id(config), steps)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        steps = self._plans.put(config, checkpoint, metadata, new_versions)
        return await self._arun(self._thread_id(config), steps)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task has written after the checkpoint that the config names.

        A write at an index at which the task has written before is ignored; errors, interrupts and
        the like replace the former ones. The errors are those of ``put``; if rivals are refused,
        ``Conflict`` is also raised if another run has ended a task of the checkpoint since this one
        began.
        """
        steps = self._plans.put_writes(config, writes, task_id, task_path)
        return self._run(self._thread_id(config), steps)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        steps = self._plans.put_writes(config, writes, task_id, task_path)
        return await self._arun(self._thread_id(config), steps)

    def seed_thread(
        self,
        thread_id: str,
        messages: Sequence[BaseMessage] | str,
        config: RunnableConfig | None = None,
    ) -> RunnableConfig:
        """Begin a thread whose channel ``messages`` holds what was said elsewhere before.

        Args:
            thread_id: The new thread.
            messages: The messages, such as those of a LangChain history, or the id of a
                conversation in the store.
            config: Names the owner in its ``configurable``, if the saver has owners.

        Returns:
            The config of its first checkpoint.

        Raises:
            AlreadyExists: There is such a thread.
            NotFound: There is no such conversation for the owner.
        """
        return self._run(
            thread_id, maintenance.seed(self._plans, thread_id, messages, config or {})
        )

    async def aseed_thread(
        self,
        thread_id: str,
        messages: Sequence[BaseMessage] | str,
        config: RunnableConfig | None = None,
    ) -> RunnableConfig:
        """Do the same as ``seed_thread``, asynchronously."""
        steps = maintenance.seed(self._plans, thread_id, messages, config or {})
        return await self._arun(thread_id, steps)

    # Whole threads -------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Delete the thread; do nothing if there is none."""
        self._run(thread_id, maintenance.delete(self._plans, thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._arun(thread_id, maintenance.delete(self._plans, thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata has one of these values as ``run_id``.

        This reads every thread, and writes anew what remains of those that change. Checkpoints from
        which a remaining one builds the values of delta channels stay, hidden.
        """
        ids = set(maintenance.checked_ids(run_ids, "run_ids"))
        cursor: str | None = None
        while ids:
            thread_ids, cursor = self._run(None, self._plans.thread_ids(None, cursor))
            for thread_id in thread_ids:
                steps = maintenance.delete_runs(self._plans, thread_id, ids)
                self._run(thread_id, steps)
            if cursor is None:
                return

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        ids = set(maintenance.checked_ids(run_ids, "run_ids"))
        cursor: str | None = None
        while ids:
            thread_ids, cursor = await self._arun(None, self._plans.thread_ids(None, cursor))
            for thread_id in thread_ids:
                await self._arun(thread_id, maintenance.delete_runs(self._plans, thread_id, ids))
            if cursor is None:
                return

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy the thread, and the conversation that shows its messages if there is one.

        The copy has the same owner, lifetime and expiry. If the thread does not exist, nothing
        happens.

        Raises:
            AlreadyExists: The other thread or its conversation exists.
            Conflict: The other thread was deleted within the last day.
        """
        self._run(
            source_thread_id, maintenance.copy(self._plans, source_thread_id, target_thread_id)
        )

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        steps = maintenance.copy(self._plans, source_thread_id, target_thread_id)
        await self._arun(source_thread_id, steps)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove checkpoints of the threads.

        What is kept is written anew in one append, and all else is freed. A checkpoint from which a
        kept one builds the values of delta channels stays, but neither ``list`` nor ``get_tuple``
        shows it. Threads that do not exist are ignored.

        Args:
            thread_ids: The threads.
            strategy: ``"keep_latest"`` keeps the newest checkpoint of each namespace with its
                pending writes; ``"delete"`` deletes the threads.
        """
        for thread_id in maintenance.checked_ids(thread_ids, "thread_ids"):
            self._run(thread_id, maintenance.prune(self._plans, thread_id, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for thread_id in maintenance.checked_ids(thread_ids, "thread_ids"):
            await self._arun(thread_id, maintenance.prune(self._plans, thread_id, strategy))

    # Running -------------------------------------------------------------------------------------

    @staticmethod
    def _thread_id(config: object) -> object:
        if not isinstance(config, Mapping):
            raise InvalidArgument(
                f"config is of type {type(config).__name__}; pass a dict, as in "
                '{"configurable": {"thread_id": "1"}}.'
            )
        return (config.get("configurable") or {}).get("thread_id")

    def _threads(
        self, config: RunnableConfig | None, cursor: str | None
    ) -> Steps[tuple[Sequence[str], str | None]]:
        """Return the ids of threads to list, and the cursor of the next ones."""
        thread_id = self._thread_id(config or {})
        if thread_id is None:
            return (yield from self._plans.thread_ids(self._plans.owner(config), cursor))
        conversation_of(thread_id)
        return [cast(str, thread_id)], None

    def _run(self, thread_id: object, steps: Steps[T]) -> T:
        """Run the steps while no other operation of this saver uses the thread."""
        if self._is_async:
            raise InvalidArgument(
                "This saver is over an AsyncStore: use the graph's async methods, such as ainvoke, "
                "astream or aget_state, or give the saver a Store, which open_store returns."
            )
        with self._locks.of(thread_id):
            return run(steps, _perform)

    async def _arun(self, thread_id: object, steps: Steps[T]) -> T:
        if not self._is_async:
            return await asyncio.to_thread(self._run, thread_id, steps)
        if thread_id is None:
            return await arun(steps, _aperform)
        async with self._locks.async_of(thread_id):
            return await arun(steps, _aperform)


class _Search:
    """The arguments of one ``list``, and how many results are left."""

    def __init__(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._configurable = (config or {}).get("configurable") or {}
        self._filter = filter
        self._before_id = ((before or {}).get("configurable") or {}).get("checkpoint_id")
        if not isinstance(self._before_id, str | None):
            raise InvalidArgument(
                f"before has a checkpoint_id of type {type(self._before_id).__name__}; pass the "
                "config of a checkpoint."
            )
        self._left = limit if limit is None else checked_number(limit, "limit", least=0)

    @property
    def is_over(self) -> bool:
        return self._left is not None and self._left <= 0

    def config_of(self, thread_id: str) -> RunnableConfig:
        return {"configurable": {**self._configurable, "thread_id": thread_id}}

    def results(self, snapshot: Snapshot | None) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints of the snapshot that were asked for."""
        if snapshot is None:
            return
        namespace = self._configurable.get("checkpoint_ns")
        for found in snapshot.matching(
            namespace=namespace, before_id=self._before_id, filter=self._filter
        ):
            if self.is_over:
                return
            if self._left is not None:
                self._left -= 1
            yield snapshot.tuple_of(found)


class _Locks:
    """Locks by thread, so that operations of one process on a thread do not conflict.

    They only spare attempts: every append requires the revision that it is based on.
    """

    def __init__(self) -> None:
        self._locks = [Lock() for _ in range(LOCKS)]
        self._async_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, list[asyncio.Lock]] = (
            WeakKeyDictionary()
        )

    def of(self, thread_id: object) -> AbstractContextManager[object]:
        return nullcontext() if thread_id is None else self._locks[hash(str(thread_id)) % LOCKS]

    def async_of(self, thread_id: object) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if loop not in self._async_locks:
            self._async_locks[loop] = [asyncio.Lock() for _ in range(LOCKS)]
        return self._async_locks[loop][hash(str(thread_id)) % LOCKS]


def _perform(step: Callable[[], Any] | Pause) -> Any:
    return time.sleep(step.seconds) if isinstance(step, Pause) else step()


async def _aperform(step: Callable[[], Any] | Pause) -> Any:
    return await (asyncio.sleep(step.seconds) if isinstance(step, Pause) else step())
