"""What a server answers to ``Idempotency-Key``: a request that is sent again is answered again."""

from uuid import uuid4

import httpx
import pytest

from tests.http.bad_input import table
from tests.http.client import (
    MARKER,
    Fields,
    answer_of,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
    talk,
)

BAD_KEYS = table({"empty": "", "too long": "x" * 1_001})


def keyed(client: httpx.Client, key: str, **fields: object) -> httpx.Response:
    return client.post("/chat", json=fields, headers={"Idempotency-Key": key})


class KeyContract:
    """``POST /chat`` with the header."""

    def test_the_same_request_is_answered_the_same_and_made_once(
        self, client: httpx.Client
    ) -> None:
        user, key = someone(), str(uuid4())
        place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        fields = {"message": "What is my name?", "user_id": user, "conversation_id": place}
        first = answer_of(keyed(client, key, **fields))
        said(client, "Something else", user_id=user, conversation_id=place)
        assert answer_of(keyed(client, key, **fields)) == first
        assert [role for role, _ in talk(shown(client, place))] == ["user", "assistant"] * 3

    def test_the_same_request_starts_one_conversation(self, client: httpx.Client) -> None:
        user, key = someone(), str(uuid4())
        answers = [
            answer_of(keyed(client, key, message="Hi, I am Bob", user_id=user)) for _ in range(3)
        ]
        assert answers[0] == answers[1] == answers[2]
        assert ids(listed(client, user)) == [answers[0]["conversation_id"]]
        assert len(talk(shown(client, answers[0]["conversation_id"]))) == 2

    def test_two_users_with_one_key_do_not_meet(self, client: httpx.Client) -> None:
        key = str(uuid4())
        one, other = (
            answer_of(keyed(client, key, message="Hi", user_id=someone()))["conversation_id"]
            for _ in range(2)
        )
        assert one != other

    @pytest.mark.parametrize(
        "change",
        table(
            {
                "another message": {"message": f"{MARKER}!"},
                "another system prompt": {"system_prompt": "Be brief."},
            }
        ),
    )
    def test_the_same_key_with_another_body_is_refused(
        self, client: httpx.Client, change: Fields
    ) -> None:
        user, key = someone(), str(uuid4())
        fields: Fields = {"message": MARKER, "user_id": user}
        place = answer_of(keyed(client, key, **fields))["conversation_id"]
        before = shown(client, place)
        error = refused(keyed(client, key, **(fields | change)), 422)
        assert error["code"] == "idempotency_key_reused"
        assert shown(client, place) == before

    def test_an_anonymous_conversation_is_started_once_too(self, client: httpx.Client) -> None:
        key = str(uuid4())
        fields = {"message": "Hi, I am Bob", "save_history": True}
        assert answer_of(keyed(client, key, **fields)) == answer_of(keyed(client, key, **fields))

    def test_a_key_for_a_one_off_answer_is_refused(self, client: httpx.Client) -> None:
        assert refused(keyed(client, str(uuid4()), message="Hi"), 422)["code"] == "nothing_kept"

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_what_is_no_key_is_refused(self, client: httpx.Client, key: str) -> None:
        user = someone()
        refused(keyed(client, key, message=MARKER, user_id=user), 422)
        assert ids(listed(client, user)) == []


class TwoKeysContract:
    """For servers that are handed every header, and not one of each name."""

    def test_two_keys_are_refused(self, client: httpx.Client) -> None:
        headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        body = {"message": MARKER, "user_id": someone()}
        refused(client.post("/chat", json=body, headers=headers), 400)
