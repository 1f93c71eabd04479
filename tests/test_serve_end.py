"""How ``chatledger serve`` ends: at once, cleanly, and with what was said by then in its file."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from tests.http.client import (
    MARKER,
    SECONDS,
    connected,
    events,
    eventually,
    refused,
    said,
    shown,
    streamed,
)
from tests.serving import END, StartServer, announced


def test_it_ends_cleanly_when_told_to(start_server: StartServer) -> None:
    server = start_server()
    with connected(server.url) as client:
        said(client, "Hi")  # and the connection stays open
        assert server.stop() == 0
    assert "Traceback" not in server.log()


def test_it_ends_cleanly_on_control_c(start_server: StartServer) -> None:
    server = start_server()
    assert server.stop(signal.SIGINT) in (0, 128 + signal.SIGINT)
    assert "Traceback" not in server.log()


def test_it_ends_cleanly_from_the_moment_that_it_prints_its_address(tmp_path: Path) -> None:
    for _ in range(6):
        with announced(tmp_path, CHATLEDGER_PORT="0") as (process, _):
            process.terminate()
            assert process.wait(END) == 0


def test_a_stream_cut_off_by_its_end_is_kept_as_far_as_it_came(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0.5")
    with (
        connected(server.url) as client,
        streamed(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        stream = events(response)
        place = next(stream)[1]["conversation_id"]
        heard = next(stream)[1]["text"]
        assert server.stop() == 0

    server.restart()

    with connected(server.url) as client:
        question, reply = shown(client, place)["messages"]
        assert question["content"] == "Hi, I am Bob"
        assert reply["content"].startswith(heard)
        assert reply["stop_reason"] == "stopped"
    assert "Traceback" not in server.log()
    server.kill()


def test_a_reply_cut_off_by_its_end_is_an_error_like_any_other(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="5")
    place = str(uuid4())
    body = {"message": f"Hi, I am {MARKER}", "user_id": "bob", "conversation_id": place}
    with connected(server.url) as client, ThreadPoolExecutor(1) as thread:
        reply = thread.submit(client.post, "/chat", json=body)
        # Its user's message is stored, so it is under way.
        eventually(lambda: client.get(f"/conversations/{place}").status_code == 200 or None)
        assert server.stop() == 0
        refused(reply.result(SECONDS), 500, 503)
    assert "Traceback" not in server.log()
    assert MARKER not in server.log()


def test_a_reply_that_takes_its_time_does_not_keep_it_from_ending(
    start_server: StartServer,
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="5")
    with (
        connected(server.url) as client,
        streamed(client, message="Hi, I am Bob", user_id="bob") as response,
    ):
        assert next(events(response))[0] == "start"
        assert server.stop() == 0
    assert "Traceback" not in server.log()
