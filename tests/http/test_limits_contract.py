"""Both servers hold the limits of their callers; ``chatledger serve`` also those of streams."""

import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatledger.errors import NotFound
from chatledger.http.limits import USAGE
from chatledger.stores.sqlite import SQLiteStore
from tests.http.client import (
    MARKER,
    SECONDS,
    expect_error,
    new_user,
    open_checking_client,
    open_client,
    open_stream,
    read_events,
    send_message,
    success_body,
    wait_until,
)
from tests.http.limits_contract import (
    LIMITS,
    LONG,
    STORAGE_LIMITS,
    TURNS_A_MINUTE,
    LimitsContract,
    Pair,
    StorageLimitsContract,
    refused,
    sign_in,
)
from tests.http.tokens import KeyServer, key_server
from tests.serverless.gateway import Gateway, app_factory
from tests.serving import Server, StartServer

Variables = Mapping[str, str]


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyServer]:
    with key_server() as issuer:
        yield issuer


@pytest.fixture(scope="class")
def variables(request: pytest.FixtureRequest) -> Variables:
    """The limits that the contract of the test class needs."""
    return STORAGE_LIMITS if issubclass(request.cls, StorageLimitsContract) else LIMITS


@pytest.fixture(scope="class")
def urls(start_server: StartServer, issuer: KeyServer, variables: Variables) -> tuple[str, str]:
    """The URLs of two servers that share a store."""
    first = start_server(**variables, **issuer.settings)
    store = f"sqlite:///{first.folder / 'chatledger.db'}"
    return first.url, start_server(CHATLEDGER_STORE=store, **variables, **issuer.settings).url


class OnServe:
    """Fixtures of ``chatledger serve``."""

    @pytest.fixture
    def servers(self, urls: tuple[str, str]) -> Iterator[Pair]:
        with open_checking_client(urls[0]) as first, open_checking_client(urls[1]) as second:
            yield first, second

    @pytest.fixture
    def open_server(
        self, start_server: StartServer, variables: Variables
    ) -> Iterator[httpx.Client]:
        with open_checking_client(start_server(**variables).url) as client:
            yield client


class OnChalice:
    """Fixtures of the serverless server."""

    @pytest.fixture
    def servers(self, tmp_path: Path, issuer: KeyServer, variables: Variables) -> Iterator[Pair]:
        store = f"sqlite:///{tmp_path / 'chatledger.db'}"
        with (
            app_factory(CHATLEDGER_STORE=store, **variables, **issuer.settings) as new_app,
            Gateway(new_app).client() as first,
            Gateway(new_app).client() as second,
        ):
            yield first, second

    @pytest.fixture
    def open_server(self, tmp_path: Path, variables: Variables) -> Iterator[httpx.Client]:
        store = f"sqlite:///{tmp_path / 'chatledger.db'}"
        with (
            app_factory(CHATLEDGER_STORE=store, **variables) as new_app,
            Gateway(new_app).client() as client,
        ):
            yield client


class TestServe(OnServe, LimitsContract):
    pass


class TestServeStorage(OnServe, StorageLimitsContract):
    pass


class TestChalice(OnChalice, LimitsContract):
    pass


class TestChaliceStorage(OnChalice, StorageLimitsContract):
    pass


# Turns at once ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow(start_server: StartServer, issuer: KeyServer) -> Server:
    """A server whose replies take long, with limits of turns at once."""
    return start_server(
        CHATLEDGER_OFFLINE_PACE="1",
        CHATLEDGER_TURNS_AT_ONCE="2",
        CHATLEDGER_ALL_TURNS_AT_ONCE="3",
        **issuer.settings,
    )


def open_turns(stack: ExitStack, client: httpx.Client, count: int) -> None:
    """Start turns that run until ``stack`` is closed."""
    for _ in range(count):
        response = stack.enter_context(open_stream(client, message="Hi", on_disconnect="stop"))
        # If the iterator were dropped, the response would be closed.
        events = stack.enter_context(closing(read_events(response)))
        assert next(events)[0] == "start"


