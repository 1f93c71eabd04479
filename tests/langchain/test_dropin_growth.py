"""Histories that outgrow an item, with many writers, and answers that are lost on the way."""

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
from chatledger.langchain.memory import Places
from chatledger.langchain.segments import Chain
from chatledger.langchain.values import encode
from tests.langchain.histories import Histories, lost_answers

WRITERS, APPENDS = 8, 20


def long(n: int, size: int) -> HumanMessage:
    return HumanMessage(f"{n} ".ljust(size, "x"))


def numbers(messages: Any) -> list[int]:
    return [int(message.content.split()[0]) for message in messages]


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize("options", [{}, {"segment_bytes": 2_000}], ids=["one item", "segments"])
def test_8_writers_of_20_appends_leave_160(
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


def test_a_history_of_2_mb_is_right(histories: Histories, requests: list[str]) -> None:
    history = histories.open()
    for n in range(200):
        history.add_messages([long(n, 10_000)])
    assert requests.count("UpdateItem") < 200 + 5 * 4
    requests.clear()
    found = histories.open().messages
    assert requests == ["GetItem", "BatchGetItem"]
    assert found == [long(n, 10_000) for n in range(200)]
    assert len(histories.items()) == 6
    requests.clear()
    history.add_messages([long(200, 10_000)])
    assert requests == ["UpdateItem"]


def test_with_segment_bytes_items_stay_small_and_an_append_cheap(
    histories: Histories, requests: list[str]
) -> None:
    units: list[float] = []
    events = shared_client(histories.session, histories.endpoint).meta.events

    def ask(params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def note(parsed: dict[str, Any], **_: object) -> None:
        if "ConsumedCapacity" in parsed:  # a failed condition tells none
            units.append(parsed["ConsumedCapacity"]["CapacityUnits"])

    events.register("provide-client-params.dynamodb.UpdateItem", ask)
    events.register("after-call.dynamodb.UpdateItem", note)
    try:
        for n in range(100):
            histories.open(segment_bytes=8_192).add_messages([long(n, 1_000)])
    finally:
        events.unregister("provide-client-params.dynamodb.UpdateItem", ask)
        events.unregister("after-call.dynamodb.UpdateItem", note)
    assert max(units) <= 11
    requests.clear()
    assert numbers(histories.open().messages) == [*range(100)]
    assert requests == ["GetItem", "BatchGetItem"]
    assert len(histories.items()) >= 12


def test_a_writer_that_remembers_nothing_is_shown_the_way(
    histories: Histories, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(10):
        histories.open(segment_bytes=2_000).add_messages([long(n, 500)])
    monkeypatch.setattr(dropin, "_PLACES", Places())  # as a new process
    requests.clear()
    histories.open(segment_bytes=2_000).add_messages([long(10, 10)])
    assert requests == ["UpdateItem", "GetItem", "GetItem", "UpdateItem"]
    requests.clear()
    histories.open(segment_bytes=2_000).add_messages([long(11, 10)])
    assert requests == ["UpdateItem"]
    assert numbers(histories.open().messages) == [*range(12)]


def test_one_that_remembers_an_item_which_is_full_by_now_too(histories: Histories) -> None:
    for n in range(5):
        histories.open(segment_bytes=1_024).add_messages([long(n, 400)])
    stale = Places()
    stale._places.update(dropin._PLACES._places)
    for n in range(5, 10):
        histories.open(segment_bytes=1_024).add_messages([long(n, 400)])
    dropin._PLACES._places.update(stale._places)
    histories.open(segment_bytes=1_024).add_messages([long(10, 400)])
    assert numbers(histories.open().messages) == [*range(11)]


def test_a_batch_larger_than_an_item_is_in_whole(histories: Histories) -> None:
    said = [long(n, 90_000) for n in range(12)]
    histories.open().add_messages(said)
    assert histories.open().messages == said
    histories.open().add_messages(said)
    assert histories.open().messages == said * 2


def test_a_message_larger_than_an_item_is_refused(
    hash_only: Histories, requests: list[str]
) -> None:
    with pytest.raises(MessageTooLarge, match="over the limit") as failed:
        hash_only.open().add_messages([long(0, 10), long(1, 410_000)])
    assert failed.value.size > failed.value.limit
    assert requests == []


def test_an_item_that_the_old_class_filled_to_the_brim_goes_on(histories: Histories) -> None:
    said = [long(n, 10_000) for n in range(30)] + [long(30 + n, 300) for n in range(100)]
    elements = [encode(each, "")[0] for each in messages_to_dict(said)]

    def fits(size: int) -> bool:
        last = encode(messages_to_dict([long(130, size)])[0], "")[0]
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
        histories.open().add_messages([long(n, 200)])
    assert numbers(histories.open().messages) == [*range(137)]
    seen = numbers(histories.old().messages)
    assert seen == [*range(len(seen))]
    assert len(seen) > 30


def test_what_the_old_class_adds_behind_is_read_too(histories: Histories) -> None:
    for n in range(6):
        histories.open(segment_bytes=1_024).add_messages([long(n, 300)])
    seen = numbers(histories.old().messages)
    assert 0 < len(seen) < 6
    histories.old().add_messages([long(6, 300)])
    assert sorted(numbers(histories.open().messages)) == [*range(7)]


def test_an_append_whose_answer_is_lost_is_in_once(histories: Histories) -> None:
    for n in range(12):
        with lost_answers(histories, "UpdateItem", times=2) as lost:
            histories.open(segment_bytes=1_024).add_messages([long(n, 300)])
        assert lost
    assert numbers(histories.open().messages) == [*range(12)]


def test_a_new_item_whose_answer_is_lost_is_in_once(histories: Histories) -> None:
    histories.open(segment_bytes=1_024).add_messages([long(0, 900)])
    for n in range(1, 8):
        with lost_answers(histories, "PutItem") as lost:
            histories.open(segment_bytes=1_024).add_messages([long(n, 900)])
        assert lost == ["PutItem"]
    assert numbers(histories.open().messages) == [*range(8)]


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem"])
def test_a_writer_that_dies_while_the_history_grows_harms_nothing(
    histories: Histories, operation: str
) -> None:
    """With UpdateItem: when the list of the items was to be made longer."""
    for n in range(6):
        histories.open(segment_bytes=1_024).add_messages([long(n, 400)])
    events = shared_client(histories.session, histories.endpoint).meta.events

    def die(params: dict[str, Any], **_: object) -> None:
        body = str(params["body"])
        if operation == "PutItem" or "list_append(#s" in body:
            raise KeyboardInterrupt

    events.register(f"before-call.dynamodb.{operation}", die)
    try:
        with pytest.raises(KeyboardInterrupt):
            histories.open(segment_bytes=1_024).add_messages([long(6, 900)])
    finally:
        events.unregister(f"before-call.dynamodb.{operation}", die)
    assert numbers(histories.open().messages) == [*range(6)]
    histories.open(segment_bytes=1_024).add_messages([long(6, 10)])
    assert numbers(histories.open().messages) == [*range(7)]


def test_it_lives_until_the_last_append_says(
    histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(dropin, "Chain", partial(Chain, clock=lambda: now[0]))
    for n in range(40):
        histories.open(ttl=1_000, segment_bytes=1_024).add_messages([long(n, 200)])
        now[0] += 900
        # Nothing that is read is ever stamped to go before the history does.
        assert min(int(item["expireAt"]["N"]) for item in histories.items()) >= now[0]
        if n > 5:
            ends = max(
                int(item.get("chatledger_expires", {"N": 0})["N"]) for item in histories.items()
            )
            stamps = [int(item["expireAt"]["N"]) for item in histories.items()]
            assert min(stamps) > ends
    assert numbers(histories.open().messages) == [*range(40)]
    now[0] += 101
    assert histories.open().messages == []
    histories.open(ttl=1_000).add_messages([long(0, 10)])
    assert numbers(histories.open().messages) == [0]
    assert len(histories.items()) == 1


def test_ttl_may_have_deleted_the_last_item_of_an_expired_history(histories: Histories) -> None:
    for n in range(8):
        histories.open(ttl=1_000, segment_bytes=1_024).add_messages([long(n, 300)])
    delete_last(histories)
    assert histories.open().messages == []
    histories.open(ttl=1_000).add_messages([long(0, 10)])
    assert numbers(histories.open().messages) == [0]
    assert len(histories.items()) == 1


def test_an_item_that_others_deleted_is_named(histories: Histories) -> None:
    for n in range(8):
        histories.open(segment_bytes=1_024).add_messages([long(n, 300)])
    delete_last(histories)
    before = histories.items()
    for use in (
        lambda: histories.open().messages,
        lambda: histories.open().add_messages([long(9, 9)]),
    ):
        with pytest.raises(StoreMismatch, match="other software seems to have deleted it"):
            use()
    assert histories.items() == before
    histories.open().clear()
    assert histories.items() == []


def test_trimmed_storage_drops_whole_items(histories: Histories) -> None:
    options: dict[str, Any] = {"segment_bytes": 1_024, "history_size": 4, "trim_storage": True}
    for n in range(40):
        histories.open(**options).add_messages([long(n, 300)])
    assert numbers(histories.open(**options).messages) == [36, 37, 38, 39]
    assert len(histories.items()) <= 5
    histories.open().clear()
    assert histories.items() == []


def test_a_forked_child_has_connections_of_its_own(hash_only: Histories) -> None:
    history = hash_only.open()
    history.add_messages([long(0, 10)])
    ours = history._client()
    child = os.fork()
    if not child:
        try:
            if history._client() is not ours:
                history.add_messages([long(1, 10)])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert history._client() is ours
    assert numbers(history.messages) == [0, 1]


def delete_last(histories: Histories) -> None:
    item = histories.item()
    assert item is not None
    last = item["chatledger_segments"]["L"][-1]["S"]
    name = histories.names[-1]
    (found,) = [each for each in histories.items() if each[name]["S"].endswith(last)]
    key = {name: found[name] for name in histories.names}
    histories.client.delete_item(TableName=histories.table, Key=key)
