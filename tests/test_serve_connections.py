"""Limits of ``chatledger serve`` on what clients hold up: connections, time, memory and log."""

import json
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from chatledger.testing.bedrock_server import BedrockServer, Says
from tests.http.client import (
    SECONDS,
    expect_error,
    json_body,
    open_client,
    open_stream,
    read_conversation,
    read_events,
    send_message,
    wait_until,
)
from tests.serving import Server, StartServer

IMPATIENT = """
import os, resource, signal, socket, sys, time
from chatledger.cli import connections, main, serving

class Impatient(connections.LimitedProtocol):
    head_seconds, body_seconds, reader_seconds = {seconds}

    def connection_made(self, transport):
        # So that a reply need not be large to wait for its reader.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        super().connection_made(transport)

def print_cpu_time(*_):
    print(f"CPU time: {{time.process_time()}}", flush=True)

def use_up_files(*_):
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        for file in taken[:4]:
            os.close(file)
    print("The files are used up.", flush=True)

signal.signal(signal.SIGUSR1, print_cpu_time)
signal.signal(signal.SIGUSR2, use_up_files)
if {files}:
    resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
serving.LimitedProtocol = Impatient
sys.argv = ["chatledger", "serve"]
main()
"""
"""A server that waits for less time than usual, and may open fewer files."""


class ImpatientServer(Server):
    """``Server`` with limits of ``seconds`` for heads, bodies and readers."""

    def __init__(
        self,
        folder: Path,
        *,
        seconds: tuple[float, float, float] = (1, 2, 1),
        files: int = 0,
        environment: Mapping[str, str] = {},
    ) -> None:
        super().__init__(folder, **environment)
        self.command = [sys.executable, "-c", IMPATIENT.format(seconds=seconds, files=files)]

    def cpu_seconds(self) -> float:
        printed = self.log().count("CPU time")
        self.send_signal(signal.SIGUSR1)
        wait_until(lambda: self.log().count("CPU time") > printed or None)
        return float(re.findall(r"CPU time: (\S+)", self.log())[-1])


@pytest.fixture(scope="module")
def bedrock() -> Iterator[BedrockServer]:
    with BedrockServer() as server:
        yield server


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, bedrock: BedrockServer
) -> Iterator[ImpatientServer]:
    server = ImpatientServer(
        tmp_path_factory.mktemp("server"),
        environment={
            "CHATLEDGER_MODELS": "bedrock:amazon.nova-lite-v1:0",
            "CHATLEDGER_OFFLINE_PACE": "0",
            **bedrock.environment,
        },
    )
    server.start()
    yield server
    server.kill()


