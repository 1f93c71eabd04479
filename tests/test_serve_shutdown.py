"""Shutdown of ``chatledger serve``: quick and clean, with replies so far saved."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from tests.http.client import (
    MARKER,
    SECONDS,
    expect_error,
    open_client,
    open_stream,
    read_conversation,
    read_events,
    send_message,
    wait_until,
)
from tests.serving import STOP_SECONDS, StartServer, started_server


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
        wait_until(
            lambda: client.get(f"/conversations/{conversation_id}").status_code == 200 or None
        )
        assert server.stop() == 0
        expect_error(reply.result(SECONDS), 500, 503)
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
