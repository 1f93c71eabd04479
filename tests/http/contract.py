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

from chatledger.http.api import SECURITY_HEADERS
from chatledger.http.endpoints import IMPORT_PATH
from tests.http.bad_input import named_params
from tests.http.client import (
    ID,
    PRIVATE_ROUTES,
    create_conversation,
    expect_error,
    new_user,
    success_body,
)
from tests.http.conversation_contract import ConversationContract
from tests.http.invalid_input_contract import BytesContract, InvalidInputContract
from tests.http.key_contract import KeyContract, TwoKeysContract
from tests.http.owner_contract import OwnerContract
from tests.http.page_contract import PageContract
from tests.http.search_contract import SearchContract

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
ROUTES = [route.split(" ") for route in ("GET /", "GET /health", "GET /sign-in", *PRIVATE_ROUTES)]
METHODS = {path: {method for method, each in ROUTES if each == path} for _, path in ROUTES}
METHODS[IMPORT_PATH] |= METHODS[f"/conversations/{ID}"]  # of the conversation with the id "import"
NOT_ALLOWED = [
    (method, path.replace(ID, "nobody"))
    for path in METHODS
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    if method not in METHODS[path]
]


class CommonContract(
    ConversationContract,
    PageContract,
    SearchContract,
    OwnerContract,
    InvalidInputContract,
    KeyContract,
):
    """Tests for every Chatledger server, except those of streams."""

    @pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
    def test_the_root_welcomes_programs(self, client: httpx.Client, accept: str) -> None:
        answer = success_body(client.get("/", headers={"Accept": accept}))
        assert answer["message"] == "Welcome to the Chatledger chatbot API"

    def test_the_models_are_listed(self, client: httpx.Client) -> None:
        body = success_body(client.get("/models"))
        assert body == {
            "models": [{"id": "offline", "is_default": True}],
            "allows_system_prompt": True,
        }
        expect_error(client.get("/models?model_id=offline"), 422)

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
        response = client.request(*route)
        expect_error(response, 405)
        [allowed] = [METHODS[path] for path in METHODS if path.replace(ID, "nobody") == route[1]]
        allowed |= {"HEAD"} if "GET" in allowed else set()
        assert set(response.headers["Allow"].split(", ")) == allowed

    @pytest.mark.parametrize("path", ["/health", "/conversations", "/conversations/{}"])
    def test_head_is_get_without_the_body(self, client: httpx.Client, path: str) -> None:
        user = new_user()
        path = path.format(create_conversation(client, user_id=user))
        params = {} if path == "/health" else {"user_id": user}
        response = client.head(path, params=params)
        assert response.status_code == client.get(path, params=params).status_code == 200
        assert response.content == b""
        assert client.head("/conversations/nobody", params={"user_id": user}).status_code == 404

    @pytest.mark.parametrize(
        "route", [("GET", "/health"), ("GET", "/conversations"), ("PUT", "/chat"), ("GET", "/x")]
    )
    def test_no_response_is_kept_or_embedded_elsewhere(
        self, client: httpx.Client, route: tuple[str, str]
    ) -> None:
        headers = client.request(*route).headers
        for name, value in SECURITY_HEADERS.items():
            assert headers[name] == value
        assert headers["Cache-Control"] == "no-store"


class BrowserContract:
    """Tests for servers that have the page."""

    def test_the_root_returns_the_page_to_browsers(self, client: httpx.Client) -> None:
        response = client.get("/", headers=BROWSER)
        assert response.status_code == 200
        kind = response.headers["Content-Type"].lower().replace(" ", "")
        assert kind == "text/html;charset=utf-8"
        assert response.text.lstrip().lower().startswith("<!doctype html>")

    @pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/page.css"])
    def test_a_browser_asks_for_each_file_whether_it_has_changed(
        self, client: httpx.Client, path: str
    ) -> None:
        response = client.get(path, headers=BROWSER)
        assert response.headers["Cache-Control"] == "no-cache"
        known = {"If-None-Match": response.headers["ETag"]}
        again = client.get(path, headers=BROWSER | known)
        assert again.headers["Cache-Control"] == "no-cache"
        if path != "/":
            assert again.status_code == 304


class AddressContract:
    """Tests for servers that receive requests for any path."""

    @pytest.mark.parametrize("path", UNDER_A_ROUTE)
    def test_there_is_nothing_under_a_route(self, client: httpx.Client, path: str) -> None:
        expect_error(client.get(path), 404)


class HTTPContract(
    CommonContract, BrowserContract, AddressContract, TwoKeysContract, BytesContract
):
    """Tests for a server that needs no gateway in front of it."""
