"""Bad input: refused in words for people, and nothing of it is stored, repeated or fatal."""

import json

import httpx
import pytest
from hypothesis import example, given

from tests.http.bad_input import (
    BAD_CHAT,
    BAD_CONTENT_TYPES,
    BAD_CONVERSATION,
    BODIES,
    BODY_BYTES,
    NOT_JSON,
    NOT_UTF8,
    QUERIES,
    STRANGE,
    TEXT,
    any_input,
    body_with,
)
from tests.http.client import (
    JSON,
    MARKER,
    Fields,
    answer_of,
    at,
    ids,
    listed,
    refused,
    someone,
    survived,
)

every_post_route = pytest.mark.parametrize("path", ["/chat", "/conversations"])


class RefusalContract:
    @every_post_route
    @pytest.mark.parametrize("body", NOT_JSON)
    def test_a_malformed_body_is_refused(
        self, client: httpx.Client, path: str, body: bytes
    ) -> None:
        refused(client.post(path, content=body, headers=JSON), 400, 422)

    @every_post_route
    @pytest.mark.parametrize("body", STRANGE)
    def test_a_strange_body_breaks_nothing(
        self, client: httpx.Client, path: str, body: bytes
    ) -> None:
        survived(client.post(path, content=body, headers=JSON))

    @pytest.mark.parametrize("fields", BAD_CHAT)
    def test_a_chat_with_a_bad_field_is_refused(self, client: httpx.Client, fields: Fields) -> None:
        user = someone()
        body = body_with({"message": MARKER, "user_id": user} | fields)
        refused(client.post("/chat", content=body, headers=JSON), 400, 413, 422)
        assert ids(listed(client, user)) == [], "what is refused leaves nothing behind"

    @pytest.mark.parametrize("fields", BAD_CHAT)
    def test_a_one_off_chat_with_a_bad_field_is_refused(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        body = body_with({"message": MARKER} | fields)
        refused(client.post("/chat", content=body, headers=JSON), 400, 413, 422)

    def test_a_model_that_is_not_there_is_a_bad_request(self, client: httpx.Client) -> None:
        refused(client.post("/chat", json={"message": MARKER, "model_id": "telepathy"}), 400)

    @pytest.mark.parametrize("fields", BAD_CONVERSATION)
    def test_a_conversation_with_a_bad_field_is_not_made(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        user = someone()
        body = body_with({"user_id": user} | fields)
        refused(client.post("/conversations", content=body, headers=JSON), 400, 422)
        assert ids(listed(client, user)) == []

    @every_post_route
    @pytest.mark.parametrize("headers", BAD_CONTENT_TYPES)
    def test_what_is_not_called_json_is_refused(
        self, client: httpx.Client, path: str, headers: dict[str, str]
    ) -> None:
        user = someone()
        body = body_with({"message": MARKER, "user_id": user})
        refused(client.post(path, content=body, headers=headers), 400, 422)
        assert ids(listed(client, user)) == []

    @pytest.mark.parametrize(
        "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
    )
    def test_json_may_be_called_so_in_any_case(self, client: httpx.Client, kind: str) -> None:
        body = body_with({"message": "Hi"})
        answer_of(client.post("/chat", content=body, headers={"Content-Type": kind}))

    @every_post_route
    def test_a_body_may_have_256_kib_and_no_byte_more(
        self, client: httpx.Client, path: str
    ) -> None:
        body = json.dumps({"message": "Hi", "user_id": someone()}).encode()
        longest = body + b" " * (BODY_BYTES - len(body))
        answer_of(client.post(path, content=longest, headers=JSON))
        refused(client.post(path, content=longest + b" ", headers=JSON), 413)

    @every_post_route
    @given(body=BODIES)
    @any_input
    def test_no_body_breaks_it(self, client: httpx.Client, path: str, body: bytes) -> None:
        survived(client.post(path, content=body, headers=JSON))

    @given(query=QUERIES)
    @any_input
    def test_no_query_breaks_it(self, client: httpx.Client, query: str) -> None:
        survived(client.get(f"/conversations?{query}"))

    @given(place=TEXT.filter(bool), query=QUERIES)
    @example(place="\udfff", query="")
    @any_input
    def test_no_path_breaks_it(self, client: httpx.Client, place: str, query: str) -> None:
        for method in ("GET", "DELETE"):
            survived(client.request(method, f"{at(place)}?{query}"))


class BytesContract:
    """For servers that are handed a body as it was sent."""

    @every_post_route
    @pytest.mark.parametrize("body", NOT_UTF8)
    def test_a_body_that_is_not_utf_8_is_refused(
        self, client: httpx.Client, path: str, body: bytes
    ) -> None:
        refused(client.post(path, content=body, headers=JSON), 400, 422)