def accepts_turns(client: httpx.Client) -> bool | None:
    with open_stream(client, message="Hi", on_disconnect="stop") as response:
        return response.status_code == 200 or None


def test_the_turns_of_a_user_and_of_all_users_at_once_are_limited(slow: Server) -> None:
    with ExitStack() as stack:
        bob, eve, ann = (stack.enter_context(open_client(slow.url)) for _ in range(3))
        for client in (bob, eve, ann):
            sign_in(client)
        streams = stack.enter_context(ExitStack())
        open_turns(streams, bob, 2)
        for path in ("/chat", "/chat/stream"):
            assert refused(bob, path) == ("too_many_turns", 1)
        open_turns(streams, eve, 1)
        assert refused(ann) == ("server_busy", 1)
        streams.close()
        assert wait_until(lambda: accepts_turns(bob))


def test_a_turn_beyond_the_limit_is_refused_before_its_body_is_read(slow: Server) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(open_client(slow.url))
        sign_in(client)
        wait_until(lambda: accepts_turns(client))
        open_turns(stack, client, 2)
        address = ("127.0.0.1", slow.port)
        with closing(socket.create_connection(address, timeout=SECONDS)) as connection:
            head = (
                f"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
                f"Authorization: {client.headers['Authorization']}\r\n\r\n"
            )
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 429 ")


def test_a_turn_that_fails_frees_its_place(slow: Server) -> None:
    with open_client(slow.url) as client:
        sign_in(client)
        for _ in range(4):
            expect_error(client.post("/chat", json={"message": ""}), 422)


OPEN = {"CHATLEDGER_ALLOW_UNAUTHENTICATED": "true"}


def test_turns_that_start_at_the_same_moment_are_all_counted(start_server: StartServer) -> None:
    limits = {"CHATLEDGER_TURNS_A_MINUTE": "40", "CHATLEDGER_OFFLINE_PACE": "0"}
    server = start_server(**limits)
    with open_client(server.url) as client, ThreadPoolExecutor(40) as threads:
        sent = [threads.submit(client.post, "/chat", json={"message": "Hi"}) for _ in range(40)]
        statuses = [each.result().status_code for each in sent]
        assert statuses == [200] * 40
        refused(client)


def test_behind_a_trusted_proxy_each_of_its_clients_has_limits(start_server: StartServer) -> None:
    server = start_server(**LIMITS, CHATLEDGER_TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8", **OPEN)
    with open_client(server.url) as client:
        for address in ("198.51.100.1", "198.51.100.2"):
            client.headers["X-Forwarded-For"] = address
            for _ in range(TURNS_A_MINUTE):
                send_message(client, "Hi")
            refused(client)


def test_nobody_else_may_claim_another_address(start_server: StartServer) -> None:
    server = start_server(**LIMITS, CHATLEDGER_TRUSTED_PROXIES="10.0.0.0/8", **OPEN)
    with open_client(server.url) as client:
        for _ in range(TURNS_A_MINUTE):
            send_message(client, "Hi")
        client.headers["X-Forwarded-For"] = "198.51.100.1"
        refused(client)


# Shutdown -----------------------------------------------------------------------------------------


def test_the_tokens_of_the_last_turns_are_written_at_shutdown(
    start_server: StartServer, issuer: KeyServer
) -> None:
    server = start_server(**LIMITS, **issuer.settings)
    with open_client(server.url) as client:
        user = sign_in(client)
        send_message(client, LONG)
    assert server.stop() == 0
    with SQLiteStore(server.folder / "chatledger.db") as store:
        usage: Any = store.entry(None, USAGE, owner=user).value
    assert 1_200 < usage["tokens"] < 1_300


def test_without_limits_nothing_is_counted(start_server: StartServer) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0")
    user = new_user()
    with open_client(server.url) as client:
        for _ in range(2):
            success_body(client.post("/chat", json={"message": MARKER, "user_id": user}))
    assert server.stop() == 0
    with SQLiteStore(server.folder / "chatledger.db") as store:
        for owner in (user, "chatledger:address:127.0.0.1"):
            with pytest.raises(NotFound):
                store.entry(None, USAGE, owner=owner)
