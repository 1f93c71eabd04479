"""Sync and async stores are one contract: same names, same signatures, same words."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from chatledger import open_async_store, open_store
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.dynamodb import AsyncDynamoDBStore, DynamoDBStore
from chatledger.stores.sqlite import SQLiteStore
from chatledger.stores.threads import ThreadedStore


def methods(store: type) -> dict[str, Callable[..., Any]]:
    """The operations that it defines itself."""
    return {
        name: value
        for name, value in vars(store).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


OPERATIONS = methods(Store)
DYNAMODB = [DynamoDBStore, AsyncDynamoDBStore]
SAID_ANEW = ("delete_owner", "sweep", "close")
"""Of DynamoDB's: the first two take more, and the client is the caller's to close."""
OTHERS = [AsyncStore, SQLiteStore, ThreadedStore, *DYNAMODB]


def test_the_contract_holds_all_of_the_designs_operations() -> None:
    assert set(OPERATIONS) == {
        *("create", "append", "get", "tail", "page", "list", "update"),
        *("scan", "restore"),
        *("truncate", "pop", "clear", "replace", "fork"),
        *("delete", "delete_owner", "sweep", "close"),
    }


@pytest.mark.parametrize("other", OTHERS)
def test_every_store_has_the_same_operations_and_no_others(other: type) -> None:
    assert set(methods(other)) == set(OPERATIONS)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_signatures_agree(other: type, name: str) -> None:
    # Parameters with their kinds, defaults and types, and what is answered.
    ours, theirs = inspect.signature(methods(other)[name]), inspect.signature(OPERATIONS[name])
    assert ours.return_annotation == theirs.return_annotation
    assert [ours.parameters.get(each) for each in theirs.parameters] == [
        *theirs.parameters.values()
    ]
    further = [ours.parameters[each] for each in ours.parameters if each not in theirs.parameters]
    assert not further or other in DYNAMODB
    assert all(
        each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in further
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_both_of_dynamodb_take_the_same(name: str) -> None:
    one, other = (inspect.signature(methods(store)[name]) for store in DYNAMODB)
    assert one == other


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_help_says_the_same(other: type, name: str) -> None:
    promise = inspect.getdoc(OPERATIONS[name])
    assert promise
    if other not in DYNAMODB or name not in SAID_ANEW:
        assert inspect.getdoc(methods(other)[name]) == promise


@pytest.mark.parametrize("name", SAID_ANEW[:2])
def test_both_of_dynamodb_say_the_same(name: str) -> None:
    one, other = (inspect.getdoc(methods(store)[name]) for store in DYNAMODB)
    assert one == other


@pytest.mark.parametrize("name", OPERATIONS)
def test_async_operations_are_awaited(name: str) -> None:
    awaited = [
        inspect.iscoroutinefunction(methods(store)[name])
        for store in (Store, SQLiteStore, DynamoDBStore, AsyncStore, ThreadedStore)
    ]
    assert awaited == [False, False, False, True, True]


@pytest.mark.parametrize("name", OPERATIONS)
def test_all_but_the_first_and_messages_and_numbers_is_passed_by_name(name: str) -> None:
    parameters = list(inspect.signature(OPERATIONS[name]).parameters.values())[1:]
    bare = [each.name for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert bare[:1] in ([], ["conversation_id"], ["conversation"], ["owner"])
    assert bare[1:] in ([], ["messages"], ["n"], ["seq", "message"])


def test_both_are_opened_alike() -> None:
    one, other = inspect.signature(open_store), inspect.signature(open_async_store)
    assert one.parameters == other.parameters
    assert (one.return_annotation, other.return_annotation) == (Store, AsyncStore)
