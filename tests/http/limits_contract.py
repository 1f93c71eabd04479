"""HTTP contract: limits of what one caller may use, held by servers that share a store."""

from datetime import UTC, datetime, timedelta

import httpx

from tests.http.client import (
    MARKER,
    Fields,
    conversation_ids,
    create_conversation,
    delete_conversation,
    expect_error,
    list_conversations,
    new_user,
    send_message,
    success_body,
)
from tests.http.test_sign_in_contract import authorization_of

TURNS_A_MINUTE, TOKENS_A_DAY = 4, 2_000
LIMITS = {
    "CHATLEDGER_OFFLINE_PACE": "0",
    "CHATLEDGER_TURNS_A_MINUTE": str(TURNS_A_MINUTE),
    "CHATLEDGER_TOKENS_A_DAY": str(TOKENS_A_DAY),
}
"""The variables of the servers."""
CONVERSATIONS, BYTES_A_DAY = 3, 10_000
STORAGE_LIMITS = {
    "CHATLEDGER_OFFLINE_PACE": "0",
    "CHATLEDGER_CONVERSATIONS": str(CONVERSATIONS),
    "CHATLEDGER_BYTES_A_DAY": str(BYTES_A_DAY),
}
"""The variables of servers that limit what is stored."""
LONG = "word " * 1_200
"""A message that the offline model counts as 1,200 tokens."""
Pair = tuple[httpx.Client, httpx.Client]


def sign_in(*clients: httpx.Client) -> str:
    """Sign the clients in as a new user, and return the user."""
    user = new_user()
    for client in clients:
        client.headers["Authorization"] = authorization_of(user)
    return user


def refused(client: httpx.Client, path: str = "/chat", **fields: object) -> tuple[str, int]:
    """Send a message that is refused; return the code and the seconds to wait."""
    response = client.post(path, json={"message": MARKER} | fields)
    error = expect_error(response, 429)
    return error["code"], int(response.headers["Retry-After"])


class LimitsContract:
    """Tests for servers with the variables ``LIMITS``.

    The fixture ``servers`` has clients of two servers that share a store and have sign-in, and
    ``open_server`` that of a server without sign-in.
    """

    def test_a_users_turns_of_a_minute_are_counted_in_all_servers(self, servers: Pair) -> None:
        first, second = servers
        user = sign_in(*servers)
        for number in range(TURNS_A_MINUTE):
            send_message(servers[number % 2], "Hi")
        stored = conversation_ids(list_conversations(first, user))
        for client in (first, second, first):
            code, wait = refused(client)
            assert code == "too_many_turns"
            assert 1 <= wait <= 60
        assert conversation_ids(list_conversations(second, user)) == stored
        sign_in(first)
        send_message(first, "Hi")

    def test_a_new_conversation_counts_as_a_turn(self, servers: Pair) -> None:
        client, _ = servers
        user = sign_in(client)
        for _ in range(TURNS_A_MINUTE):
            create_conversation(client, user_id=user)
        response = client.post("/conversations", json={"title": MARKER})
        assert expect_error(response, 429)["code"] == "too_many_turns"
        assert refused(client)[0] == "too_many_turns"
        assert len(conversation_ids(list_conversations(client, user))) == TURNS_A_MINUTE

    def test_a_users_tokens_of_a_day_are_counted_in_all_servers(self, servers: Pair) -> None:
        first, second = servers
        sign_in(*servers)
        send_message(first, LONG)
        send_message(first, "Hi")  # it writes the tokens of the turn before
        send_message(second, LONG)
        asked_at = datetime.now(UTC)
        code, wait = refused(second)
        assert code == "daily_tokens_used"
        midnight = datetime.combine(asked_at.date() + timedelta(days=1), datetime.min.time(), UTC)
        assert abs(wait - (midnight - asked_at).total_seconds()) < 60
        sign_in(second)
        send_message(second, "Hi")

    def test_a_request_that_starts_no_turn_is_not_counted(self, servers: Pair) -> None:
        client, _ = servers
        sign_in(client)
        invalid: list[Fields] = [{}, {"message": ""}, {"message": MARKER, "model_id": "telepathy"}]
        for fields in invalid * TURNS_A_MINUTE:
            expect_error(client.post("/chat", json=fields), 400, 422)
        for _ in range(TURNS_A_MINUTE):
            send_message(client, "Hi")
        refused(client)

    def test_without_sign_in_the_limits_are_those_of_the_address(
        self, open_server: httpx.Client
    ) -> None:
        for _ in range(TURNS_A_MINUTE):
            send_message(open_server, "Hi", user_id=new_user())
        assert refused(open_server, user_id=new_user())[0] == "too_many_turns"


