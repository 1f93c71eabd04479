"""The HTTP contract, as tests that know only the base URL of a server.

To run them for a server, add a test file to this folder::

    class TestMyServer(HTTPContract):
        @pytest.fixture
        def url(self) -> str:
            return "http://127.0.0.1:8000"

The server must run the ``offline`` model without pauses. Each test makes up its own users, so all
tests can share one server. A server behind a gateway runs ``CommonContract`` and those other
classes whose requests the gateway passes on.
"""

import httpx
import pytest

from tests.http.bad_input import named_params
from tests.http.client import expect_error, success_body
from tests.http.conversation_contract import ConversationContract
from tests.http.invalid_input_contract import BytesContract, InvalidInputContract
from tests.http.key_contract import KeyContract, TwoKeysContract
from tests.http.owner_contract import OwnerContract
from tests.http.page_contract import PageContract

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}

UNKNOWN = named_params(
    {
        "get": ("GET", "/nowhere"),
        "post": ("POST", "/nowhere"),
        "delete": ("DELETE", "/nowhere"),
        "a path that crawlers try": ("GET", "/.env"),
        "not UTF-8": ("GET", "/%FF"),
        "in capitals": ("GET", "/CHAT"),
    }
)
UNDER_A_ROUTE = ["/chat/nowhere", "/health/nowhere", "/nowhere/at/all"]
NOT_ALLOWED = [
    ("POST", "/"),
    ("POST", "/health"),
    ("DELETE", "/health"),
    ("GET", "/chat"),
    ("PUT", "/chat"),
    ("DELETE", "/chat"),
    ("PUT", "/conversations"),
    ("DELETE", "/conversations"),
    ("POST", "/conversations/nobody"),
    ("PUT", "/conversations/nobody"),
    ("PATCH", "/conversations/nobody"),
]


class CommonContract(
    ConversationContract, PageContract, OwnerContract, InvalidInputContract, KeyContract
):
    """Tests for every Chatledger server, except those of streams."""

    @pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
    def test_the_root_welcomes_programs(self, client: httpx.Client, accept: str) -> None:
        answer = success_body(client.get("/", headers={"Accept": accept}))
        assert answer["message"] == "Welcome to the Chatledger chatbot API"

    def test_health(self, client: httpx.Client) -> None:
        assert success_body(client.get("/health")) == {"status": "healthy"}

    def test_health_supports_head(self, client: httpx.Client) -> None:
        response = client.head("/health")
        assert response.status_code == 200
        assert response.content == b""

    @pytest.mark.parametrize("route", UNKNOWN)
    def test_an_unknown_route_is_not_found(
        self, client: httpx.Client, route: tuple[str, str]
    ) -> None:
        expect_error(client.request(*route), 404)

    @pytest.mark.parametrize("route", NOT_ALLOWED, ids=" ".join)
    def test_a_wrong_method_is_not_allowed(
        self, client: httpx.Client, route: tuple[str, str]
    ) -> None:
        expect_error(client.request(*route), 405)


class BrowserContract:
    """Tests for servers that have the page."""

    def test_the_root_returns_the_page_to_browsers(self, client: httpx.Client) -> None:
        response = client.get("/", headers=BROWSER)
        assert response.status_code == 200
        kind = response.headers["Content-Type"].lower().replace(" ", "")
        assert kind == "text/html;charset=utf-8"
        assert response.text.lstrip().lower().startswith("<!doctype html>")


class AddressContract:
    """Tests for servers that receive requests for any path."""

    @pytest.mark.parametrize("path", UNDER_A_ROUTE)
    def test_there_is_nothing_under_a_route(self, client: httpx.Client, path: str) -> None:
        expect_error(client.get(path), 404)


class HTTPContract(
    CommonContract, BrowserContract, AddressContract, TwoKeysContract, BytesContract
):
    """Tests for a server that needs no gateway in front of it."""
