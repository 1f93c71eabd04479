"""What pages of another site may do, as tests that know nothing of a server."""

import httpx
import pytest

from tests.http.client import MARKER, answer_of, refused, someone

SITE = "https://chat.example"
"""That whose pages may call the servers under test: ``CHATLEDGER_ALLOW_ORIGIN``."""


def listed(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",")}


class CORSContract:
    """For servers that were told of ``SITE``."""

    @pytest.fixture(autouse=True)
    def from_its_page(self, client: httpx.Client) -> None:
        client.headers["Origin"] = SITE

    @pytest.mark.parametrize(
        ("path", "method"),
        [("/chat", "POST"), ("/conversations", "GET"), ("/conversations/1", "DELETE")],
    )
    def test_a_browser_that_asks_first_is_told_yes(
        self, client: httpx.Client, path: str, method: str
    ) -> None:
        wanted = "authorization, content-type, idempotency-key"
        asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": wanted}
        answer = client.options(path, headers=asked)
        assert answer.is_success
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        assert method in answer.headers["Access-Control-Allow-Methods"]
        assert listed(wanted) <= listed(answer.headers["Access-Control-Allow-Headers"])

    def test_the_page_reads_what_it_is_answered(self, client: httpx.Client) -> None:
        answer = client.post("/chat", json={"message": "Hi", "user_id": someone()})
        answer_of(answer)
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
    def test_errors_are_for_the_page_too(
        self, client: httpx.Client, request_: tuple[str, str], status: int
    ) -> None:
        answer = client.request(*request_)
        refused(answer, status)
        assert answer.headers["Access-Control-Allow-Origin"] == SITE
        seen = listed(answer.headers["Access-Control-Expose-Headers"])
        assert {"retry-after", "www-authenticate"} <= seen

    def test_no_other_site_is_named(self, client: httpx.Client) -> None:
        client.headers["Origin"] = "https://eve.example"
        answer = client.post("/chat", json={"message": MARKER, "user_id": someone()})
        assert answer.headers.get("Access-Control-Allow-Origin") in (None, SITE)


class NoCORSContract:
    """For servers that were told of no site."""

    def test_no_page_of_another_site_is_let_in(self, client: httpx.Client) -> None:
        for method in ("OPTIONS", "GET"):
            answer = client.request(method, "/health", headers={"Origin": SITE})
            assert not [name for name in answer.headers if name.startswith("access-control")]
