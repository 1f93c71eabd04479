"""Errors of the drop-in class: they name what is wrong, and the item stays unchanged."""

from functools import partial
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from chatledger.errors import (
    InvalidArgument,
    StoreMismatch,
    StoreUnavailable,
    TableMismatch,
    TableMissing,
)
from chatledger.langchain import dropin
from chatledger.langchain.connections import shared_client
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from tests.langchain.histories import Histories


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"session_id": ""}, "session_id is empty"),
        ({"session_id": 5}, "session_id is of type int"),
        ({"session_id": None}, "session_id is None"),
        ({"table_name": ""}, "table_name is empty"),
        ({"primary_key_name": ""}, "name in key is empty"),
        ({"key": {"PK": ""}}, "'PK'.* is empty"),
        ({"key": {"PK": None}}, "'PK'.* is None"),
        ({"key": {"PK": 1}}, "one of them must be text"),
        ({"key": {"a": "1", "b": "2", "c": "3"}}, "'a', 'b', 'c'"),
        ({"kms_key_id": "alias/mine"}, "update-table .*--sse-specification"),
        ({"ttl": -1}, "ttl must be 0 to"),
        ({"ttl": "60"}, "ttl is of type str; it must be an int"),
        ({"history_size": -3}, "history_size must be 0 to"),
        ({"history_size": 1.5}, "history_size is of type float"),
        ({"first_item_bytes": 10}, "first_item_bytes must be 1,024 to 401,408"),
        ({"first_item_bytes": 10**6}, "first_item_bytes must be 1,024 to 401,408"),
        ({"ttl_key_name": "History"}, "must differ"),
        ({"history_messages_key": "SessionId"}, "the name of another attribute"),
        ({"history_messages_key": "chatledger_of"}, "the name of another attribute"),
    ],
    ids=str,
)
def test_an_invalid_argument_is_named(
    hash_only: Histories, requests: list[str], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        hash_only.open(**({"session_id": "1"} | options))
    assert requests == []


@pytest.mark.parametrize(
    "key",
    [
        {"Other": "1"},
        {"SessionId": "1", "SK": "1"},
        {"PK": "1", "Other": "1"},
        {"PK": "1"},
        {"PK": "1", "SK": 5},
    ],
    ids=str,
)
def test_a_key_with_the_wrong_attributes_is_reported(
    histories: Histories, key: dict[str, Any]
) -> None:
    history = histories.open(key=key)
    for use in (lambda: history.messages, lambda: history.add_user_message("Hi"), history.clear):
        with pytest.raises(TableMismatch, match="its key is not") as failed:
            use()
        assert histories.table in str(failed.value)
        assert "describe-table" in failed.value.remedy
    assert histories.items() == []


def test_the_error_for_a_missing_table_has_the_commands_that_create_it(
    hash_only: Histories,
) -> None:
    for use in ("messages", "clear"):
        history = hash_only.open(table_name="nowhere")
        with pytest.raises(TableMissing) as failed:
            getattr(history, use) if use == "messages" else getattr(history, use)()
        message = str(failed.value)
        assert "aws dynamodb create-table" in message
        assert "AttributeName=SessionId,KeyType=HASH" in message
        assert "aws dynamodb wait table-exists --table-name nowhere" in message
        assert "update-time-to-live" not in message
    key = {"PK": "1", "SK": "2"}
    with pytest.raises(TableMissing) as failed:
        hash_only.open(table_name="nowhere", ttl=60, key=key).add_user_message("Hi")
    assert "AttributeName=PK,KeyType=HASH AttributeName=SK,KeyType=RANGE" in str(failed.value)
    assert "Enabled=true,AttributeName=expireAt" in str(failed.value)


@pytest.mark.parametrize(
    "history",
    [
        {"S": "text"},
        {"N": "5"},
        {"M": {"type": {"S": "human"}}},
        {"SS": ["a"]},
        {"L": [{"S": "Hi"}]},
        {"L": [{"M": {"role": {"S": "user"}, "content": {"S": "Hi"}}}]},
        {"L": [{"L": []}]},
    ],
    ids=str,
)
def test_an_attribute_that_is_not_a_history_is_reported_and_left_unchanged(
    histories: Histories, history: dict[str, Any]
) -> None:
    histories.put({"History": history, "mine": {"S": "kept"}})
    before = histories.items()
    ways: list[dict[str, Any]] = [{}, {"ttl": 60}, {"first_item_bytes": 1_024}]
    for options in ways:
        with pytest.raises(StoreMismatch, match=r"'History'.*other software"):
            histories.open(**options).add_user_message("Hi")
        with pytest.raises(StoreMismatch, match=r"'History'.*other software"):
            _ = histories.open(**options).messages
    assert histories.items() == before


def test_a_message_of_an_unknown_type_is_reported_with_its_index(hash_only: Histories) -> None:
    hash_only.open().add_messages([HumanMessage("Hi")] * 2)
    item = hash_only.item()
    assert item is not None
    item["History"]["L"][1]["M"]["type"] = {"S": "martian"}
    hash_only.put(item)
    with pytest.raises(StoreMismatch, match=r"Element 1 of 'History'.*martian"):
        _ = hash_only.open().messages
    with pytest.raises(StoreMismatch, match="Element 1 of"):
        _ = hash_only.open(history_size=1).messages


def test_other_attributes_of_the_item_are_kept(histories: Histories) -> None:
    histories.put({"mine": {"S": "kept"}})
    histories.open().add_user_message("Hi")
    item = histories.item()
    assert item is not None
    assert item["mine"] == {"S": "kept"}
    assert [message.content for message in histories.open().messages] == ["Hi"]


def test_throttled_calls_are_retried_and_finally_reported(
    hash_only: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    events = shared_client(hash_only.session, hash_only.endpoint).meta.events
    left = [3]

    def throttle(**_: object) -> None:
        if left[0]:
            left[0] -= 1
            error: Any = {"Code": "ProvisionedThroughputExceededException", "Message": "slow"}
            raise ClientError({"Error": error}, "UpdateItem")

    events.register("before-call.dynamodb.UpdateItem", throttle)
    try:
        hash_only.open().add_user_message("Hi")
        assert len(hash_only.open().messages) == 1
        left[0] = 1_000
        monkeypatch.setattr(dropin, "Boto3Calls", partial(Boto3Calls, patience=0.3))
        with pytest.raises(StoreUnavailable, match="ProvisionedThroughputExceeded") as failed:
            hash_only.open().add_user_message("Hi")
        assert not failed.value.may_have_landed
    finally:
        events.unregister("before-call.dynamodb.UpdateItem", throttle)
