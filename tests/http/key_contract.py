"""HTTP contract: ``Idempotency-Key`` makes it safe to repeat a request."""

from uuid import uuid4

import httpx
import pytest

from tests.http.bad_input import named_params
from tests.http.client import (
    MARKER,
    Fields,
    conversation_ids,
    conversation_path,
    create_conversation,
    delete_conversation,
    expect_error,
    list_conversations,
    new_user,
    read_conversation,
    send_message,
    success_body,
    transcript,
)

BAD_KEYS = named_params({"empty": "", "too long": "x" * 1_001})


def post_with_key(client: httpx.Client, key: str, **fields: object) -> httpx.Response:
    return client.post("/chat", json=fields, headers={"Idempotency-Key": key})


class KeyContract:
    """``POST /chat`` with the header."""

    def test_a_repeated_request_gets_the_same_reply_and_runs_once(
        self, client: httpx.Client
    ) -> None:
        user, key = new_user(), str(uuid4())
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        fields = {
            "message": "What is my name?",
            "user_id": user,
            "conversation_id": conversation_id,
        }
        first = success_body(post_with_key(client, key, **fields))
        send_message(client, "Something else", user_id=user, conversation_id=conversation_id)
        assert success_body(post_with_key(client, key, **fields)) == first
        assert [role for role, _ in transcript(read_conversation(client, conversation_id))] == [
            "user",
            "assistant",
        ] * 3

    def test_a_key_whose_conversation_was_deleted_and_begun_anew_is_refused(
        self, client: httpx.Client
    ) -> None:
        user, headers = new_user(), {"Idempotency-Key": str(uuid4())}
        body = {"user_id": user}
        created = success_body(client.post("/conversations", json=body, headers=headers))
        delete_conversation(client, created["conversation_id"])
        send_message(client, "Hi", user_id=user, **created)
        again = client.post("/conversations", json=body, headers=headers)
        assert expect_error(again, 409)["code"] == "already_exists"

    def test_a_repeated_request_starts_only_one_conversation(self, client: httpx.Client) -> None:
        user, key = new_user(), str(uuid4())
        answers = [
            success_body(post_with_key(client, key, message="Hi, I am Bob", user_id=user))
            for _ in range(3)
        ]
        assert answers[0] == answers[1] == answers[2]
        assert conversation_ids(list_conversations(client, user)) == [answers[0]["conversation_id"]]
        assert len(transcript(read_conversation(client, answers[0]["conversation_id"]))) == 2

    def test_a_stop_takes_a_key(self, client: httpx.Client) -> None:
        user = new_user()
        path = f"{conversation_path(create_conversation(client, user_id=user))}/stop"
        for _ in range(2):
            response = client.post(
                path, json={"user_id": user}, headers={"Idempotency-Key": "key 1"}
            )
            assert success_body(response) == {"stopped": False}
        headers = {"Idempotency-Key": "x" * 1_001}
        expect_error(client.post(path, json={"user_id": user}, headers=headers), 422)
        headers = {"Idempotency-Key": "key 1"}
        expect_error(client.post(path, json={"user_id": new_user()}, headers=headers), 404)

    def test_two_users_with_the_same_key_get_different_conversations(
        self, client: httpx.Client
    ) -> None:
        key = str(uuid4())
        one, other = (
            success_body(post_with_key(client, key, message="Hi", user_id=new_user()))[
                "conversation_id"
            ]
            for _ in range(2)
        )
        assert one != other

    @pytest.mark.parametrize(
        "change",
        named_params(
            {
                "another message": {"message": f"{MARKER}!"},
                "another system prompt": {"system_prompt": "Be brief."},
            }
        ),
    )
    def test_the_same_key_with_another_body_is_rejected(
        self, client: httpx.Client, change: Fields
    ) -> None:
        user, key = new_user(), str(uuid4())
        fields: Fields = {"message": MARKER, "user_id": user}
        conversation_id = success_body(post_with_key(client, key, **fields))["conversation_id"]
        before = read_conversation(client, conversation_id)
        error = expect_error(post_with_key(client, key, **(fields | change)), 422)
        assert error["code"] == "idempotency_key_reused"
        assert read_conversation(client, conversation_id) == before

    def test_a_repeated_request_starts_only_one_anonymous_conversation(
        self, client: httpx.Client
    ) -> None:
        key = str(uuid4())
        fields = {"message": "Hi, I am Bob", "save_history": True}
        assert success_body(post_with_key(client, key, **fields)) == success_body(
            post_with_key(client, key, **fields)
        )

    def test_a_key_for_a_one_off_reply_is_rejected(self, client: httpx.Client) -> None:
        assert (
            expect_error(post_with_key(client, str(uuid4()), message="Hi"), 422)["code"]
            == "nothing_kept"
        )

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_an_invalid_key_is_rejected(self, client: httpx.Client, key: str) -> None:
        user = new_user()
        expect_error(post_with_key(client, key, message=MARKER, user_id=user), 422)
        assert conversation_ids(list_conversations(client, user)) == []


class TwoKeysContract:
    """Tests for servers that receive every header, not only one of each name."""

    def test_two_keys_are_rejected(self, client: httpx.Client) -> None:
        headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        body = {"message": MARKER, "user_id": new_user()}
        expect_error(client.post("/chat", json=body, headers=headers), 400)
