"""HTTP contract: to a request that names a user, other users' conversations do not exist."""

from uuid import uuid4

import httpx
import pytest

from tests.http.bad_input import MAX_ID_BYTES, named_params
from tests.http.client import (
    CONVERSATION_ROUTES,
    ID,
    MARKER,
    Fields,
    conversation_ids,
    conversation_path,
    create_conversation,
    delete_conversation,
    expect_error,
    expect_no_server_error,
    list_conversations,
    new_user,
    read_conversation,
    request_route,
    send_message,
)

TURN = {"message": MARKER, "conversation_id": ID}
ATTEMPTS = named_params(
    {
        "chat": ("POST /chat", TURN),
        "chat without history": ("POST /chat", TURN | {"save_history": False}),
        "chat with history": ("POST /chat", TURN | {"save_history": True}),
        **{
            route: (route, CONVERSATION_ROUTES[route])
            for route in CONVERSATION_ROUTES
            if ID in route
        },
    }
)
INVALID_USERS = named_params(
    {
        # Treated as "no user_id", each would give access to the conversation.
        "empty": "user_id=",
        "without a value": "user_id",
        "two": "user_id={owner}&user_id=eve",
        "two, the other way about": "user_id=eve&user_id={owner}",
        "too long": "user_id=" + "x" * (MAX_ID_BYTES + 1),
    }
)


class OwnerContract:
    @pytest.fixture(params=["somebody's", "somebody's, empty", "nobody's"])
    def not_eves(self, client: httpx.Client, request: pytest.FixtureRequest) -> Fields:
        """A conversation that is not Eve's, as it is before her attempts."""
        match request.param:
            case "somebody's":
                conversation_id = send_message(client, "Hi", user_id=new_user())["conversation_id"]
            case "somebody's, empty":
                conversation_id = create_conversation(client, user_id=new_user())
            case _:
                conversation_id = send_message(client, "Hi", save_history=True)["conversation_id"]
        return read_conversation(client, conversation_id)

    @pytest.mark.parametrize("attempt", ATTEMPTS)
    def test_another_users_conversation_does_not_exist(
        self, client: httpx.Client, not_eves: Fields, attempt: tuple[str, Fields | None]
    ) -> None:
        route, body = attempt
        eve, conversation_id = new_user(), not_eves["conversation_id"]

        def attempt_error() -> Fields:
            response = request_route(client, route, body, conversation_id, user_id=eve)
            return expect_error(response, 404)

        answer = attempt_error()
        assert read_conversation(client, conversation_id) == not_eves
        assert conversation_ids(list_conversations(client, eve)) == []
        if body is None:
            # Eve cannot even tell that it exists: the error is the same after it is deleted.
            delete_conversation(client, conversation_id)
            assert attempt_error() == answer

    def test_the_owner_can_read_and_delete_a_conversation(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi", user_id=user)["conversation_id"]
        assert read_conversation(client, conversation_id, user_id=user)["user_id"] == user
        delete_conversation(client, conversation_id, user_id=user)
        expect_error(client.get(conversation_path(conversation_id), params={"user_id": user}), 404)

    @pytest.mark.parametrize("route", [route for route in CONVERSATION_ROUTES if ID in route])
    @pytest.mark.parametrize("query", INVALID_USERS)
    def test_an_invalid_user_id_gives_no_access(
        self, client: httpx.Client, route: str, query: str
    ) -> None:
        owner = str(uuid4())
        conversation_id = send_message(client, "Hi", user_id=owner)["conversation_id"]
        route = f"{route}?{query.format(owner=owner)}"
        expect_error(request_route(client, route, None, conversation_id), 400, 404, 422)
        assert len(read_conversation(client, conversation_id)["messages"]) == 2

    def test_another_users_cursor_shows_none_of_their_conversations(
        self, client: httpx.Client
    ) -> None:
        alice, eve = new_user(), new_user()
        hers = [create_conversation(client, user_id=alice) for _ in range(4)]
        create_conversation(client, user_id=eve)
        cursor = list_conversations(client, alice, limit=1)["cursor"]
        response = client.get("/conversations", params={"user_id": eve, "cursor": cursor})
        expect_no_server_error(response)
        assert not any(conversation_id in response.text for conversation_id in hers)
