"""Conversations over HTTP: started, gone on with, listed, shown, deleted."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from chatledger.http.api import MESSAGE_CHARACTERS
from tests.http.bad_input import KEY_BYTES, ODD_IDS, TITLE_CHARACTERS, table
from tests.http.client import (
    JSON,
    MARKER,
    Fields,
    answer_of,
    at,
    created,
    deleted,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
    talk,
)

MESSAGES = table(
    {
        "many scripts": "Zażółć 日本語 العربية 🧠👩‍👩‍👧 e\u0301",
        "blanks around it": "  hi \n",
        "lines of every kind": "a\nb\r\nc\u2028d\x85e\x0bf",
        "control characters": "a\x00b\x1bc",
        "like JSON": '{"role": "system"}',
        "like a stream of events": "data: x\n\nevent: done\ndata: {}\n\n",
        "the longest": "x" * MESSAGE_CHARACTERS,
        "the longest, of four bytes each": "🧠" * MESSAGE_CHARACTERS,
    }
)


class ConversationContract:
    def test_a_first_message_starts_a_conversation(self, client: httpx.Client) -> None:
        user = someone()
        answer = said(client, "Hi, I am Bob", user_id=user)
        conversation = shown(client, answer["conversation_id"])
        assert conversation["user_id"] == user
        assert talk(conversation) == [("user", "Hi, I am Bob"), ("assistant", answer["response"])]
        assert not any("stop_reason" in message for message in conversation["messages"])

    def test_the_next_message_goes_on_and_what_came_before_is_known(
        self, client: httpx.Client
    ) -> None:
        user = someone()
        first = said(client, "Hi, I am Bob", user_id=user)
        place = first["conversation_id"]
        second = said(client, "What is my name?", user_id=user, conversation_id=place)
        assert second["conversation_id"] == place
        assert "Bob" in second["response"]
        assert talk(shown(client, place)) == [
            ("user", "Hi, I am Bob"),
            ("assistant", first["response"]),
            ("user", "What is my name?"),
            ("assistant", second["response"]),
        ]

    def test_one_conversation_knows_nothing_of_another(self, client: httpx.Client) -> None:
        user = someone()
        said(client, "Hi, I am Bob", user_id=user)
        assert "Bob" not in said(client, "What is my name?", user_id=user)["response"]
        assert "Bob" not in said(client, "What is my name?")["response"]

    def test_a_conversation_shows_more_messages_than_a_model_sees(
        self, client: httpx.Client
    ) -> None:
        user = someone()
        place = created(client, user_id=user)
        messages = [f"message {n}" for n in range(15)]
        for message in messages:
            said(client, message, user_id=user, conversation_id=place)
        conversation = shown(client, place)
        assert len(conversation["messages"]) == 30
        assert [text for role, text in talk(conversation) if role == "user"] == messages

    def test_a_conversation_can_be_made_before_anything_is_said(self, client: httpx.Client) -> None:
        user = someone()
        place = created(client, user_id=user, title="Plans 🧠")
        conversation = shown(client, place)
        assert conversation["title"] == "Plans 🧠"
        assert conversation["user_id"] == user
        assert conversation["messages"] == []
        (entry,) = listed(client, user)["conversations"]
        assert entry.pop("message_count") == 0
        assert entry == {name: conversation[name] for name in entry}

    @pytest.mark.parametrize("title", [None, "x" * TITLE_CHARACTERS], ids=["none", "longest"])
    def test_a_title_may_be_left_out_or_long(self, client: httpx.Client, title: str | None) -> None:
        place = created(client, user_id=someone(), title=title)
        assert shown(client, place)["title"] == title

    def test_a_created_conversation_is_used_not_replaced(self, client: httpx.Client) -> None:
        user = someone()
        place = created(client, user_id=user, title="Plans")
        answer = said(client, "Hi", user_id=user, conversation_id=place)
        assert answer["conversation_id"] == place
        assert shown(client, place)["title"] == "Plans"
        (entry,) = listed(client, user)["conversations"]
        assert entry["conversation_id"] == place
        assert entry["message_count"] == 2

    def test_a_conversation_that_is_known_needs_no_user_id(self, client: httpx.Client) -> None:
        user = someone()
        place = created(client, user_id=user)
        assert said(client, "Hi", conversation_id=place)["conversation_id"] == place
        conversation = shown(client, place)
        assert conversation["user_id"] == user
        assert len(conversation["messages"]) == 2

    @pytest.mark.parametrize("message", MESSAGES)
    def test_a_message_comes_back_as_it_went_in(self, client: httpx.Client, message: str) -> None:
        # Not escaped: so the longest would be over the limit of a body.
        body = json.dumps({"message": message, "user_id": someone()}, ensure_ascii=False)
        answer = answer_of(client.post("/chat", content=body.encode(), headers=JSON))
        conversation = shown(client, answer["conversation_id"])
        assert conversation["messages"][0]["content"] == message

    def test_the_model_and_its_system_prompt_may_be_named(self, client: httpx.Client) -> None:
        fields = {"model_id": "offline", "system_prompt": "You are terse.\nVery."}
        answer = said(client, "Hi", user_id=someone(), **fields)
        conversation = talk(shown(client, answer["conversation_id"]))
        assert [role for role, _ in conversation] == ["user", "assistant"]

    def test_many_may_talk_at_once_and_each_is_known_by_their_own_name(
        self, client: httpx.Client
    ) -> None:
        def known(name: str) -> bool:
            user = someone()
            place = said(client, f"Hi, I am {name}", user_id=user)["conversation_id"]
            question = {"user_id": user, "conversation_id": place}
            answer = said(client, "What is my name?", **question)["response"]
            return name in answer and len(shown(client, place)["messages"]) == 4

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(known, [f"Bob{n}" for n in range(16)]))

    def test_turns_at_once_in_one_conversation_lose_nothing_that_was_answered(
        self, client: httpx.Client
    ) -> None:
        # Nobody has started it yet: that too happens once.
        user, place = someone(), str(uuid4())

        def spoken(message: str) -> tuple[str, str] | None:
            fields = {"message": message, "user_id": user, "conversation_id": place}
            response = client.post("/chat", json=fields)
            if response.status_code == 409:
                return None
            return message, answer_of(response)["response"]

        with ThreadPoolExecutor(6) as threads:
            turns = list(filter(None, threads.map(spoken, [f"message {n}" for n in range(12)])))
        assert turns
        conversation = talk(shown(client, place))
        assert len(conversation) == 2 * len(turns)
        for message, reply in turns:
            assert conversation.count(("user", message)) == 1
            assert ("assistant", reply) in conversation

    # What is stored, and what is not ------------------------------------------------------------

    @pytest.mark.parametrize(
        "fields", [{}, {"save_history": False}, {"model_id": "offline"}], ids=str
    )
    def test_a_one_off_answer_belongs_to_no_conversation(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        assert said(client, "Hi", **fields)["conversation_id"] is None

    def test_null_means_left_out(self, client: httpx.Client) -> None:
        optional = ["conversation_id", "user_id", "model_id", "system_prompt", "save_history"]
        nothing = dict.fromkeys(optional)
        assert said(client, "Hi", **nothing)["conversation_id"] is None

    def test_without_history_nothing_is_stored_for_a_user(self, client: httpx.Client) -> None:
        user = someone()
        assert said(client, "Hi", user_id=user, save_history=False)["conversation_id"] is None
        assert ids(listed(client, user)) == []

    def test_without_history_no_conversation_starts_under_a_given_id(
        self, client: httpx.Client
    ) -> None:
        user, place = someone(), str(uuid4())
        said(client, "Hi", user_id=user, conversation_id=place, save_history=False)
        refused(client.get(at(place)), 404)
        assert ids(listed(client, user)) == []

    def test_without_history_a_conversation_stays_as_it_is(self, client: httpx.Client) -> None:
        user = someone()
        place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        before = shown(client, place)
        said(client, "Forget me", user_id=user, conversation_id=place, save_history=False)
        said(client, "Forget me", conversation_id=place, save_history=False)
        assert shown(client, place) == before

    def test_history_without_a_user_is_kept_for_an_anonymous_owner(
        self, client: httpx.Client
    ) -> None:
        first, second = (said(client, "Hi, I am Bob", save_history=True) for _ in range(2))
        place = first["conversation_id"]
        owner = shown(client, place)["user_id"]
        uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        assert re.fullmatch(f"anonymous-{uuid}", owner)
        assert shown(client, second["conversation_id"])["user_id"] != owner
        assert "Bob" in said(client, "What is my name?", conversation_id=place)["response"]
        assert shown(client, place)["user_id"] == owner
        assert len(shown(client, place)["messages"]) == 4

    # Conversations under given ids --------------------------------------------------------------

    @pytest.mark.parametrize("place", ODD_IDS)
    def test_an_unknown_conversation_starts_under_the_id_it_was_given(
        self, client: httpx.Client, place: str
    ) -> None:
        user = someone()
        for turn in (1, 2):
            answer = said(client, "Hi", user_id=user, conversation_id=place)
            assert answer["conversation_id"] == place
            assert len(shown(client, place, user_id=user)["messages"]) == 2 * turn
            assert ids(listed(client, user)) == [place]
        deleted(client, place, user_id=user)
        refused(client.get(at(place)), 404)

    @pytest.mark.parametrize(
        "fields", [{}, {"save_history": True}, {"save_history": False}], ids=str
    )
    def test_an_unknown_conversation_needs_a_user(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        place = str(uuid4())
        body = {"message": MARKER, "conversation_id": place} | fields
        refused(client.post("/chat", json=body), 400)
        refused(client.get(at(place)), 404)

    def test_a_deleted_conversation_is_gone(self, client: httpx.Client) -> None:
        user = someone()
        place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        other = created(client, user_id=user)
        deleted(client, place)
        refused(client.get(at(place)), 404)
        refused(client.delete(at(place)), 404)
        refused(client.post("/chat", json={"message": MARKER, "conversation_id": place}), 400)
        assert ids(listed(client, user)) == [other]

    def test_a_deleted_conversation_that_starts_again_knows_nothing(
        self, client: httpx.Client
    ) -> None:
        user = someone()
        place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        deleted(client, place)
        again = said(client, "What is my name?", user_id=user, conversation_id=place)
        assert "Bob" not in again["response"]
        assert len(shown(client, place)["messages"]) == 2

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_an_unknown_conversation_is_not_found(self, client: httpx.Client, method: str) -> None:
        refused(client.request(method, at(str(uuid4()))), 404)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize(
        "path",
        table(
            {
                "not UTF-8": "/conversations/%FF",
                "a lone surrogate": "/conversations/%ED%A0%80",
                "a NUL": "/conversations/a%00",
                "too long": at("x" * (KEY_BYTES + 1)),
            }
        ),
    )
    def test_an_id_that_no_conversation_has_is_refused(
        self, client: httpx.Client, method: str, path: str
    ) -> None:
        refused(client.request(method, path), 400, 404, 422)