def connect(server: Server, sent: bytes = b"", *, receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(SECONDS)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(sent)
    return connection


def wait_for_room(server: Server) -> None:
    """Wait until the server accepts a connection and answers."""
    with open_client(server.url) as client:
        wait_until(lambda: client.get("/health").is_success or None)


def read_to_end(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    received = bytearray()
    while part := connection.recv(65536):
        received += part
    return bytes(received)


def read_despite_reset(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection, even without reading."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return bytes(received)


def read_response(connection: socket.socket) -> httpx.Response:
    """Return the next response, whose length must be given."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(1)
        assert part, received
        received += part
    head = received.decode()
    length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
    assert length, head
    while len(received) < len(head) + int(length[1]):
        received += connection.recv(1)
    return parsed(received)


def parsed(received: bytes) -> httpx.Response:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def expect_last_error(received: bytes, status: int) -> str:
    """Assert that an error is all that was received before the end; return its code."""
    response = parsed(received)
    assert response.headers["Connection"] == "close"
    assert int(response.headers["Content-Length"]) == len(response.content)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    code = expect_error(response, status)["code"]
    assert isinstance(code, str)
    return code


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_A_HEAD = b"GET /health HTTP/1.1\r\nHost: local"


def post(length: int, path: str = "/chat", *more: str) -> bytes:
    """Return the head of a request whose body is ``length`` bytes long."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


HALF_A_BODY = post(100) + b'{"message":'
TWO_LENGTHS = post(2, "/chat", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"

# Requests that do not arrive -------------------------------------------------------------------


@pytest.mark.parametrize("sent", [HALF_A_HEAD, HALF_A_BODY, b"G"])
def test_a_request_that_does_not_arrive_is_ended_with_an_error(
    impatient: ImpatientServer, sent: bytes
) -> None:
    with connect(impatient, sent) as connection:
        assert expect_last_error(read_to_end(connection), 408) == "request_timeout"


def test_a_connection_on_which_nothing_arrives_is_closed_silently(
    impatient: ImpatientServer,
) -> None:
    with connect(impatient) as connection:
        assert read_to_end(connection) == b""


@pytest.mark.parametrize("start", [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", post(10_000)])
def test_bytes_now_and_then_do_not_extend_the_time(
    impatient: ImpatientServer, start: bytes
) -> None:
    with connect(impatient, start) as connection:
        connection.settimeout(0.1)
        end = time.monotonic() + SECONDS
        received = b""
        while not received and time.monotonic() < end:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                received = connection.recv(65536)
        assert received, "the connection stays open as long as bytes arrive"
        connection.settimeout(SECONDS)
        assert expect_last_error(received + read_to_end(connection), 408) == "request_timeout"


@pytest.mark.parametrize("second", [HALF_A_HEAD, HALF_A_BODY])
def test_later_requests_of_a_connection_have_the_same_limits(
    impatient: ImpatientServer, second: bytes
) -> None:
    with connect(impatient, GET) as connection:
        assert read_response(connection).status_code == 200
        connection.sendall(second)
        assert expect_last_error(read_to_end(connection), 408) == "request_timeout"


def test_a_turn_may_take_longer_than_its_request(tmp_path: Path) -> None:
    pace = {"CHATLEDGER_OFFLINE_PACE": "0.03"}
    server = ImpatientServer(tmp_path, seconds=(0.2, 0.2, 0.2), environment=pace)
    server.start()
    try:
        with open_client(server.url) as client:
            begun = time.monotonic()
            send_message(client, "Hi")
            assert time.monotonic() - begun > 0.6
            with open_stream(client, message="Hi") as response:
                assert list(read_events(response))[-1][0] == "done"
    finally:
        server.kill()


# Clients that do not read ----------------------------------------------------------------------


def test_a_reader_that_stalls_is_dropped_and_its_reply_goes_on(
    impatient: ImpatientServer, bedrock: BedrockServer
) -> None:
    bedrock.script(Says(["x" * 1000] * 2000), Says("Hello again!"))
    fields = {"conversation_id": "stalled", "user_id": "bob"}
    model = "bedrock:amazon.nova-lite-v1:0"
    body = json.dumps({"message": "Hi", "model_id": model, **fields}).encode()
    request = post(len(body), "/chat/stream") + body
    with (
        connect(impatient, request, receive_buffer=16384) as connection,
        open_client(impatient.url) as client,
    ):
        assert connection.recv(100).startswith(b"HTTP/1.1 200")

        def last_message() -> dict[str, str] | None:
            response = client.get("/conversations/stalled")
            messages = response.json()["conversation"]["messages"] if response.is_success else []
            # The page with the long reply has no room for the question.
            return messages[-1] if messages and messages[-1]["role"] == "assistant" else None

        reply = wait_until(last_message)
        # The model may have said all of it before the reader was dropped.
        assert reply["stop_reason"] == "end_turn"
        assert "x" * 1000 in reply["content"]
        send_message(client, "Are you there?", model_id=model, **fields)


def test_a_reader_that_is_only_slow_gets_the_whole_response(impatient: ImpatientServer) -> None:
    with open_client(impatient.url) as client:
        conversation_id = send_message(client, "x" * 30_000, user_id="bob")["conversation_id"]
        for _ in range(19):
            send_message(client, "x" * 30_000, user_id="bob", conversation_id=conversation_id)
        whole = read_conversation(client, conversation_id)
    path = f"/conversations/{conversation_id}".encode()
    request = GET.replace(b"/health", path).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with connect(impatient, request, receive_buffer=16384) as connection:
        begun = time.monotonic()
        received = b""
        while part := connection.recv(20_000, socket.MSG_WAITALL):
            received += part
            time.sleep(0.1)
    assert time.monotonic() - begun > 2  # twice the limit
    assert json_body(parsed(received))["conversation"] == whole


def test_the_last_bytes_of_a_response_do_not_hold_a_connection_either(tmp_path: Path) -> None:
    server = ImpatientServer(tmp_path, environment={"CHATLEDGER_MAX_CONNECTIONS": "1"})
    server.start()
    try:
        with open_client(server.url) as client:
            fields = {"conversation_id": "long", "user_id": "bob"}
            for _ in range(3):
                send_message(client, "x" * 30_000, **fields)
        request = GET.replace(b"/health", b"/conversations/long")
        with connect(server, request, receive_buffer=16384) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            with open_client(server.url) as client:
                expect_error(client.get("/health"), 503)
            wait_for_room(server)
    finally:
        server.kill()


# Responses before the body has arrived ---------------------------------------------------------


@pytest.mark.parametrize(
    ("request_start", "status"),
    [
        (post(100_000, "/nowhere"), 404),
        (post(100_000, "/health"), 405),
        (post(1_000_000) + b" " * 300_000, 413),
        (post(100).replace(b"localhost", b"evil.example"), 400),
    ],
)
def test_a_response_before_the_body_is_the_connections_last(
    impatient: ImpatientServer, request_start: bytes, status: int
) -> None:
    with connect(impatient, request_start) as connection:
        assert expect_last_error(read_to_end(connection), status)


def test_nothing_is_taken_from_a_connection_after_its_last_response(
    impatient: ImpatientServer,
) -> None:
    with connect(impatient, post(len(GET), "/nowhere")) as connection:
        response = read_response(connection)
        connection.sendall(GET + GET)
        assert response.status_code == 404
        assert read_to_end(connection) == b""


def test_a_client_that_is_still_sending_gets_the_error(impatient: ImpatientServer) -> None:
    with connect(impatient, post(8_000_000)) as connection:
        for _ in range(80):
            connection.sendall(b" " * 100_000)
        assert expect_last_error(read_to_end(connection), 413) == "too_large"


@pytest.mark.parametrize(
    "request_start", [post(10**12, "/nowhere"), post(10**12)], ids=["refused", "too long"]
)
def test_a_body_without_an_end_is_not_taken(
    impatient: ImpatientServer, request_start: bytes
) -> None:
    with connect(impatient, request_start) as connection, pytest.raises(ConnectionError):
        connection.sendall(bytes(256_000_000))


def test_what_follows_the_last_request_does_not_disturb_its_response(
    start_server: StartServer,
) -> None:
    server = start_server()
    body = b'{"message": "Hi"}'
    with connect(server, post(len(body), "/chat/stream", "Connection: close") + body) as connection:
        received = connection.recv(1)
        connection.sendall(b"more")
        assert b"event: done" in received + read_despite_reset(connection)


def test_an_error_after_the_whole_body_leaves_the_connection_open(
    impatient: ImpatientServer,
) -> None:
    with connect(impatient, post(3) + b"nil" + GET) as connection:
        error = read_response(connection)
        assert error.status_code == 400
        assert "Connection" not in error.headers
        assert read_response(connection).status_code == 200


# Requests that are not valid -------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_text",
    [
        TWO_LENGTHS,
        GET.replace(b"1.1\r\n", b"1.0\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        GET.replace(b"1.1", b"9.9"),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"\r\n", b"\n", 1),
        GET.replace(b"\r\n\r\n", b"\r\nX: a\r\n b\r\n\r\n"),
        GET.replace(b"\r\n\r\n", b"\r\nX: a\r\n\tb\r\n\r\n"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        GET.replace(b"Host", b"Ho st"),
    ],
)
@pytest.mark.parametrize("earlier", [b"", GET])
def test_a_request_that_others_could_read_differently_is_refused(
    impatient: ImpatientServer, earlier: bytes, request_text: bytes
) -> None:
    with connect(impatient, earlier + request_text + GET) as connection:
        if earlier:
            assert read_response(connection).status_code == 200
        assert expect_last_error(read_to_end(connection), 400) == "malformed_request"


def test_an_invalid_chunk_of_a_body_is_refused(impatient: ImpatientServer) -> None:
    head = GET.replace(b"GET /health", b"POST /chat")
    chunked = head.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    with connect(impatient, chunked + b"1\r\n{\r\nno length\r\n") as connection:
        assert expect_last_error(read_to_end(connection), 400) == "malformed_request"


@pytest.mark.parametrize("split", range(1, len(GET), 7))
def test_a_request_may_come_in_parts(impatient: ImpatientServer, split: int) -> None:
    with connect(impatient, GET[:split]) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(GET[split:])
        assert read_response(connection).status_code == 200


# The number of connections ---------------------------------------------------------------------


def test_connections_above_the_limit_are_refused_at_once(tmp_path: Path) -> None:
    server = Server(tmp_path, CHATLEDGER_MAX_CONNECTIONS="3")
    server.start()
    log = server.log()
    try:
        with ExitStack() as stack:
            first, *_ = [stack.enter_context(connect(server)) for _ in range(3)]
            for sent in (b"", GET):
                with connect(server, sent) as connection:
                    received = read_despite_reset(connection)
                assert expect_last_error(received, 503) == "too_many_connections"
                assert int(parsed(received).headers["Retry-After"]) >= 1
            first.sendall(GET)
            assert read_response(first).status_code == 200
        wait_for_room(server)
        assert server.log() == log
    finally:
        server.kill()


def test_a_refused_client_that_does_not_close_makes_room_for_another(tmp_path: Path) -> None:
    server = ImpatientServer(tmp_path, environment={"CHATLEDGER_MAX_CONNECTIONS": "1"})
    server.start()
    try:
        for sent in (b"nonsense\r\n\r\n", TWO_LENGTHS, HALF_A_HEAD, post(10, "/nowhere")):
            with connect(server, sent) as connection:
                assert read_to_end(connection)
                wait_for_room(server)
    finally:
        server.kill()


def test_the_server_does_not_accept_more_connections_than_it_can_have(tmp_path: Path) -> None:
    server = ImpatientServer(tmp_path, files=256, environment={"CHATLEDGER_MAX_CONNECTIONS": "200"})
    with pytest.raises(AssertionError, match=r"MAX_CONNECTIONS=200 .* 500 files.*ulimit"):
        server.start()
    assert "Traceback" not in server.log()


def test_a_thousand_idle_connections_neither_stop_the_server_nor_fill_its_log(
    tmp_path: Path,
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = ImpatientServer(tmp_path, seconds=(2, 2, 2), files=512)
    server.start()
    try:
        before = server.cpu_seconds()
        with ExitStack() as stack:
            idle = [
                stack.enter_context(connect(server, sent))
                for sent in [b"", HALF_A_HEAD, HALF_A_BODY] * 333
            ]
            for connection in idle:
                received = read_despite_reset(connection)
                assert not received or parsed(received).status_code in (408, 503)
            begun = time.monotonic()
            with open_client(server.url) as client:
                assert client.get("/health").is_success
                assert time.monotonic() - begun < 1
        assert server.cpu_seconds() - before < 1
        assert len(server.log()) < 1000
    finally:
        server.kill()


def test_a_process_without_free_files_logs_one_line_and_recovers(tmp_path: Path) -> None:
    server = ImpatientServer(tmp_path, files=256)
    server.start()
    try:
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: "used up" in server.log() or None)
        before = server.cpu_seconds()
        with ExitStack() as stack:
            connections = [stack.enter_context(connect(server)) for _ in range(12)]
            for connection in connections:
                assert read_to_end(connection) == b""
        assert server.cpu_seconds() - before < 2
        assert server.log().count("No connection could be accepted") == 1
        assert "Traceback" not in server.log()
    finally:
        server.kill()


# The log ---------------------------------------------------------------------------------------


def test_nothing_that_a_stranger_sends_becomes_a_log_line(tmp_path: Path) -> None:
    server = Server(tmp_path, CHATLEDGER_LOG_LEVEL="warning")  # without a line for each request
    server.start()
    log = server.log()
    upgrade = b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for sent in (
        HALF_A_HEAD,
        HALF_A_BODY,
        b"nonsense\r\n\r\n",
        GET.replace(b"\r\n\r\n", upgrade),
        closing + b"more",
        post(5, "/nowhere") + b"no" + GET,
        TWO_LENGTHS,
    ):
        connect(server, sent).close()
        with connect(server, sent) as connection:
            connection.shutdown(socket.SHUT_WR)
            read_to_end(connection)
    server.stop()
    assert server.log() == log
