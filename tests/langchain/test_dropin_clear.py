"""Clearing a history, beside writers, and when it is broken off."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from chatledger.errors import AccessRefused
from chatledger.langchain import dropin
from chatledger.langchain.connections import shared_client
from chatledger.langchain.memory import Places
from tests.langchain.histories import Histories, lost_answers

SMALL: dict[str, Any] = {"segment_bytes": 1_024}


def grown(histories: Histories, session_id: str = "1", count: int = 10) -> None:
    for n in range(count):
        histories.open(session_id, **SMALL).add_messages([HumanMessage(f"{n}".ljust(300))])


def test_clear_removes_all_and_nothing_else(histories: Histories, requests: list[str]) -> None:
    grown(histories, "1")
    grown(histories, "10")
    others = histories.open("10").messages
    histories.open("1").clear()
    assert histories.open("1").messages == []
    assert histories.open("10").messages == others
    histories.open("10").clear()
    assert histories.items() == []
    requests.clear()
    histories.open("2").clear()  # where nothing is
    histories.open("2").add_user_message("Hi")
    histories.open("2").clear()
    assert requests == ["DeleteItem", "UpdateItem", "DeleteItem"]
    assert histories.items() == []


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize("options", [{}, SMALL], ids=["one item", "segments"])
def test_what_is_acknowledged_after_a_clear_is_there_and_nothing_from_before(
    histories: Histories, options: dict[str, Any], run: int
) -> None:
    """Each writer notes its appends; what began after the clear ended must be there, and what
    ended before the clear began must not.
    """
    begun, ended, stop = Event(), Event(), Event()

    def write(writer: int) -> tuple[set[str], set[str]]:
        before, after = set[str](), set[str]()
        n = 0
        while not stop.is_set():
            text = f"{writer} {n}"
            cleared = ended.is_set()
            histories.open(f"{run}", **options).add_user_message(text.ljust(200))
            if cleared:
                after.add(text)
            elif not begun.is_set():
                before.add(text)
            n += 1
        return before, after

    with ThreadPoolExecutor(7) as pool:
        writers = [pool.submit(write, n) for n in range(6)]
        stop.wait(0.7)
        begun.set()
        histories.open(f"{run}", **options).clear()
        ended.set()
        stop.wait(0.7)
        stop.set()
        noted = [writer.result() for writer in writers]
    found = {str(message.content).strip() for message in histories.open(f"{run}").messages}
    before = set().union(*(each[0] for each in noted))
    after = set().union(*(each[1] for each in noted))
    assert before
    assert after
    assert after <= found
    assert not before & found


def test_a_clear_whose_answers_are_lost_clears(histories: Histories) -> None:
    grown(histories)
    with (
        lost_answers(histories, "UpdateItem", times=2),
        lost_answers(histories, "DeleteItem", times=2),
        lost_answers(histories, "BatchWriteItem"),
    ):
        histories.open().clear()
    assert histories.items() == []


def test_one_that_is_broken_off_is_finished_by_the_next_reader(histories: Histories) -> None:
    grown(histories)
    events = shared_client(histories.session, histories.endpoint).meta.events

    def refuse(**_: object) -> None:
        raise KeyboardInterrupt

    events.register("before-call.dynamodb.BatchWriteItem", refuse)
    try:
        with pytest.raises(KeyboardInterrupt):
            histories.open().clear()
    finally:
        events.unregister("before-call.dynamodb.BatchWriteItem", refuse)
    assert len(histories.items()) > 3
    assert histories.old().messages == []
    histories.open().add_user_message("Hi")
    assert [message.content for message in histories.open().messages] == ["Hi"]
    assert len(histories.items()) == 1


def test_a_writer_that_remembers_what_was_cleared_elsewhere_loses_nothing(
    histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(histories)
    ours = dropin._PLACES
    monkeypatch.setattr(dropin, "_PLACES", Places())  # another process
    histories.open().clear()
    grown(histories, count=5)
    monkeypatch.setattr(dropin, "_PLACES", ours)
    histories.open(**SMALL).add_user_message("Hi")
    found = [str(message.content).strip() for message in histories.open().messages]
    assert found == ["0", "1", "2", "3", "4", "Hi"]


def test_a_missing_right_is_named(histories: Histories) -> None:
    from botocore.exceptions import ClientError

    events = shared_client(histories.session, histories.endpoint).meta.events

    def refuse(**_: object) -> None:
        raise ClientError(
            {"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "UpdateItem"
        )

    events.register("before-call.dynamodb.UpdateItem", refuse)
    try:
        with pytest.raises(AccessRefused, match="dynamodb:GetItem, UpdateItem"):
            histories.open().add_user_message("Hi")
    finally:
        events.unregister("before-call.dynamodb.UpdateItem", refuse)
