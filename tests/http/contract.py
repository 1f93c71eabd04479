"""The HTTP contract as tests that know nothing of a server but its base URL.

A server turns them on in a test file of this folder::

    class TestMyServer(HTTPContract):
        @pytest.fixture
        def url(self) -> str:
            return "http://127.0.0.1:8000"

It must run the ``offline`` model, without pauses. Every test brings users of its own, so that one
server does for all of them. A server behind a gateway takes ``CommonContract``, and of the others
those whose requests the gateway hands on.
"""

import httpx
import pytest

from tests.http.bad_input import table
from tests.http.client import answer_of, refused
from tests.http.conversation_contract import ConversationContract
from tests.http.key_contract import KeyContract, TwoKeysContract
from tests.http.owner_contract import OwnerContract
from tests.http.page_contract import PageContract
from tests.http.refusal_contract import BytesContract, RefusalContract

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}

UNKNOWN = table(
    {
        "get": ("GET", "/nowhere"),
        "post": ("POST", "/nowhere"),
        "delete": ("DELETE", "/nowhere"),
        "what crawlers try": ("GET", "/.env"),
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
    ConversationContract, PageContract, OwnerContract, RefusalContract, KeyContract
):
    """What every Chatledger server answers, whatever it is built on; streams apart."""

    @pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
    def test_the_root_welcomes_programs(self, client: httpx.Client, accept: str) -> None:
        answer = answer_of(client.get("/", headers={"Accept": accept}))
        assert answer["message"] == "Welcome to the Chatledger chatbot API"

    def test_health(self, client: httpx.Client) -> None:
        assert answer_of(client.get("/health")) == {"status": "healthy"}

    def test_health_may_be_asked_for_by_head(self, client: httpx.Client) -> None:
        response = client.head("/health")
        assert response.status_code == 200
        assert response.content == b""

    @pytest.mark.parametrize("route", UNKNOWN)
    def test_an_unknown_route_is_not_found(
        self, client: httpx.Client, route: tuple[str, str]
    ) -> None:
        refused(client.request(*route), 404)

    @pytest.mark.parametrize("route", NOT_ALLOWED, ids=" ".join)
    def test_a_wrong_method_is_not_allowed(
        self, client: httpx.Client, route: tuple[str, str]
    ) -> None:
        refused(client.request(*route), 405)


class BrowserContract:
    """For servers that have the page."""

    def test_the_root_gives_browsers_a_page(self, client: httpx.Client) -> None:
        response = client.get("/", headers=BROWSER)
        assert response.status_code == 200
        kind = response.headers["Content-Type"].lower().replace(" ", "")
        assert kind == "text/html;charset=utf-8"
        assert response.text.lstrip().lower().startswith("<!doctype html>")


class AddressContract:
    """For servers that are asked for every address there is."""

    @pytest.mark.parametrize("path", UNDER_A_ROUTE)
    def test_there_is_nothing_under_a_route(self, client: httpx.Client, path: str) -> None:
        refused(client.get(path), 404)


class HTTPContract(
    CommonContract, BrowserContract, AddressContract, TwoKeysContract, BytesContract
):
    """What a server answers that is a program of its own, with nothing in front that it needs."""
