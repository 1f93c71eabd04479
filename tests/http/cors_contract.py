"""HTTP contract: requests from pages of other sites (CORS)."""

import httpx
import pytest

from tests.http.client import MARKER, expect_error, new_user, success_body

SITE = "https://chat.example"
"""The site that ``CHATLEDGER_ALLOW_ORIGIN`` allows on the servers under test."""


def header_items(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",")}


class CORSContract:
    """Tests for servers that allow ``SITE``."""

    @pytest.fixture(autouse=True)
    def from_the_allowed_site(self, client: httpx.Client) -> None:
        client.headers["Origin"] = SITE

    @pytest.mark.parametrize(
        ("path", "method"),
        [("/chat", "POST"), ("/conversations", "GET"), ("/conversations/1", "DELETE")],
    )
    def test_a_preflight_request_is_allowed(
        self, client: httpx.Client, path: str, method: str
    ) -> None:
        wanted = "authorization, content-type, idempotency-key"
        asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": wanted}
        answer = client.options(path, headers=asked)
        assert answer.is_success
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        assert method in answer.headers["Access-Control-Allow-Methods"]
        assert header_items(wanted) <= header_items(answer.headers["Access-Control-Allow-Headers"])

    def test_the_page_can_read_responses(self, client: httpx.Client) -> None:
        answer = client.post("/chat", json={"message": "Hi", "user_id": new_user()})
        success_body(answer)
        assert answer.headers["Access-Control-Allow-Origin"] == SITE

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (("GET", "/conversations/nobody"), 404),
            (("GET", "/nowhere"), 404),
            (("PUT", "/chat"), 405),
            (("GET", "/conversations"), 400),
        ],
    )
    def test_the_page_can_read_errors_too(
        self, client: httpx.Client, request_: tuple[str, str], status: int
    ) -> None:
        answer = client.request(*request_)
        expect_error(answer, status)
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        seen = header_items(answer.headers["Access-Control-Expose-Headers"])
        assert {"retry-after", "www-authenticate"} <= seen

    def test_another_site_is_not_allowed(self, client: httpx.Client) -> None:
        client.headers["Origin"] = "https://eve.example"
        answer = client.post("/chat", json={"message": MARKER, "user_id": new_user()})
        assert answer.headers.get("Access-Control-Allow-Origin") in (None, SITE)


class NoCORSContract:
    """Tests for servers that allow no site."""

    def test_no_site_is_allowed(self, client: httpx.Client) -> None:
        for method in ("OPTIONS", "GET"):
            answer = client.request(method, "/health", headers={"Origin": SITE})
            assert not [name for name in answer.headers if name.startswith("access-control")]
