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
from chatledger.langchain.segment_cache import ActiveSegmentCache
from chatledger.langchain.segments import HistoryTable
from chatledger.langchain.values import encode_value
from tests.langchain.histories import Histories, lose_responses

WRITERS, APPENDS = 8, 20


def numbered_message(n: int, size: int) -> HumanMessage:
    return HumanMessage(f"{n} ".ljust(size, "x"))


def message_numbers(messages: Any) -> list[int]:
    return [int(message.content.split()[0]) for message in messages]


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize("options", [{}, {"segment_bytes": 2_000}], ids=["one item", "segments"])
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
    assert requests.count("UpdateItem") < 200 + 5 * 4
    requests.clear()
    found = histories.open().messages
    assert requests == ["GetItem", "BatchGetItem"]
    assert found == [numbered_message(n, 10_000) for n in range(200)]
    assert len(histories.items()) == 6
    requests.clear()
    history.add_messages([numbered_message(200, 10_000)])
    assert requests == ["UpdateItem"]


def test_segment_bytes_keeps_items_small_and_appends_cheap(
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
            histories.open(segment_bytes=8_192).add_messages([numbered_message(n, 1_000)])
    finally:
        events.unregister("provide-client-params.dynamodb.UpdateItem", request_capacity)
        events.unregister("after-call.dynamodb.UpdateItem", record)
    assert max(units) <= 11
    requests.clear()
    assert message_numbers(histories.open().messages) == [*range(100)]
    assert requests == ["GetItem", "BatchGetItem"]
    assert len(histories.items()) >= 12


def test_a_writer_without_a_cached_segment_finds_the_active_one(
    histories: Histories, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(10):
        histories.open(segment_bytes=2_000).add_messages([numbered_message(n, 500)])
    monkeypatch.setattr(dropin, "_SEGMENT_CACHE", ActiveSegmentCache())  # as in a new process
    requests.clear()
    histories.open(segment_bytes=2_000).add_messages([numbered_message(10, 10)])
    assert requests == ["UpdateItem", "GetItem", "GetItem", "UpdateItem"]
    requests.clear()
    histories.open(segment_bytes=2_000).add_messages([numbered_message(11, 10)])
    assert requests == ["UpdateItem"]
    assert message_numbers(histories.open().messages) == [*range(12)]


def test_a_writer_whose_cached_segment_is_full_finds_the_active_one(histories: Histories) -> None:
    for n in range(5):
        histories.open(segment_bytes=1_024).add_messages([numbered_message(n, 400)])
    stale = ActiveSegmentCache()
    stale._entries.update(dropin._SEGMENT_CACHE._entries)
    for n in range(5, 10):
        histories.open(segment_bytes=1_024).add_messages([numbered_message(n, 400)])
    dropin._SEGMENT_CACHE._entries.update(stale._entries)
    histories.open(segment_bytes=1_024).add_messages([numbered_message(10, 400)])
    assert message_numbers(histories.open().messages) == [*range(11)]


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


def test_a_history_that_fills_the_old_classs_item_continues_in_segments(
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
    assert seen == [*range(len(seen))]
    assert len(seen) > 30


def test_messages_that_the_old_class_adds_to_a_segmented_history_are_read(
    histories: Histories,
) -> None:
    for n in range(6):
        histories.open(segment_bytes=1_024).add_messages([numbered_message(n, 300)])
    seen = message_numbers(histories.open_old().messages)
    assert 0 < len(seen) < 6
    histories.open_old().add_messages([numbered_message(6, 300)])
    assert sorted(message_numbers(histories.open().messages)) == [*range(7)]


def test_an_append_whose_response_is_lost_is_stored_once(histories: Histories) -> None:
    for n in range(12):
        with lose_responses(histories, "UpdateItem", times=2) as lost:
            histories.open(segment_bytes=1_024).add_messages([numbered_message(n, 300)])
        assert lost
    assert message_numbers(histories.open().messages) == [*range(12)]


def test_a_new_segment_whose_response_is_lost_is_stored_once(histories: Histories) -> None:
    histories.open(segment_bytes=1_024).add_messages([numbered_message(0, 900)])
    for n in range(1, 8):
        with lose_responses(histories, "PutItem") as lost:
            histories.open(segment_bytes=1_024).add_messages([numbered_message(n, 900)])
        assert lost == ["PutItem"]
    assert message_numbers(histories.open().messages) == [*range(8)]


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem"])
def test_a_writer_that_dies_while_adding_a_segment_loses_no_earlier_message(
    histories: Histories, operation: str
) -> None:
    """The writer dies at the put of the segment, or at the update that lists it."""
    for n in range(6):
        histories.open(segment_bytes=1_024).add_messages([numbered_message(n, 400)])
    events = shared_client(histories.session, histories.endpoint).meta.events

    def die(params: dict[str, Any], **_: object) -> None:
        body = str(params["body"])
        if operation == "PutItem" or "list_append(#s" in body:
            raise KeyboardInterrupt

    events.register(f"before-call.dynamodb.{operation}", die)
    try:
        with pytest.raises(KeyboardInterrupt):
            histories.open(segment_bytes=1_024).add_messages([numbered_message(6, 900)])
    finally:
        events.unregister(f"before-call.dynamodb.{operation}", die)
    assert message_numbers(histories.open().messages) == [*range(6)]
    histories.open(segment_bytes=1_024).add_messages([numbered_message(6, 10)])
    assert message_numbers(histories.open().messages) == [*range(7)]


def test_a_history_of_segments_expires_one_lifetime_after_the_last_append(
    histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(dropin, "HistoryTable", partial(HistoryTable, clock=lambda: now[0]))
    for n in range(40):
        histories.open(ttl=1_000, segment_bytes=1_024).add_messages([numbered_message(n, 200)])
        now[0] += 900
        # No item may be deleted by TTL before the history expires.
        assert min(int(item["expireAt"]["N"]) for item in histories.items()) >= now[0]
        if n > 5:
            ends = max(
                int(item.get("chatledger_expires", {"N": 0})["N"]) for item in histories.items()
            )
            stamps = [int(item["expireAt"]["N"]) for item in histories.items()]
            assert min(stamps) > ends
    assert message_numbers(histories.open().messages) == [*range(40)]
    now[0] += 101
    assert histories.open().messages == []
    histories.open(ttl=1_000).add_messages([numbered_message(0, 10)])
    assert message_numbers(histories.open().messages) == [0]
    assert len(histories.items()) == 1


def test_an_expired_history_reads_as_empty_after_ttl_deleted_its_last_item(
    histories: Histories,
) -> None:
    for n in range(8):
        histories.open(ttl=1_000, segment_bytes=1_024).add_messages([numbered_message(n, 300)])
    delete_last_segment(histories)
    assert histories.open().messages == []
    histories.open(ttl=1_000).add_messages([numbered_message(0, 10)])
    assert message_numbers(histories.open().messages) == [0]
    assert len(histories.items()) == 1


def test_a_segment_deleted_by_other_software_is_reported(histories: Histories) -> None:
    for n in range(8):
        histories.open(segment_bytes=1_024).add_messages([numbered_message(n, 300)])
    delete_last_segment(histories)
    before = histories.items()
    for use in (
        lambda: histories.open().messages,
        lambda: histories.open().add_messages([numbered_message(9, 9)]),
    ):
        with pytest.raises(StoreMismatch, match="other software seems to have deleted it"):
            use()
    assert histories.items() == before
    histories.open().clear()
    assert histories.items() == []


def test_trim_storage_drops_whole_items_of_a_segmented_history(histories: Histories) -> None:
    options: dict[str, Any] = {"segment_bytes": 1_024, "history_size": 4, "trim_storage": True}
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


def delete_last_segment(histories: Histories) -> None:
    item = histories.item()
    assert item is not None
    last = item["chatledger_segments"]["L"][-1]["S"]
    name = histories.key_names[-1]
    (found,) = [each for each in histories.items() if each[name]["S"].endswith(last)]
    key = {name: found[name] for name in histories.key_names}
    histories.client.delete_item(TableName=histories.table, Key=key)
