"""Who names a user can touch nobody else's conversation: to them it does not exist."""

from uuid import uuid4

import httpx
import pytest

from tests.http.bad_input import KEY_BYTES, table
from tests.http.client import (
    MARKER,
    Fields,
    at,
    created,
    deleted,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
    survived,
)

ATTEMPTS = table(
    {
        "chat": ("POST", {"message": MARKER}),
        "chat without history": ("POST", {"message": MARKER, "save_history": False}),
        "chat with history": ("POST", {"message": MARKER, "save_history": True}),
        "get": ("GET", None),
        "delete": ("DELETE", None),
    }
)
NO_ONE = table(
    {
        # Taken for "none given", each would open the conversation.
        "empty": "user_id=",
        "without a value": "user_id",
        "two": "user_id={owner}&user_id=eve",
        "two, the other way about": "user_id=eve&user_id={owner}",
        "too long": "user_id=" + "x" * (KEY_BYTES + 1),
    }
)


class OwnerContract:
    @pytest.fixture(params=["somebody's", "somebody's, empty", "nobody's"])
    def not_hers(self, client: httpx.Client, request: pytest.FixtureRequest) -> Fields:
        """A conversation that is not Eve's, as it is shown before she tries."""
        match request.param:
            case "somebody's":
                place = said(client, "Hi", user_id=someone())["conversation_id"]
            case "somebody's, empty":
                place = created(client, user_id=someone())
            case _:
                place = said(client, "Hi", save_history=True)["conversation_id"]
        return shown(client, place)

    @pytest.mark.parametrize("attempt", ATTEMPTS)
    def test_somebody_elses_conversation_does_not_exist(
        self, client: httpx.Client, not_hers: Fields, attempt: tuple[str, Fields | None]
    ) -> None:
        method, fields = attempt
        eve, place = someone(), not_hers["conversation_id"]

        def tried() -> Fields:
            if fields is None:
                return refused(client.request(method, at(place), params={"user_id": eve}), 404)
            body = fields | {"user_id": eve, "conversation_id": place}
            return refused(client.request(method, "/chat", json=body), 404)

        answer = tried()
        assert shown(client, place) == not_hers
        assert ids(listed(client, eve)) == []
        if fields is None:
            # Not even that it exists can be told: she hears the same when it no longer does.
            deleted(client, place)
            assert tried() == answer

    def test_its_owner_may_read_and_delete_a_conversation(self, client: httpx.Client) -> None:
        user = someone()
        place = said(client, "Hi", user_id=user)["conversation_id"]
        assert shown(client, place, user_id=user)["user_id"] == user
        deleted(client, place, user_id=user)
        refused(client.get(at(place), params={"user_id": user}), 404)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize("query", NO_ONE)
    def test_a_user_id_that_names_no_one_opens_nothing(
        self, client: httpx.Client, method: str, query: str
    ) -> None:
        owner = str(uuid4())
        place = said(client, "Hi", user_id=owner)["conversation_id"]
        url = f"{at(place)}?{query.format(owner=owner)}"
        refused(client.request(method, url), 400, 404, 422)
        assert len(shown(client, place)["messages"]) == 2

    def test_a_cursor_shows_nobody_elses_conversations(self, client: httpx.Client) -> None:
        alice, eve = someone(), someone()
        hers = [created(client, user_id=alice) for _ in range(4)]
        created(client, user_id=eve)
        cursor = listed(client, alice, limit=1)["cursor"]
        response = client.get("/conversations", params={"user_id": eve, "cursor": cursor})
        survived(response)
        assert not any(place in response.text for place in hers)