def start_refused(client: httpx.Client, status: int, **fields: object) -> str:
    """Send a message that may not start a conversation; return the code of the error."""
    error = expect_error(client.post("/chat", json={"message": MARKER} | fields), status)
    code: str = error["code"]
    return code


class StorageLimitsContract:
    """Tests for servers with the variables ``STORAGE_LIMITS``, with fixtures as above."""

    def test_a_user_with_too_many_conversations_has_to_delete_one(self, servers: Pair) -> None:
        first, second = servers
        user = sign_in(*servers)
        create_conversation(first, user_id=user)
        send_message(second, "Hi")
        last = send_message(first, "Hi")["conversation_id"]
        response = first.post("/conversations", json={"title": MARKER})
        assert expect_error(response, 409)["code"] == "too_many_conversations"
        for client in (first, second):
            assert start_refused(client, 409) == "too_many_conversations"
            send_message(client, "Hi again", conversation_id=last)
            assert send_message(client, "Hi", save_history=False)["conversation_id"] is None
        success_body(first.delete(f"/conversations/{last}"))
        send_message(first, "Hi")
        assert start_refused(first, 409) == "too_many_conversations"
        assert len(conversation_ids(list_conversations(first, user))) == CONVERSATIONS

    def test_a_message_sent_again_with_its_key_is_no_new_conversation(self, servers: Pair) -> None:
        client, _ = servers
        sign_in(client)
        keys = [{"Idempotency-Key": f"key {n}"} for n in range(CONVERSATIONS)]
        body = {"message": "Hi"}
        replies = [success_body(client.post("/chat", json=body, headers=key)) for key in keys]
        again = [success_body(client.post("/chat", json=body, headers=key)) for key in keys]
        assert again == replies
        assert start_refused(client, 409) == "too_many_conversations"

    def test_a_creation_repeated_with_its_key_is_no_new_conversation(self, servers: Pair) -> None:
        client, _ = servers
        sign_in(client)
        original = create_conversation(client)
        file = {
            "format": "chatledger-conversation",
            "version": 1,
            "messages": [{"role": "user", "content": "å" * (BYTES_A_DAY * 3 // 10)}],
        }

        def create(number: int) -> httpx.Response:
            path, body = [
                ("/conversations", {}),
                ("/conversations/import", file),
                ("/conversations/import", file | {"messages": []}),
                (f"/conversations/{original}/fork", {}),
            ][number]
            return client.post(path, json=body, headers={"Idempotency-Key": f"key {number}"})

        for number in range(4):
            created = success_body(create(number))
            for _ in range(CONVERSATIONS):
                assert success_body(create(number)) == created
            if "conversation" in created:  # makes room for the next
                delete_conversation(client, created["conversation"]["conversation_id"])
        assert start_refused(client, 409) == "too_many_conversations"

    def test_what_a_users_turns_store_in_a_day_is_limited(self, servers: Pair) -> None:
        first, second = servers
        sign_in(*servers)
        long = "å" * (BYTES_A_DAY * 3 // 10)
        send_message(first, long, save_history=False)
        kept = send_message(first, long)["conversation_id"]
        send_message(first, "Hi", conversation_id=kept)  # it writes the bytes of the turn before
        send_message(second, long, conversation_id=kept)
        code, wait = refused(second, conversation_id=kept)
        assert code == "daily_bytes_used"
        assert 0 < wait <= 24 * 3_600
        sign_in(second)
        send_message(second, "Hi")

    def test_without_sign_in_an_address_may_start_so_many_conversations_a_day(
        self, open_server: httpx.Client
    ) -> None:
        user = new_user()
        body = {"message": "Hi", "user_id": user, "conversation_id": f"first of {user}"}
        success_body(open_server.post("/chat", json=body))
        send_message(open_server, "Hi", user_id=new_user())
        success_body(open_server.post("/chat", json=body))  # it goes on with the first one
        anonymous = send_message(open_server, "Hi", save_history=True)["conversation_id"]
        other = {"user_id": user, "conversation_id": f"second of {user}"}
        for fields in ({"user_id": new_user()}, {"save_history": True}, other):
            assert start_refused(open_server, 429, **fields) == "daily_conversations_used"
        send_message(open_server, "Hi", conversation_id=anonymous)
