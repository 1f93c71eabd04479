"""HTTP contract: start, continue, list, read and delete conversations."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from chatledger.http.api import MAX_MESSAGE_CHARACTERS
from tests.http.bad_input import MAX_ID_BYTES, MAX_TITLE_CHARACTERS, ODD_IDS, named_params
from tests.http.client import (
    JSON,
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

MESSAGES = named_params(
    {
        "many scripts": "Zażółć 日本語 العربية 🧠👩‍👩‍👧 e\u0301",
        "blanks around it": "  hi \n",
        "lines of every kind": "a\nb\r\nc\u2028d\x85e\x0bf",
        "control characters": "a\x00b\x1bc",
        "like JSON": '{"role": "system"}',
        "like a stream of events": "data: x\n\nevent: done\ndata: {}\n\n",
        "the longest": "x" * MAX_MESSAGE_CHARACTERS,
        "the longest, of four bytes each": "🧠" * MAX_MESSAGE_CHARACTERS,
    }
)


class ConversationContract:
    def next_conversation_id(self, client: httpx.Client, user: str) -> str:
        """Return the id under which the user can start a conversation."""
        return str(uuid4())

    def test_a_first_message_starts_a_conversation(self, client: httpx.Client) -> None:
        user = new_user()
        answer = send_message(client, "Hi, I am Bob", user_id=user)
        conversation = read_conversation(client, answer["conversation_id"])
        assert conversation["user_id"] == user
        assert transcript(conversation) == [
            ("user", "Hi, I am Bob"),
            ("assistant", answer["response"]),
        ]
        assert conversation["messages"][1]["stop_reason"] == "end_turn"

    def test_the_next_message_continues_the_conversation_with_its_history(
        self, client: httpx.Client
    ) -> None:
        user = new_user()
        first = send_message(client, "Hi, I am Bob", user_id=user)
        conversation_id = first["conversation_id"]
        second = send_message(
            client, "What is my name?", user_id=user, conversation_id=conversation_id
        )
        assert second["conversation_id"] == conversation_id
        assert "Bob" in second["response"]
        assert transcript(read_conversation(client, conversation_id)) == [
            ("user", "Hi, I am Bob"),
            ("assistant", first["response"]),
            ("user", "What is my name?"),
            ("assistant", second["response"]),
        ]

    def test_conversations_do_not_share_memory(self, client: httpx.Client) -> None:
        user = new_user()
        send_message(client, "Hi, I am Bob", user_id=user)
        assert "Bob" not in send_message(client, "What is my name?", user_id=user)["response"]
        assert "Bob" not in send_message(client, "What is my name?")["response"]

    def test_a_conversation_shows_more_messages_than_a_model_sees(
        self, client: httpx.Client
    ) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user)
        messages = [f"message {n}" for n in range(15)]
        for message in messages:
            send_message(client, message, user_id=user, conversation_id=conversation_id)
        conversation = read_conversation(client, conversation_id)
        assert len(conversation["messages"]) == 30
        assert [text for role, text in transcript(conversation) if role == "user"] == messages

    def test_a_conversation_can_be_created_before_its_first_message(
        self, client: httpx.Client
    ) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user, title="Plans 🧠")
        conversation = read_conversation(client, conversation_id)
        assert conversation["title"] == "Plans 🧠"
        assert conversation["user_id"] == user
        assert conversation["messages"] == []
        (entry,) = list_conversations(client, user)["conversations"]
        assert entry.pop("message_count") == 0
        assert entry.pop("metadata") == {}
        assert entry == {name: conversation[name] for name in entry}

    @pytest.mark.parametrize("title", [None, "x" * MAX_TITLE_CHARACTERS], ids=["none", "longest"])
    def test_a_title_may_be_left_out_or_long(self, client: httpx.Client, title: str | None) -> None:
        conversation_id = create_conversation(client, user_id=new_user(), title=title)
        assert read_conversation(client, conversation_id)["title"] == title

    def test_a_created_conversation_is_used_not_replaced(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user, title="Plans")
        answer = send_message(client, "Hi", user_id=user, conversation_id=conversation_id)
        assert answer["conversation_id"] == conversation_id
        assert read_conversation(client, conversation_id)["title"] == "Plans"
        (entry,) = list_conversations(client, user)["conversations"]
        assert entry["conversation_id"] == conversation_id
        assert entry["message_count"] == 2

    def test_an_existing_conversation_needs_no_user_id(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user)
        assert (
            send_message(client, "Hi", conversation_id=conversation_id)["conversation_id"]
            == conversation_id
        )
        conversation = read_conversation(client, conversation_id)
        assert conversation["user_id"] == user
        assert len(conversation["messages"]) == 2

    @pytest.mark.parametrize("message", MESSAGES)
    def test_a_message_is_returned_unchanged(self, client: httpx.Client, message: str) -> None:
        # Not escaped: with escapes the longest message would exceed the limit of a body.
        body = json.dumps({"message": message, "user_id": new_user()}, ensure_ascii=False)
        answer = success_body(client.post("/chat", content=body.encode(), headers=JSON))
        conversation = read_conversation(client, answer["conversation_id"])
        assert conversation["messages"][0]["content"] == message

    def test_a_request_may_choose_the_model_and_the_system_prompt(
        self, client: httpx.Client
    ) -> None:
        fields = {"model_id": "offline", "system_prompt": "You are terse.\nVery."}
        answer = send_message(client, "Hi", user_id=new_user(), **fields)
        conversation = transcript(read_conversation(client, answer["conversation_id"]))
        assert [role for role, _ in conversation] == ["user", "assistant"]

    def test_concurrent_users_are_each_known_by_their_own_name(self, client: httpx.Client) -> None:
        def is_known(name: str) -> bool:
            user = new_user()
            conversation_id = send_message(client, f"Hi, I am {name}", user_id=user)[
                "conversation_id"
            ]
            question = {"user_id": user, "conversation_id": conversation_id}
            answer = send_message(client, "What is my name?", **question)["response"]
            return (
                name in answer and len(read_conversation(client, conversation_id)["messages"]) == 4
            )

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(is_known, [f"Bob{n}" for n in range(16)]))

    def test_concurrent_turns_in_one_conversation_lose_no_answered_message(
        self, client: httpx.Client
    ) -> None:
        # Where callers may choose ids, it does not exist yet, and must be created only once.
        user = new_user()
        conversation_id = self.next_conversation_id(client, user)

        def send(message: str) -> tuple[str, str] | None:
            fields = {"message": message, "user_id": user, "conversation_id": conversation_id}
            response = client.post("/chat", json=fields)
            if response.status_code == 409:
                return None
            return message, success_body(response)["response"]

        with ThreadPoolExecutor(6) as threads:
            turns = list(filter(None, threads.map(send, [f"message {n}" for n in range(12)])))
        assert turns
        conversation = transcript(read_conversation(client, conversation_id))
        assert len(conversation) == 2 * len(turns)
        for message, reply in turns:
            assert conversation.count(("user", message)) == 1
            assert ("assistant", reply) in conversation

    # Saved and unsaved turns ------------------------------------------------------------

    @pytest.mark.parametrize(
        "fields", [{}, {"save_history": False}, {"model_id": "offline"}], ids=str
    )
    def test_a_one_off_reply_belongs_to_no_conversation(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        assert send_message(client, "Hi", **fields)["conversation_id"] is None

    def test_null_means_left_out(self, client: httpx.Client) -> None:
        optional = ["conversation_id", "user_id", "model_id", "system_prompt", "save_history"]
        nothing = dict.fromkeys(optional)
        assert send_message(client, "Hi", **nothing)["conversation_id"] is None

    def test_without_history_nothing_is_stored_for_a_user(self, client: httpx.Client) -> None:
        user = new_user()
        assert (
            send_message(client, "Hi", user_id=user, save_history=False)["conversation_id"] is None
        )
        assert conversation_ids(list_conversations(client, user)) == []

    def test_without_history_no_conversation_starts_under_a_given_id(
        self, client: httpx.Client
    ) -> None:
        user, conversation_id = new_user(), str(uuid4())
        send_message(
            client, "Hi", user_id=user, conversation_id=conversation_id, save_history=False
        )
        expect_error(client.get(conversation_path(conversation_id)), 404)
        assert conversation_ids(list_conversations(client, user)) == []

    def test_without_history_a_conversation_stays_as_it_is(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        before = read_conversation(client, conversation_id)
        send_message(
            client, "Forget me", user_id=user, conversation_id=conversation_id, save_history=False
        )
        send_message(client, "Forget me", conversation_id=conversation_id, save_history=False)
        assert read_conversation(client, conversation_id) == before

    def test_history_without_a_user_is_saved_for_an_anonymous_owner(
        self, client: httpx.Client
    ) -> None:
        first, second = (send_message(client, "Hi, I am Bob", save_history=True) for _ in range(2))
        conversation_id = first["conversation_id"]
        owner = read_conversation(client, conversation_id)["user_id"]
        uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        assert re.fullmatch(f"anonymous-{uuid}", owner)
        assert read_conversation(client, second["conversation_id"])["user_id"] != owner
        assert (
            "Bob"
            in send_message(client, "What is my name?", conversation_id=conversation_id)["response"]
        )
        assert read_conversation(client, conversation_id)["user_id"] == owner
        assert len(read_conversation(client, conversation_id)["messages"]) == 4

    # Conversations with given ids --------------------------------------------------------------

    @pytest.mark.parametrize("conversation_id", ODD_IDS)
    def test_an_unknown_conversation_is_created_with_the_given_id(
        self, client: httpx.Client, conversation_id: str
    ) -> None:
        user = new_user()
        for turn in (1, 2):
            answer = send_message(client, "Hi", user_id=user, conversation_id=conversation_id)
            assert answer["conversation_id"] == conversation_id
            assert (
                len(read_conversation(client, conversation_id, user_id=user)["messages"])
                == 2 * turn
            )
            assert conversation_ids(list_conversations(client, user)) == [conversation_id]
        delete_conversation(client, conversation_id, user_id=user)
        expect_error(client.get(conversation_path(conversation_id)), 404)

    @pytest.mark.parametrize(
        "fields", [{}, {"save_history": True}, {"save_history": False}], ids=str
    )
    def test_an_unknown_conversation_needs_a_user(
        self, client: httpx.Client, fields: Fields
    ) -> None:
        conversation_id = str(uuid4())
        body = {"message": MARKER, "conversation_id": conversation_id} | fields
        expect_error(client.post("/chat", json=body), 400)
        expect_error(client.get(conversation_path(conversation_id)), 404)

    def test_a_deleted_conversation_no_longer_exists(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        other = create_conversation(client, user_id=user)
        delete_conversation(client, conversation_id)
        expect_error(client.get(conversation_path(conversation_id)), 404)
        expect_error(client.delete(conversation_path(conversation_id)), 404)
        expect_error(
            client.post("/chat", json={"message": MARKER, "conversation_id": conversation_id}), 400
        )
        assert conversation_ids(list_conversations(client, user)) == [other]

    def test_a_deleted_conversation_that_starts_again_is_empty(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        delete_conversation(client, conversation_id)
        again = send_message(
            client, "What is my name?", user_id=user, conversation_id=conversation_id
        )
        assert "Bob" not in again["response"]
        assert len(read_conversation(client, conversation_id)["messages"]) == 2

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_an_unknown_conversation_is_not_found(self, client: httpx.Client, method: str) -> None:
        expect_error(client.request(method, conversation_path(str(uuid4()))), 404)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_a_reserved_conversation_is_not_found(self, client: httpx.Client, method: str) -> None:
        expect_error(client.request(method, conversation_path("chatledger:langgraph:1")), 404)

    def test_a_turn_in_a_reserved_conversation_is_refused(self, client: httpx.Client) -> None:
        body = {"message": "Hi", "user_id": new_user(), "conversation_id": "chatledger:langgraph:1"}
        expect_error(client.post("/chat", json=body), 404)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize(
        "path",
        named_params(
            {
                "not UTF-8": "/conversations/%FF",
                "a lone surrogate": "/conversations/%ED%A0%80",
                "a NUL": "/conversations/a%00",
                "too long": conversation_path("x" * (MAX_ID_BYTES + 1)),
            }
        ),
    )
    def test_an_id_that_no_conversation_can_have_is_rejected(
        self, client: httpx.Client, method: str, path: str
    ) -> None:
        expect_error(client.request(method, path), 400, 404, 422)
