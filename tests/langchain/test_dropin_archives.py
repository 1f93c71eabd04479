"""Histories of several items, with concurrent writers and lost responses."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, messages_to_dict

from chatledger.errors import MessageTooLarge, StoreMismatch
from chatledger.langchain import dropin
from chatledger.langchain.connections import shared_client
from chatledger.langchain.stored_history import ARCHIVES, SEGMENTS, History
from chatledger.langchain.values import encode_value
from tests.langchain.histories import Histories, lose_responses

WRITERS, APPENDS = 8, 20


def numbered_message(n: int, size: int) -> HumanMessage:
    return HumanMessage(f"{n} ".ljust(size, "x"))


def message_numbers(messages: Any) -> list[int]:
    return [int(message.content.split()[0]) for message in messages]


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize("options", [{}, {"first_item_bytes": 2_000}], ids=["one item", "archives"])
def test_concurrent_writers_lose_no_append(
    histories: Histories, options: dict[str, Any], run: int
) -> None:
    def write(writer: int) -> None:
        for n in range(APPENDS):
            text = f"{writer} {n}".ljust(100)
            histories.open(f"{run}", **options).add_user_message(text)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    found = [str(message.content).split() for message in histories.open(f"{run}").messages]
    assert len(found) == WRITERS * APPENDS
    for writer in range(WRITERS):
        assert [n for who, n in found if who == str(writer)] == [str(n) for n in range(APPENDS)]


def test_a_history_of_2_mb_is_read_back_in_two_requests(
    histories: Histories, requests: list[str]
) -> None:
    history = histories.open()
    for n in range(200):
        history.add_messages([numbered_message(n, 10_000)])
    assert requests.count("UpdateItem") == 200
    assert requests.count("TransactWriteItems") == len(histories.items()) - 1 == 6
    assert len(requests) == 206
    requests.clear()
    found = histories.open().messages
    assert requests == ["GetItem", "BatchGetItem"]
    assert found == [numbered_message(n, 10_000) for n in range(200)]


def test_first_item_bytes_keeps_items_small_and_appends_cheap(
    histories: Histories, requests: list[str]
) -> None:
    units: list[float] = []
    events = shared_client(histories.session, histories.endpoint).meta.events

    def request_capacity(params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def record(parsed: dict[str, Any], **_: object) -> None:
        if "ConsumedCapacity" in parsed:  # not reported if a condition failed
            units.append(parsed["ConsumedCapacity"]["CapacityUnits"])

    events.register("provide-client-params.dynamodb.UpdateItem", request_capacity)
    events.register("after-call.dynamodb.UpdateItem", record)
    try:
        for n in range(100):
            histories.open(first_item_bytes=8_192).add_messages([numbered_message(n, 1_000)])
    finally:
        events.unregister("provide-client-params.dynamodb.UpdateItem", request_capacity)
        events.unregister("after-call.dynamodb.UpdateItem", record)
    assert max(units) <= 11
    requests.clear()
    assert message_numbers(histories.open().messages) == [*range(100)]
    assert requests == ["GetItem", "BatchGetItem"]
    assert len(histories.items()) >= 12


def test_the_old_class_sees_the_newest_messages(histories: Histories) -> None:
    for n in range(40):
        histories.open(first_item_bytes=4_096).add_messages([numbered_message(n, 100)])
        seen = message_numbers(histories.open_old().messages)
        assert seen == [*range(n + 1)][-len(seen) :]
        assert len(seen) >= min(n + 1, 3)


def test_a_batch_larger_than_an_item_is_stored_completely(histories: Histories) -> None:
    messages = [numbered_message(n, 90_000) for n in range(12)]
    histories.open().add_messages(messages)
    assert histories.open().messages == messages
    histories.open().add_messages(messages)
    assert histories.open().messages == messages * 2


def test_a_message_larger_than_an_item_is_rejected(
    hash_only: Histories, requests: list[str]
) -> None:
    with pytest.raises(MessageTooLarge, match="over the limit") as failed:
        hash_only.open().add_messages([numbered_message(0, 10), numbered_message(1, 410_000)])
    assert failed.value.size > failed.value.limit
    assert requests == []


def test_a_batch_of_more_than_3_mb_is_rejected(hash_only: Histories, requests: list[str]) -> None:
    messages = [numbered_message(n, 300_000) for n in range(11)]
    with pytest.raises(MessageTooLarge, match=r"messages is .* over the limit"):
        hash_only.open().add_messages(messages)
    assert requests == []
    hash_only.open().add_messages(messages[:10])
    hash_only.open().add_messages(messages[:10])
    assert hash_only.open().messages == messages[:10] * 2


def test_a_history_that_fills_the_old_classs_item_continues_in_archives(
    histories: Histories,
) -> None:
    messages = [numbered_message(n, 10_000) for n in range(30)] + [
        numbered_message(30 + n, 300) for n in range(100)
    ]
    elements = [encode_value(each, "")[0] for each in messages_to_dict(messages)]

    def fits(size: int) -> bool:
        last = encode_value(messages_to_dict([numbered_message(130, size)])[0], "")[0]
        try:
            histories.put({"History": {"L": [*elements, last]}})
        except histories.client.exceptions.ClientError:
            return False
        return True

    least, most = 10, 100_000
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    assert fits(least)
    for n in range(131, 137):
        histories.open().add_messages([numbered_message(n, 200)])
    assert message_numbers(histories.open().messages) == [*range(137)]
    seen = message_numbers(histories.open_old().messages)
    assert seen == [*range(137)][-len(seen) :]
    assert len(seen) > 30


def test_an_item_that_is_full_of_other_attributes_is_reported(histories: Histories) -> None:
    histories.put({"mine": {"S": "x" * 409_300}})
    with pytest.raises(StoreMismatch, match="is full, but not of messages"):
        histories.open().add_messages([numbered_message(0, 300)])
    item = histories.item()
    assert item is not None
    assert "History" not in item


def test_messages_that_the_old_class_adds_to_an_archived_history_are_read_last(
    histories: Histories,
) -> None:
    for n in range(9):
        histories.open(first_item_bytes=1_024).add_messages([numbered_message(n, 300)])
        histories.open_old().add_messages([numbered_message(100 + n, 20)])
    assert len(histories.items()) > 3
    expected = [number for n in range(9) for number in (n, 100 + n)]
    assert message_numbers(histories.open().messages) == expected


def test_messages_that_the_old_class_trims_are_gone_and_the_archives_remain(
    histories: Histories,
) -> None:
    for n in range(7):
        histories.open(first_item_bytes=4_096).add_messages([numbered_message(n, 1_000)])
    archived = 7 - len(histories.open_old().messages)
    assert 0 < archived < 7
    histories.open_old(history_size=1).add_messages([numbered_message(7, 10)])
    assert message_numbers(histories.open().messages) == [*range(archived), 7]


def test_an_append_whose_response_is_lost_is_stored_once(histories: Histories) -> None:
    for n in range(12):
        with lose_responses(histories, "UpdateItem", times=2) as lost:
            histories.open(first_item_bytes=1_024).add_messages([numbered_message(n, 300)])
        assert lost
    assert message_numbers(histories.open().messages) == [*range(12)]


def test_a_move_to_an_archive_whose_response_is_lost_is_made_once(histories: Histories) -> None:
    for n in range(12):
        with lose_responses(histories, "TransactWriteItems") as lost:
            histories.open(first_item_bytes=1_024).add_messages([numbered_message(n, 900)])
        assert bool(lost) is (n > 0)
    assert message_numbers(histories.open().messages) == [*range(12)]


def test_a_writer_that_dies_before_it_moves_messages_loses_no_earlier_message(
    histories: Histories,
) -> None:
    for n in range(6):
        histories.open(first_item_bytes=1_024).add_messages([numbered_message(n, 400)])
    events = shared_client(histories.session, histories.endpoint).meta.events

    def die(**_: object) -> None:
        raise KeyboardInterrupt

    events.register("before-call.dynamodb.TransactWriteItems", die)
    try:
        with pytest.raises(KeyboardInterrupt):
            histories.open(first_item_bytes=1_024).add_messages([numbered_message(6, 900)])
    finally:
        events.unregister("before-call.dynamodb.TransactWriteItems", die)
    assert message_numbers(histories.open().messages) == [*range(6)]
    histories.open(first_item_bytes=1_024).add_messages([numbered_message(6, 10)])
    assert message_numbers(histories.open().messages) == [*range(7)]


def test_an_archived_history_expires_one_lifetime_after_the_last_append(
    histories: Histories, monkeypatch: pytest.MonkeyPatch, requests: list[str]
) -> None:
    now = [time.time()]
    monkeypatch.setattr(dropin, "History", partial(History, clock=lambda: now[0]))
    for n in range(40):
        histories.open(ttl=1_000, first_item_bytes=1_024).add_messages([numbered_message(n, 200)])
        item = histories.item()
        assert item is not None
        assert int(item["expireAt"]["N"]) == int(now[0]) + 1_000
        # No archive may be deleted by TTL before the history expires.
        assert min(int(each["expireAt"]["N"]) for each in histories.items()) >= int(now[0]) + 1_000
        now[0] += 900
    assert message_numbers(histories.open().messages) == [*range(40)]
    now[0] += 101
    assert histories.open().messages == []
    histories.open(ttl=1_000).add_messages([numbered_message(0, 10)])
    assert message_numbers(histories.open().messages) == [0]
    assert len(histories.items()) == 1
    requests.clear()
    histories.open(ttl=1_000).add_messages([numbered_message(1, 10)])
    assert requests == ["UpdateItem"]


def test_a_history_that_gets_a_ttl_later_gives_it_to_its_archives(histories: Histories) -> None:
    histories.open(first_item_bytes=1_024).add_messages([numbered_message(0, 1_500)])
    histories.open(ttl=1_000).add_messages([numbered_message(1, 10)])
    for n in range(2, 6):
        histories.open(first_item_bytes=1_024).add_messages([numbered_message(n, 600)])
    histories.open("2", first_item_bytes=1_024).add_messages([numbered_message(0, 1_000)] * 3)
    histories.open("2", first_item_bytes=1_024, ttl=1_000).add_messages([numbered_message(1, 10)])
    assert len(histories.items()) > 4
    assert all("expireAt" in item for item in histories.items())
    assert message_numbers(histories.open().messages) == [*range(6)]


def test_the_ttls_of_archives_are_extended_once_per_lifetime(
    histories: Histories, monkeypatch: pytest.MonkeyPatch, requests: list[str]
) -> None:
    now = [time.time()]
    monkeypatch.setattr(dropin, "History", partial(History, clock=lambda: now[0]))
    for n in range(3):
        histories.open(ttl=1_000, first_item_bytes=4_096).add_messages([numbered_message(n, 1_500)])
    assert len(histories.items()) == 2
    requests.clear()
    for n in range(30):  # in three lifetimes
        histories.open(ttl=1_000).add_messages([numbered_message(3 + n, 10)])
        now[0] += 100
    assert len(requests) <= 30 + 3 * 3
    assert message_numbers(histories.open().messages) == [*range(33)]


def test_an_archive_deleted_by_other_software_is_reported(histories: Histories) -> None:
    for n in range(8):
        histories.open(first_item_bytes=1_024).add_messages([numbered_message(n, 300)])
    delete_last_archive(histories)
    before = histories.items()
    with pytest.raises(StoreMismatch, match="other software seems to have deleted it"):
        _ = histories.open().messages
    assert histories.items() == before
    histories.open().clear()
    assert histories.items() == []


def test_archives_that_expired_because_only_the_old_class_wrote_are_left_out(
    histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(dropin, "History", partial(History, clock=lambda: now[0]))
    for n in range(8):
        histories.open(ttl=1_000, first_item_bytes=1_024).add_messages([numbered_message(n, 300)])
    histories.open_old(ttl=10_000).add_messages([numbered_message(8, 10)])
    assert message_numbers(histories.open().messages) == [*range(9)]
    now[0] += 2_001
    seen = message_numbers(histories.open_old().messages)
    assert message_numbers(histories.open().messages) == seen != [*range(9)]
    histories.open(ttl=1_000).add_messages([numbered_message(9, 10)])
    assert message_numbers(histories.open().messages) == [*seen, 9]
    assert len(histories.items()) == 1


def test_trim_storage_drops_whole_archives(histories: Histories) -> None:
    options: dict[str, Any] = {"first_item_bytes": 1_024, "history_size": 4, "trim_storage": True}
    for n in range(40):
        histories.open(**options).add_messages([numbered_message(n, 300)])
    assert message_numbers(histories.open(**options).messages) == [36, 37, 38, 39]
    assert len(histories.items()) <= 5
    histories.open().clear()
    assert histories.items() == []


def test_a_forked_child_uses_its_own_connections(hash_only: Histories) -> None:
    history = hash_only.open()
    history.add_messages([numbered_message(0, 10)])
    ours = history._client()
    child = os.fork()
    if not child:
        try:
            if history._client() is not ours:
                history.add_messages([numbered_message(1, 10)])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert history._client() is ours
    assert message_numbers(history.messages) == [0, 1]


def delete_last_archive(histories: Histories) -> None:
    archives = [item for item in histories.items() if "chatledger_of" in item]
    last = max(archives, key=lambda item: item[histories.key_names[-1]]["S"])
    key = {name: last[name] for name in histories.key_names}
    histories.client.delete_item(TableName=histories.table, Key=key)


def test_trim_storage_trims_beside_other_writers(hash_only: Histories) -> None:
    options: dict[str, Any] = {"first_item_bytes": 1_024, "history_size": 3, "trim_storage": True}

    def write(writer: int) -> None:
        for n in range(25):
            hash_only.open(**options).add_messages([numbered_message(n, 300)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(hash_only.open().messages) <= 12


def test_a_history_to_which_an_earlier_version_still_writes_is_left_alone(
    hash_only: Histories,
) -> None:
    history = hash_only.open(first_item_bytes=1_024)
    for n in range(8):
        history.add_messages([numbered_message(n, 300)])
    first = hash_only.item()
    assert first is not None
    assert ARCHIVES in first
    hash_only.put(first | {SEGMENTS: {"L": [{"S": "an-earlier-version"}]}})
    before = hash_only.items()
    for use in (lambda: history.messages, lambda: history.add_messages([HumanMessage("Hi")])):
        with pytest.raises(StoreMismatch, match=r"earlier version of Chatledger .* clear the hist"):
            use()
    assert hash_only.items() == before
    history.clear()
    assert hash_only.items() == []
    history.add_messages([HumanMessage("Hi")])
    assert history.messages == [HumanMessage("Hi")]
