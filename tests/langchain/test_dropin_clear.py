"""Clearing a history, also during concurrent writes and after an interruption."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from chatledger.errors import AccessRefused
from chatledger.langchain.connections import shared_client
from tests.langchain.histories import Histories, lose_responses

SMALL: dict[str, Any] = {"first_item_bytes": 1_024}


def fill(histories: Histories, session_id: str = "1", count: int = 10) -> None:
    for n in range(count):
        histories.open(session_id, **SMALL).add_messages([HumanMessage(f"{n}".ljust(300))])


def test_clear_removes_all_messages_of_one_session_only(
    histories: Histories, requests: list[str]
) -> None:
    fill(histories, "1")
    fill(histories, "10")
    others = histories.open("10").messages
    histories.open("1").clear()
    assert histories.open("1").messages == []
    assert histories.open("10").messages == others
    histories.open("10").clear()
    assert histories.items() == []
    requests.clear()
    histories.open("2").clear()  # a session without messages
    histories.open("2").add_user_message("Hi")
    histories.open("2").clear()
    assert requests == ["DeleteItem", "UpdateItem", "DeleteItem"]
    assert histories.items() == []


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize("options", [{}, SMALL], ids=["one item", "archives"])
def test_appends_after_a_clear_are_kept_and_appends_before_it_are_removed(
    histories: Histories, options: dict[str, Any], run: int
) -> None:
    """Appends that start after the clear has ended must be kept, and appends that end before it
    begins must be removed. Each writer records its appends of both kinds.
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
        appended = [writer.result() for writer in writers]
    found = {str(message.content).strip() for message in histories.open(f"{run}").messages}
    before = set().union(*(each[0] for each in appended))
    after = set().union(*(each[1] for each in appended))
    assert before
    assert after
    assert after <= found
    assert not before & found


def test_clear_works_when_responses_are_lost(histories: Histories) -> None:
    fill(histories)
    with (
        lose_responses(histories, "UpdateItem", times=2),
        lose_responses(histories, "DeleteItem", times=6),
    ):
        histories.open().clear()
    assert histories.items() == []


def test_an_interrupted_clear_is_finished_by_the_next_reader(histories: Histories) -> None:
    fill(histories)
    events = shared_client(histories.session, histories.endpoint).meta.events

    def fail(params: dict[str, Any], **_: object) -> None:
        if "ConditionExpression" not in str(params["body"]):  # of an archive
            raise KeyboardInterrupt

    events.register("before-call.dynamodb.DeleteItem", fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            histories.open().clear()
    finally:
        events.unregister("before-call.dynamodb.DeleteItem", fail)
    assert len(histories.items()) > 3
    assert histories.open_old().messages == []
    histories.open().add_user_message("Hi")
    assert [message.content for message in histories.open().messages] == ["Hi"]
    assert len(histories.items()) == 1


def test_a_clear_while_messages_move_to_an_archive_leaves_nothing(histories: Histories) -> None:
    """The clear comes between what the writer read and its transaction."""
    fill(histories)
    events = shared_client(histories.session, histories.endpoint).meta.events
    cleared: list[bool] = []

    def clear(**_: object) -> None:
        if not cleared:
            cleared.append(True)
            histories.open().clear()

    events.register("before-call.dynamodb.TransactWriteItems", clear)
    try:
        histories.open(**SMALL).add_user_message("Hi".ljust(900))
    finally:
        events.unregister("before-call.dynamodb.TransactWriteItems", clear)
    assert cleared
    assert [str(message.content).strip() for message in histories.open().messages] == ["Hi"]
    assert len(histories.items()) == 1


def test_what_the_old_class_leaves_of_a_history_that_it_clears_is_never_read(
    histories: Histories,
) -> None:
    fill(histories)
    histories.open_old().clear()
    assert histories.open().messages == []
    fill(histories, count=5)
    found = [str(message.content).strip() for message in histories.open().messages]
    assert found == ["0", "1", "2", "3", "4"]


def test_a_missing_permission_is_named(histories: Histories) -> None:
    from botocore.exceptions import ClientError

    events = shared_client(histories.session, histories.endpoint).meta.events

    def fail(**_: object) -> None:
        raise ClientError(
            {"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "UpdateItem"
        )

    events.register("before-call.dynamodb.UpdateItem", fail)
    try:
        with pytest.raises(AccessRefused, match="dynamodb:GetItem, UpdateItem"):
            histories.open().add_user_message("Hi")
    finally:
        events.unregister("before-call.dynamodb.UpdateItem", fail)
