"""Shutdown of ``chatledger serve``: quick and clean, with replies so far saved."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Barrier
from time import monotonic
from uuid import uuid4

import pytest

from chatledger.cli.serving import SHUTDOWN_SECONDS
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.http.client import (
    MARKER,
    SECONDS,
    checked_error,
    expect_error,
    open_client,
    open_stream,
    read_conversation,
    read_events,
    read_reply,
    send_message,
    wait_until,
)
from tests.serving import (
    SERVE,
    STOP_SECONDS,
    Server,
    StartServer,
    environment,
    is_port_free,
    started_server,
)
from tests.stores.dynamodb.tables import new_table


def test_the_server_stops_cleanly_on_sigterm(start_server: StartServer) -> None:
    server = start_server()
    with open_client(server.url) as client:
        send_message(client, "Hi")  # the connection stays open
        assert server.stop() == 0
    assert "Traceback" not in server.log()


def test_the_server_stops_cleanly_on_ctrl_c(start_server: StartServer) -> None:
    server = start_server()
    assert server.stop(signal.SIGINT) in (0, 128 + signal.SIGINT)
    assert "Traceback" not in server.log()


def test_the_server_stops_cleanly_as_soon_as_it_has_printed_its_address(tmp_path: Path) -> None:
    for _ in range(6):
        with started_server(tmp_path, CHATLEDGER_PORT="0") as (process, _):
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0


def test_ctrl_c_during_the_imports_ends_the_server_quietly(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text(
        "print('importing', flush=True); import time; time.sleep(60)"
    )
    process = subprocess.Popen(
        SERVE,
        cwd=tmp_path,
        env=environment(PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
    # The signal ended it, which a shell reports as 130.
    assert (process.returncode, rest) == (-signal.SIGINT, "")


def test_a_stream_cut_off_by_shutdown_is_saved_as_far_as_it_came(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.5")
    with (
        open_client(server.url) as client,
        open_stream(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        stream = read_events(response)
        conversation_id = next(stream)[1]["conversation_id"]
        heard = next(stream)[1]["text"]
        assert server.stop() == 0

    server.restart()

    with open_client(server.url) as client:
        question, reply = read_conversation(client, conversation_id)["messages"]
        assert question["content"] == "Hi, I am Bob"
        assert reply["content"].startswith(heard)
        assert reply["stop_reason"] == "stopped"
    assert "Traceback" not in server.log()
    server.kill()


def test_a_reply_cut_off_by_shutdown_is_a_normal_error(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="5")
    conversation_id = str(uuid4())
    body = {"message": f"Hi, I am {MARKER}", "user_id": "bob", "conversation_id": conversation_id}
    with open_client(server.url) as client, ThreadPoolExecutor(1) as thread:
        reply = thread.submit(client.post, "/chat", json=body)
        # Once the user's message is stored, the turn is running.
        wait_until(lambda: MARKER in client.get(f"/conversations/{conversation_id}").text or None)
        assert server.stop() == 0
        response = reply.result(SECONDS)
        error = expect_error(response, 503, conversation_id=conversation_id)
        assert error["code"] == "server_ending"
        assert int(response.headers["Retry-After"]) > 0
    assert "Traceback" not in server.log()
    assert MARKER not in server.log()


def test_a_slow_reply_does_not_delay_shutdown(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="5")
    with (
        open_client(server.url) as client,
        open_stream(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        assert next(read_events(response))[0] == "start"
        assert server.stop() == 0
    assert "Traceback" not in server.log()


WAITING_MODEL = """
import asyncio
from pathlib import Path

from chatledger.models import Finished


class Waiting:
    id = "waiting"

    async def stream(self, messages, *, system_prompt=None):
        yield "Well, "
        while not Path("go").exists():
            await asyncio.sleep(0.01)
        yield "hello"
        yield Finished("end_turn")
