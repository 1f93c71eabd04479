"""Invalid input is rejected with a sentence; nothing of it is stored, repeated or fatal."""

import json

import httpx
import pytest
from hypothesis import example, given

from tests.http.bad_input import (
    BAD_CHAT,
    BAD_CONTENT_TYPES,
    BAD_CONVERSATION,
    BODIES,
    MAX_BODY_BYTES,
    NOT_JSON,
    NOT_UTF8,
    ODD_BODIES,
    QUERIES,
    TEXT,
    any_input,
    body_with,
)
from tests.http.client import (
    JSON,
    MARKER,
    Fields,
    conversation_ids,
    conversation_path,
    expect_error,
    expect_no_server_error,
    list_conversations,
    new_user,
    success_body,
)

every_post_route = pytest.mark.parametrize("path", ["/chat", "/conversations"])


class InvalidInputContract:
    @every_post_route
    @pytest.mark.parametrize("body", NOT_JSON)
    def test_a_malformed_body_is_rejected(
        self, client: httpx.Client, path: str, body: bytes
    ) -> None:
        expect_error(client.post(path, content=body, headers=JSON), 400, 422)

    @every_post_route
    @pytest.mark.parametrize("body", ODD_BODIES)
    def test_an_odd_body_causes_no_server_error(
        self, client: httpx.Client, path: str, body: bytes
    ) -> None:
        expect_no_server_error(client.post(path, content=body, headers=JSON))

    @pytest.mark.parametrize(
        ("path", "field", "advice"),
        [
            ("/chat", "userid", "did you mean user_id?"),
            ("/chat", "systemPrompt", "did you mean system_prompt?"),
            ("/chat", MARKER, "send only user_id, model_id, "),
            ("/conversations", "titel", "did you mean title?"),
            ("/conversations", "message", "send only user_id, title, metadata."),
        ],
    )
    def test_an_unknown_field_is_refused_with_the_nearest_known_one(
        self, client: httpx.Client, path: str, field: str, advice: str
    ) -> None:
        user = new_user()
        fields = {"user_id": user} | ({"message": MARKER} if path == "/chat" else {})
        error = expect_error(client.post(path, json=fields | {field: "x"}), 422)
        assert error["code"] == "invalid_request"
        assert advice in error["error"]
        assert conversation_ids(list_conversations(client, user)) == []

    @pytest.mark.parametrize(
        ("request_", "advice"),
        [
            (("GET", "/conversations?user_id=u&limt=3"), "did you mean limit?"),
            (("GET", "/conversations?user_id=u&before=3"), "send only user_id, limit, cursor, q."),
            (
                ("GET", f"/conversations/nobody?{MARKER}"),
                "send only user_id, limit, before, after.",
            ),
            (("DELETE", "/conversations/nobody?userid=eve"), "did you mean user_id?"),
            (("POST", "/conversations?user_id=eve"), "leave it out."),
            (("POST", "/chat?user_id=eve"), "leave it out."),
        ],
        ids=str,
    )
    def test_an_unknown_query_parameter_is_refused_with_the_nearest_known_one(
        self, client: httpx.Client, request_: tuple[str, str], advice: str
    ) -> None:
        body = {"user_id": "u"} | ({"message": MARKER} if "/chat" in request_[1] else {})
        error = expect_error(client.request(*request_, json=body), 422)
        assert error["code"] == "invalid_request"
        assert advice in error["error"]

    @pytest.mark.parametrize("path", ["/", "/health"])
    def test_a_public_route_ignores_its_query(self, client: httpx.Client, path: str) -> None:
        success_body(client.get(f"{path}?utm_source=mail"))

    @pytest.mark.parametrize("fields", BAD_CHAT)
    def test_a_chat_with_an_invalid_field_is_rejected(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        user = new_user()
        body = body_with({"message": MARKER, "user_id": user} | fields)
        expect_error(client.post("/chat", content=body, headers=JSON), 400, 413, 422)
        assert conversation_ids(list_conversations(client, user)) == [], (
            "a rejected request stores nothing"
        )

    @pytest.mark.parametrize("fields", BAD_CHAT)
    def test_a_one_off_chat_with_an_invalid_field_is_rejected(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        body = body_with({"message": MARKER} | fields)
        expect_error(client.post("/chat", content=body, headers=JSON), 400, 413, 422)

    def test_an_unknown_model_is_a_bad_request(self, client: httpx.Client) -> None:
        expect_error(client.post("/chat", json={"message": MARKER, "model_id": "telepathy"}), 400)

    @pytest.mark.parametrize("fields", BAD_CONVERSATION)
    def test_a_conversation_with_an_invalid_field_is_not_created(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        user = new_user()
        body = body_with({"user_id": user} | fields)
        expect_error(client.post("/conversations", content=body, headers=JSON), 400, 422)
        assert conversation_ids(list_conversations(client, user)) == []

    @every_post_route
    @pytest.mark.parametrize("headers", BAD_CONTENT_TYPES)
    def test_a_body_without_the_json_content_type_is_rejected(
        self, client: httpx.Client, path: str, headers: dict[str, str]
    ) -> None:
        user = new_user()
        body = body_with({"message": MARKER, "user_id": user})
        expect_error(client.post(path, content=body, headers=headers), 400, 422)
        assert conversation_ids(list_conversations(client, user)) == []

    @pytest.mark.parametrize(
        "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
    )
    def test_the_json_content_type_may_be_in_any_case_and_have_parameters(
        self, client: httpx.Client, kind: str
    ) -> None:
        body = body_with({"message": "Hi"})
        success_body(client.post("/chat", content=body, headers={"Content-Type": kind}))

    @every_post_route
    def test_a_body_may_be_256_kib_long_but_not_a_byte_longer(
        self, client: httpx.Client, path: str
    ) -> None:
        fields = {"user_id": new_user()} | ({"message": "Hi"} if path == "/chat" else {})
        body = json.dumps(fields).encode()
        longest = body + b" " * (MAX_BODY_BYTES - len(body))
        success_body(client.post(path, content=longest, headers=JSON))
        expect_error(client.post(path, content=longest + b" ", headers=JSON), 413)

    @every_post_route
    @given(body=BODIES)
    @any_input
    def test_no_body_causes_a_server_error(
        self, client: httpx.Client, path: str, body: bytes
    ) -> None:
        expect_no_server_error(client.post(path, content=body, headers=JSON))

    @given(query=QUERIES)
    @any_input
    def test_no_query_causes_a_server_error(self, client: httpx.Client, query: str) -> None:
        expect_no_server_error(client.get(f"/conversations?{query}"))

    @given(conversation_id=TEXT.filter(bool), query=QUERIES)
    @example(conversation_id="\udfff", query="")
    @any_input
    def test_no_path_causes_a_server_error(
        self, client: httpx.Client, conversation_id: str, query: str
    ) -> None:
        for method in ("GET", "DELETE"):
            expect_no_server_error(
                client.request(method, f"{conversation_path(conversation_id)}?{query}")
            )


class BytesContract:
    """Tests for servers that receive a body as it was sent."""

    @every_post_route
    @pytest.mark.parametrize("body", NOT_UTF8)
    def test_a_body_that_is_not_utf_8_is_rejected(
        self, client: httpx.Client, path: str, body: bytes
    ) -> None:
        expect_error(client.post(path, content=body, headers=JSON), 400, 422)
