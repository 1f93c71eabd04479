"""Sync and async stores have one contract: the same names, signatures and docstrings."""

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, get_args, get_origin

import pytest

from chatledger import open_async_store, open_store
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore


def methods(store: type) -> dict[str, Callable[..., Any]]:
    """Return the public methods that the class itself defines."""
    return {
        name: value
        for name, value in vars(store).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


OPERATIONS = methods(Store)
ITERATIONS = {"iter_messages", "iter_conversations"}
"""Operations that every store inherits from the contract."""
DYNAMODB = [DynamoDBStore, AsyncDynamoDBStore]
OWN_DOCSTRINGS = ("delete_owner", "sweep", "close")
"""Methods that the DynamoDB stores document themselves: two have further arguments, and ``close``
leaves a client open that the caller made."""
FURTHER_OPERATIONS = {"repair"}
"""Operations that only the DynamoDB stores have."""
IMPLEMENTATIONS = [AsyncStore, SQLiteStore, AsyncSQLiteStore, *DYNAMODB]


def test_the_contract_has_all_operations() -> None:
    assert set(OPERATIONS) == {
        *("create", "append", "get", "tail", "page", "list", "update"),
        *("scan", "restore", "claim", "iter_messages", "iter_conversations"),
        *("truncate", "pop", "clear", "replace", "remove", "fork"),
        *("delete", "delete_owner", "sweep", "close"),
    }


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_store_has_exactly_the_same_operations(implementation: type) -> None:
    further = FURTHER_OPERATIONS if implementation in DYNAMODB else set()
    assert {*methods(implementation), *ITERATIONS} == {*OPERATIONS, *further}
    assert all(inspect.isfunction(getattr(implementation, name)) for name in ITERATIONS)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_signatures_agree(implementation: type, name: str) -> None:
    # Parameters with their kinds, defaults and types, and the return type.
    ours, theirs = (
        inspect.signature(getattr(implementation, name)),
        inspect.signature(OPERATIONS[name]),
    )
    if inspect.isasyncgenfunction(getattr(implementation, name)):
        assert get_origin(ours.return_annotation) is AsyncIterator
        assert get_args(ours.return_annotation) == get_args(theirs.return_annotation)
    else:
        assert ours.return_annotation == theirs.return_annotation
    assert [ours.parameters.get(each) for each in theirs.parameters] == [
        *theirs.parameters.values()
    ]
    further = [ours.parameters[each] for each in ours.parameters if each not in theirs.parameters]
    assert not further or implementation in DYNAMODB
    assert all(
        each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in further
    )


@pytest.mark.parametrize("name", [*OPERATIONS, *FURTHER_OPERATIONS])
def test_both_dynamodb_stores_have_the_same_signatures(name: str) -> None:
    one, implementation = (inspect.signature(getattr(store, name)) for store in DYNAMODB)
    if name in ITERATIONS:
        one, implementation = (
            each.replace(return_annotation=None) for each in (one, implementation)
        )
    assert one == implementation


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_implementation_has_the_docstrings_of_the_contract(
    implementation: type, name: str
) -> None:
    promise = inspect.getdoc(OPERATIONS[name])
    assert promise
    if implementation not in DYNAMODB or name not in OWN_DOCSTRINGS:
        assert inspect.getdoc(getattr(implementation, name)) == promise


@pytest.mark.parametrize("name", OWN_DOCSTRINGS[:2])
def test_both_dynamodb_stores_have_the_same_docstrings(name: str) -> None:
    one, implementation = (inspect.getdoc(methods(store)[name]) for store in DYNAMODB)
    assert one == implementation


@pytest.mark.parametrize("name", OPERATIONS)
def test_exactly_the_async_operations_are_coroutines(name: str) -> None:
    is_async = inspect.isasyncgenfunction if name in ITERATIONS else inspect.iscoroutinefunction
    awaited = [
        is_async(getattr(store, name))
        for store in (Store, SQLiteStore, DynamoDBStore, AsyncStore, AsyncSQLiteStore)
    ]
    assert awaited == [False, False, False, True, True]


@pytest.mark.parametrize("name", OPERATIONS)
def test_all_arguments_except_the_first_messages_and_numbers_are_keyword_only(name: str) -> None:
    parameters = list(inspect.signature(OPERATIONS[name]).parameters.values())[1:]
    bare = [each.name for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert bare[:1] in ([], ["conversation_id"], ["conversation"], ["owner"])
    assert bare[1:] in ([], ["messages"], ["n"], ["owner"], ["seq"], ["seq", "message"])


def test_both_kinds_are_opened_by_the_same_arguments() -> None:
    one, implementation = inspect.signature(open_store), inspect.signature(open_async_store)
    assert one.parameters == implementation.parameters
    assert (one.return_annotation, implementation.return_annotation) == (Store, AsyncStore)
