"""A server with sign-in fulfils the HTTP contract for requests with tokens."""

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest

from chatledger.errors import InvalidArgument
from chatledger.stores.arguments import checked_id
from tests.http.bad_input import BAD_CONVERSATION, BAD_LIST, ODD_IDS
from tests.http.client import (
    MARKER,
    Fields,
    check_responses,
    conversation_ids,
    conversation_path,
    create_conversation,
    delete_conversation,
    expect_error,
    list_conversations,
    new_user,
    open_client,
    read_conversation,
    send_message,
    success_body,
)
from tests.http.contract import HTTPContract
from tests.http.description import Description
from tests.http.key_contract import post_with_key
from tests.http.tokens import bearer, claims, key_server, token
from tests.serving import StartServer


class Users(httpx.Auth):
    """Sign each request as the user it names, else as its conversation's owner, else as anybody."""

    requires_request_body = requires_response_body = True

    def __init__(self) -> None:
        self._anybody = new_user()
        self._owners: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        fields = self._fields(request)
        conversation_id = fields.get("conversation_id")
        user = fields.get("user_id") or self._owners.get(str(conversation_id)) or self._anybody
        try:
            checked_id(user)  # tokens for other subjects are invalid
        except InvalidArgument:
            user = self._anybody
        request.headers["Authorization"] = authorization_of(str(user))
        response = yield request
        if response.status_code == 200 and request.method == "POST":
            body = response.json()
            if "conversation_id" in body:
                self._owners.setdefault(body["conversation_id"], str(user))

    def _fields(self, request: httpx.Request) -> dict[str, object]:
        path = request.url.raw_path.decode().partition("?")[0]
        fields: dict[str, object] = dict(request.url.params)
        if path.startswith("/conversations/"):
            fields["conversation_id"] = unquote(path.split("/")[2])
        with suppress(ValueError, TypeError, RecursionError):
            fields |= json.loads(request.content)
        return fields


@cache
def authorization_of(user: str) -> str:
    return bearer(token(claims(user)))


@pytest.fixture(scope="module")
def url(start_server: StartServer) -> Iterator[str]:
    with key_server() as issuer:
        yield start_server(CHATLEDGER_OFFLINE_PACE="0", **issuer.settings).url


@pytest.fixture
def client(url: str, description_of: Callable[[str], Description]) -> Iterator[httpx.Client]:
    with open_client(url) as client:
        check_responses(client, description_of(url))
        client.auth = Users()
        yield client


def without(rows: list[Any], *names: str) -> list[Any]:
    return [row for row in rows if row.id not in names]


class TestSignedIn(HTTPContract):
    """The contract; the tests that differ, because a request always has a user, are overridden."""

    @pytest.mark.parametrize(
        "fields", without(BAD_CONVERSATION, "user_id is missing", "user_id is null")
    )
    def test_a_conversation_with_an_invalid_field_is_not_created(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        super().test_a_conversation_with_an_invalid_field_is_not_created(client, fields)

    @pytest.mark.parametrize("query", without(BAD_LIST, "no user_id"))
    def test_an_invalid_list_query_is_rejected(self, client: httpx.Client, query: str) -> None:
        super().test_an_invalid_list_query_is_rejected(client, query)

    @pytest.mark.parametrize("fields", [{"save_history": False}], ids=str)
    def test_a_one_off_reply_belongs_to_no_conversation(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        super().test_a_one_off_reply_belongs_to_no_conversation(client, fields)

    def test_a_key_for_a_one_off_reply_is_rejected(self, client: httpx.Client) -> None:
        response = post_with_key(client, str(uuid4()), message=MARKER, save_history=False)
        assert expect_error(response, 422)["code"] == "nothing_kept"

    def test_null_means_left_out(self, client: httpx.Client) -> None:
        names = ["conversation_id", "user_id", "model_id", "system_prompt", "save_history"]
        assert send_message(client, "Hi", **dict.fromkeys(names))["conversation_id"] is not None

    def test_history_without_a_user_is_saved_for_an_anonymous_owner(
        self, client: httpx.Client
    ) -> None:
        first, second = (send_message(client, "Hi", save_history=True) for _ in range(2))
        owners = [
            read_conversation(client, turn["conversation_id"])["user_id"]
            for turn in (first, second)
        ]
        assert owners[0] == owners[1]
        assert not owners[0].startswith("anonymous")

    def test_a_search_needs_its_user(self, client: httpx.Client) -> None:
        found = success_body(client.get("/search", params={"q": MARKER}))
        assert found["matches"] == []

    # Callers who sign in cannot choose the ids of new conversations.

    def next_conversation_id(self, client: httpx.Client, user: str) -> str:
        return create_conversation(client, user_id=user)

    @pytest.mark.parametrize("conversation_id", ODD_IDS)
    def test_an_unknown_conversation_is_created_with_the_given_id(
        self, client: httpx.Client, conversation_id: str
    ) -> None:
        user = new_user()
        body = {"message": MARKER, "user_id": user, "conversation_id": conversation_id}
        error = expect_error(client.post("/chat", json=body), 404)
        assert error["code"] == "not_found"
        expect_error(client.get(conversation_path(conversation_id)), 404)
        assert conversation_ids(list_conversations(client, user)) == []

    @pytest.mark.parametrize(
        "fields", [{}, {"save_history": True}, {"save_history": False}], ids=str
    )
    def test_an_unknown_conversation_needs_a_user(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        body = {"message": MARKER, "conversation_id": str(uuid4())} | fields
        expect_error(client.post("/chat", json=body), 404)

    def test_without_history_no_conversation_starts_under_a_given_id(
        self, client: httpx.Client
    ) -> None:
        user, conversation_id = new_user(), str(uuid4())
        body = {"message": MARKER, "user_id": user, "conversation_id": conversation_id}
        expect_error(client.post("/chat", json=body | {"save_history": False}), 404)
        assert conversation_ids(list_conversations(client, user)) == []

    def test_a_deleted_conversation_that_starts_again_is_empty(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        delete_conversation(client, conversation_id)
        body = {"message": MARKER, "user_id": user, "conversation_id": conversation_id}
        expect_error(client.post("/chat", json=body), 404)

    def test_a_key_whose_conversation_was_deleted_and_begun_anew_is_refused(
        self, client: httpx.Client
    ) -> None:
        """It cannot be begun anew."""
        user, headers = new_user(), {"Idempotency-Key": str(uuid4())}
        body = {"user_id": user}
        created = success_body(client.post("/conversations", json=body, headers=headers))
        delete_conversation(client, created["conversation_id"])
        expect_error(client.post("/chat", json={"message": MARKER, **body, **created}), 404)

    def test_a_deleted_conversation_no_longer_exists(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        delete_conversation(client, conversation_id)
        expect_error(client.get(conversation_path(conversation_id)), 404)
        expect_error(client.delete(conversation_path(conversation_id)), 404)
        assert conversation_ids(list_conversations(client, user)) == []
