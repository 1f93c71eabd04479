"""Sync and async stores have one contract: the same names, arguments and docstrings."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, get_args, get_origin

import pytest

from chatledger import Message, open_async_store, open_store
from chatledger.stores import arguments, contract, operations
from chatledger.stores.contract import LONG_BATCH, AsyncStore, Store
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore
from chatledger.stores.dynamodb.store import PLANS
from chatledger.stores.operations import Operation
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from chatledger.stores.sqlite import plans as sqlite

STORES = [Store, SQLiteStore, DynamoDBStore]
ASYNC_STORES = [AsyncStore, AsyncSQLiteStore, AsyncDynamoDBStore]
ITERATIONS = ("iter_messages", "iter_conversations")


def methods(store: type) -> dict[str, Callable[..., Any]]:
    """Return the public methods of the class, including inherited ones."""
    return {
        name: value
        for name, value in inspect.getmembers(store, inspect.isfunction)
        if not name.startswith("_")
    }


OPERATIONS = tuple(methods(Store))


@pytest.mark.parametrize("store", [*STORES, *ASYNC_STORES])
def test_every_store_has_the_operations_of_the_contract_and_no_others(store: type) -> None:
    # DynamoDB's stores also run the plans of operations that only they have.
    further = {"repair", "run"} if "DynamoDB" in store.__name__ else set()
    assert set(methods(store)) == {*OPERATIONS, *further}


@pytest.mark.parametrize(("one", "other"), list(zip(STORES, ASYNC_STORES, strict=True)))
def test_sync_and_async_operations_have_the_same_arguments_and_docstrings(
    one: type, other: type
) -> None:
    for name, method in methods(one).items():
        if name in ("perform", "run"):  # their types differ by a type variable
            continue
        twin = methods(other)[name]
        ours, theirs = inspect.signature(method), inspect.signature(twin)
        assert ours.parameters == theirs.parameters, name
        if name in ITERATIONS:
            assert get_origin(theirs.return_annotation) is AsyncIterator
            assert get_args(ours.return_annotation) == get_args(theirs.return_annotation)
        else:
            assert ours.return_annotation == theirs.return_annotation, name
        if name != "close":
            assert inspect.getdoc(method) == inspect.getdoc(twin), name


@pytest.mark.parametrize("store", STORES[1:])
def test_a_store_takes_every_argument_of_the_contract(store: type) -> None:
    for name, method in methods(Store).items():
        if name == "perform":
            continue
        own = inspect.signature(methods(store)[name]).parameters
        promised = inspect.signature(method).parameters
        assert [own[each] for each in promised] == list(promised.values())
        further = [own[each] for each in own if each not in promised]
        assert all(each.kind is each.KEYWORD_ONLY and each.default is None for each in further)


@pytest.mark.parametrize("name", OPERATIONS)
def test_exactly_the_async_operations_are_coroutines(name: str) -> None:
    is_async = inspect.isasyncgenfunction if name in ITERATIONS else inspect.iscoroutinefunction
    stores = [*STORES, *ASYNC_STORES]
    assert [is_async(getattr(store, name)) for store in stores] == [False] * 3 + [True] * 3


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "perform"])
def test_all_arguments_except_the_first_messages_and_numbers_are_keyword_only(name: str) -> None:
    parameters = list(inspect.signature(methods(Store)[name]).parameters.values())[1:]
    bare = [each.name for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert bare[:1] in ([], ["conversation_id"], ["conversation"], ["owner"])
    assert bare[1:] in (
        *([], ["messages"], ["limit"], ["owner"], ["seq"], ["seq", "message"]),
        *(["name"], ["name", "value"], ["query"]),
    )


def test_both_kinds_are_opened_by_the_same_arguments() -> None:
    one, other = inspect.signature(open_store), inspect.signature(open_async_store)
    assert one.parameters == other.parameters
    assert (one.return_annotation, other.return_annotation) == (Store, AsyncStore)


def test_every_operation_is_performed_by_both_stores() -> None:
    every = {value for value in vars(operations).values() if is_operation(value)}
    assert set(PLANS) == every
    assert {*sqlite.READS, *sqlite.WRITES, *sqlite.PLANS} == every


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("kind", [list, tuple])
def test_an_async_store_encodes_a_long_batch_in_another_thread(
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[Sequence[Message]], Sequence[Message]],
    by_name: bool,
) -> None:
    threads: list[int] = []
    encode_batch = arguments.encode_batch

    def record_thread(messages: object) -> list[str]:
        threads.append(threading.get_ident())
        return encode_batch(messages)

    monkeypatch.setattr(contract, "encode_batch", record_thread)

    async def append(count: int) -> None:
        async with AsyncSQLiteStore(":memory:") as store:
            messages = kind([Message.user("hello")] * count)
            if by_name:
                await store.append("trip", messages=messages)
            else:
                await store.append("trip", messages)
            assert (await store.get("trip")).message_count == count

    asyncio.run(append(LONG_BATCH + 1))
    asyncio.run(append(LONG_BATCH))
    assert [thread == threading.get_ident() for thread in threads] == [False, True]


def test_a_long_append_that_is_cancelled_while_it_is_encoded_leaves_nothing_behind() -> None:
    async def cancel() -> int:
        async with AsyncSQLiteStore(":memory:") as store:
            await store.create("trip")
            appending = asyncio.create_task(store.append("trip", [Message.user("hello")] * 5_000))
            await asyncio.sleep(0)
            appending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await appending
            return (await store.get("trip")).message_count

    assert asyncio.run(cancel()) == 0  # a coroutine that is never awaited would be a warning


def test_a_value_that_is_no_operation_is_refused_by_its_type() -> None:
    operation: Any = 5
    with SQLiteStore(":memory:") as store, pytest.raises(TypeError, match="int is not an oper"):
        store.perform(operation)


def is_operation(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Operation) and value is not Operation