"""


def test_a_reply_whose_client_has_left_may_end_normally(
    start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "waiting.py").write_text(WAITING_MODEL)
    server = start_server(
        CHATLEDGER_MODEL="waiting:Waiting", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])
    )
    with (
        open_client(server.url) as client,
        open_stream(client, message="Hi", user_id="bob") as response,
    ):
        conversation_id = next(read_events(response))[1]["conversation_id"]
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: is_port_free(server.port) or None)  # the server is stopping
    (server.folder / "go").touch()
    assert server.wait() == 0

    server.restart()

    with open_client(server.url) as client:
        [_, reply] = read_conversation(client, conversation_id)["messages"]
        assert (reply["content"], reply["stop_reason"]) == ("Well, hello", "end_turn")
    server.kill()


def test_a_stream_that_waits_for_another_process_says_that_its_server_ends(
    start_server: StartServer,
) -> None:
    store = {"CHATLEDGER_OFFLINE_PACE": "5"}
    writer = start_server(**store)
    url = f"sqlite:///{writer.folder / 'chatledger.db'}"
    reader = start_server(**store, CHATLEDGER_STORE=url)
    with (
        open_client(writer.url) as client,
        open_client(reader.url) as other,
        open_stream(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        events = read_events(response)
        conversation_id = next(events)[1]["conversation_id"]
        with other.stream("GET", f"/conversations/{conversation_id}/reply") as waiting:
            stream = read_events(waiting)
            assert next(stream)[0] == "start"
            reader.send_signal(signal.SIGTERM)
            wait_until(lambda: is_port_free(reader.port) or None)
            reader.send_signal(signal.SIGTERM)
            [(name, error)] = stream
        assert reader.wait() == 0
    assert (name, error["code"]) == ("error", "server_ending")
    assert "ERROR" not in reader.log()
    writer.kill()


# Many streams, and more than one signal

STREAMS = 20
PATIENT = "from chatledger.cli import main, serving; serving.SHUTDOWN_SECONDS = 60; main()"
"""A server that gives replies longer than a test waits, unless a second signal hurries it."""


@pytest.fixture(params=["SQLite", "DynamoDB"])
def store_variables(request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """The variables of a server with this store; none for its SQLite file."""
    if request.param == "SQLite":
        yield {}
        return
    local: DynamoDBLocal = request.getfixturevalue("dynamodb_local")
    client = local.client()
    url = f"dynamodb://{new_table(client)}?region={REGION}&endpoint={local.endpoint}"
    yield {"CHATLEDGER_STORE": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY}
    client.close()


def streams_cut_by(server: Server, end: Callable[[], None]) -> dict[str, str]:
    """Call ``end`` while replies are streamed; return what clients received by conversation.

    Asserts that each stream ends with an event that says why.
    """
    under_way = Barrier(STREAMS + 1)

    def receive(user_id: str) -> tuple[str, str]:
        with (
            open_client(server.url) as client,
            open_stream(client, message="Hi, I am Bob", user_id=user_id) as response,
        ):
            stream = read_events(response)
            conversation_id = next(stream)[1]["conversation_id"]
            heard = next(stream)[1]["text"]
            under_way.wait(SECONDS)
            *pieces, (last, body) = stream
            assert last == "error"
            error = checked_error(body, conversation_id=conversation_id)
            assert error["code"] == "server_ending"
            return conversation_id, heard + "".join(piece["text"] for _, piece in pieces)

    with ThreadPoolExecutor(STREAMS) as threads:
        streams = [threads.submit(receive, f"user {n}") for n in range(STREAMS)]
        under_way.wait(SECONDS)
        end()
        return dict(stream.result(SECONDS) for stream in streams)


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGHUP, signal.SIGTERM]],
    ids=["SIGTERM", "Ctrl-C twice", "SIGHUP and SIGTERM"],
)
def test_no_stream_loses_what_its_client_received(
    start_server: StartServer, store_variables: Mapping[str, str], signals: list[signal.Signals]
) -> None:
    server = start_server(
        CHATLEDGER_OFFLINE_PACE="0.4", CHATLEDGER_LOG_LEVEL="warning", **store_variables
    )
    first, *others = signals
    if others:
        server.command = [sys.executable, "-c", PATIENT, "serve"]
        server.restart()
    before = server.log()

    def end() -> None:
        server.send_signal(first)
        for second in others:
            wait_until(lambda: refuses_connections(server) or None)
            server.send_signal(second)
        assert server.wait() == 0

    received = streams_cut_by(server, end)
    assert len(received) == STREAMS
    assert server.log() == before, "an orderly end prints nothing"

    server.restart()

    with open_client(server.url) as client:
        for conversation_id, heard in received.items():
            question, reply = read_conversation(client, conversation_id)["messages"]
            assert question["content"] == "Hi, I am Bob"
            assert reply["content"].startswith(heard)
            assert reply["stop_reason"] == "stopped"
            with open_stream(client, message="More", conversation_id=conversation_id) as response:
                assert next(read_events(response))[0] == "start"  # no earlier turn blocks it
    server.kill()


@pytest.mark.parametrize("is_killed", [False, True], ids=["two signals", "three signals"])
def test_only_a_third_signal_gives_up_the_last_write(
    start_server: StartServer, is_killed: bool
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.1")
    with (
        closing(sqlite3.connect(server.folder / "chatledger.db", isolation_level=None)) as db,
        open_client(server.url) as client,
        open_stream(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        stream = read_events(response)
        conversation_id = next(stream)[1]["conversation_id"]
        heard = next(stream)[1]["text"]
        db.execute("BEGIN IMMEDIATE")  # the server's writes wait
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(server) or None)
        server.send_signal(signal.SIGTERM)
        *_, (last, _) = stream
        assert last == "error"
        if is_killed:
            assert server.stop() == -signal.SIGTERM
        db.execute("ROLLBACK")
    if not is_killed:
        assert server.wait() == 0

    server.restart()

    with open_client(server.url) as client:
        _, *replies = read_conversation(client, conversation_id)["messages"]
        assert [reply["content"].startswith(heard) for reply in replies] == [True] * (not is_killed)
    assert "Traceback" not in server.log()
    server.kill()


def test_a_server_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    server = Server(tmp_path, CHATLEDGER_OFFLINE_PACE="0.12")
    server.command = ["nohup", *SERVE]
    try:
        server.start()
        with (
            open_client(server.url) as client,
            open_stream(client, message="Hi, I am Bob", user_id="bob") as response,
        ):
            stream = read_events(response)
            first = next(stream)
            started = monotonic()
            server.send_signal(signal.SIGHUP)
            read_reply([first, *stream])  # it is complete
            assert monotonic() - started > SHUTDOWN_SECONDS
        assert server.stop() == 0
    finally:
        server.kill()


def refuses_connections(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False
