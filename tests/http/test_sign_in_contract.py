"""A server that users sign in to keeps the HTTP contract too, asked by them with their tokens."""

import json
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest

from chatledger.conversations import check_id
from chatledger.errors import InvalidArgument
from tests.http.bad_input import BAD_CONVERSATION, BAD_LIST
from tests.http.client import (
    MARKER,
    Fields,
    at,
    connected,
    deleted,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
)
from tests.http.contract import HTTPContract
from tests.http.key_contract import keyed
from tests.http.tokens import bearer, claims, key_server, token
from tests.serving import StartServer


class Users(httpx.Auth):
    """Signs each request as whom it names, or as who started its conversation, or as anybody."""

    requires_request_body = requires_response_body = True

    def __init__(self) -> None:
        self._anybody = someone()
        self._owners: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        fields = self._fields(request)
        place = fields.get("conversation_id")
        user = fields.get("user_id") or self._owners.get(str(place)) or self._anybody
        try:
            check_id(user)  # nobody else can be signed in
        except InvalidArgument:
            user = self._anybody
        request.headers["Authorization"] = signed(str(user))
        response = yield request
        if response.status_code == 200 and request.method == "POST":
            self._owners.setdefault(response.json()["conversation_id"], str(user))

    def _fields(self, request: httpx.Request) -> dict[str, object]:
        path = request.url.raw_path.decode().partition("?")[0]
        fields: dict[str, object] = dict(request.url.params)
        if path.startswith("/conversations/"):
            fields["conversation_id"] = unquote(path.removeprefix("/conversations/"))
        with suppress(ValueError, TypeError, RecursionError):
            fields |= json.loads(request.content)
        return fields


@cache
def signed(user: str) -> str:
    return bearer(token(claims(user)))


@pytest.fixture(scope="module")
def url(start_server: StartServer) -> Iterator[str]:
    with key_server() as issuer:
        yield start_server(CHATLEDGER_OFFLINE_PACE="0", **issuer.settings).url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with connected(url) as client:
        client.auth = Users()
        yield client


def without(rows: list[Any], *names: str) -> list[Any]:
    return [row for row in rows if row.id not in names]


class TestSignedIn(HTTPContract):
    """What is written here anew is what differs: who signs in is always named."""

    @pytest.mark.parametrize(
        "fields", without(BAD_CONVERSATION, "user_id is missing", "user_id is null")
    )
    def test_a_conversation_with_a_bad_field_is_not_made(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        super().test_a_conversation_with_a_bad_field_is_not_made(client, fields)

    @pytest.mark.parametrize("query", without(BAD_LIST, "no user_id"))
    def test_a_list_asked_for_wrongly_is_refused(self, client: httpx.Client, query: str) -> None:
        super().test_a_list_asked_for_wrongly_is_refused(client, query)

    @pytest.mark.parametrize("fields", [{"save_history": False}], ids=str)
    def test_a_one_off_answer_belongs_to_no_conversation(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        super().test_a_one_off_answer_belongs_to_no_conversation(client, fields)

    def test_a_key_for_a_one_off_answer_is_refused(self, client: httpx.Client) -> None:
        response = keyed(client, str(uuid4()), message=MARKER, save_history=False)
        assert refused(response, 422)["code"] == "nothing_kept"

    def test_null_means_left_out(self, client: httpx.Client) -> None:
        names = ["conversation_id", "user_id", "model_id", "system_prompt", "save_history"]
        assert said(client, "Hi", **dict.fromkeys(names))["conversation_id"] is not None

    def test_history_without_a_user_is_kept_for_an_anonymous_owner(
        self, client: httpx.Client
    ) -> None:
        first, second = (said(client, "Hi", save_history=True) for _ in range(2))
        owners = [shown(client, turn["conversation_id"])["user_id"] for turn in (first, second)]
        assert owners[0] == owners[1]
        assert not owners[0].startswith("anonymous")

    @pytest.mark.parametrize("fields", [{}, {"save_history": True}], ids=str)
    def test_an_unknown_conversation_needs_a_user(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        place = str(uuid4())
        assert said(client, "Hi", conversation_id=place, **fields)["conversation_id"] == place

    def test_a_deleted_conversation_is_gone(self, client: httpx.Client) -> None:
        user = someone()
        place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        deleted(client, place)
        refused(client.get(at(place)), 404)
        refused(client.delete(at(place)), 404)
        assert ids(listed(client, user)) == []
