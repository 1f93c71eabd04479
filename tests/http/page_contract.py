"""HTTP contract: lists and long conversations, page by page."""

from uuid import uuid4

import httpx
import pytest

from chatledger.http.api import MAX_MESSAGE_CHARACTERS
from chatledger.http.bodies import MAX_PAGE_BYTES
from tests.http.bad_input import BAD_LIST, BAD_PAGE, MAX_ID_BYTES, named_params
from tests.http.client import (
    conversation_ids,
    conversation_path,
    create_conversation,
    expect_error,
    list_conversations,
    new_user,
    parse_time,
    read_conversation,
    send_message,
    transcript,
)

USERS = named_params(
    {
        "unicode": "Zoë 日本語 🧠",
        "like more parameters": "a&limit=0",
        "encoded already": "a+b%20c",
        "a hash": "a#b?c",
        "a path": "../bob",
        "the longest": "x" * MAX_ID_BYTES,
    }
)


class PageContract:
    def test_a_list_shows_the_newest_activity_first(self, client: httpx.Client) -> None:
        user = new_user()
        assert list_conversations(client, user) == {"conversations": [], "cursor": None}
        first, second, third = (create_conversation(client, user_id=user, title=t) for t in "abc")
        send_message(client, "Hi", user_id=user, conversation_id=first)
        assert conversation_ids(list_conversations(client, user)) == [first, third, second]
        send_message(client, "Hi", user_id=user, conversation_id=second)
        send_message(client, "Hi", user_id=new_user())
        assert conversation_ids(list_conversations(client, user)) == [second, first, third]

    @pytest.mark.parametrize("limit", [1, 3, 7, 100])
    def test_the_pages_of_a_list_skip_and_repeat_nothing(
        self, client: httpx.Client, limit: int
    ) -> None:
        user = new_user()
        made = [create_conversation(client, user_id=user, title=str(n)) for n in range(7)]
        pages = [list_conversations(client, user, limit=limit)]
        while (cursor := pages[-1]["cursor"]) is not None:
            assert len(conversation_ids(pages[-1])) == limit
            pages.append(list_conversations(client, user, limit=limit, cursor=cursor))
            assert len(pages) <= 8, "the list never ends"
        assert sorted(
            conversation_id for page in pages for conversation_id in conversation_ids(page)
        ) == sorted(made)
        entries = [entry for page in pages for entry in page["conversations"]]
        times = [parse_time(entry["updated_at"]) for entry in entries]
        assert times == sorted(times, reverse=True)

    @pytest.mark.parametrize("user", USERS)
    def test_a_user_id_may_be_any_text(self, client: httpx.Client, user: str) -> None:
        user = f"{uuid4()}{user}"[:MAX_ID_BYTES]
        conversation_id = send_message(client, "Hi", user_id=user)["conversation_id"]
        assert conversation_ids(list_conversations(client, user)) == [conversation_id]
        assert read_conversation(client, conversation_id, user_id=user)["user_id"] == user

    @pytest.mark.parametrize("query", BAD_LIST)
    def test_an_invalid_list_query_is_rejected(self, client: httpx.Client, query: str) -> None:
        expect_error(client.get(f"/conversations?{query}"), 400, 422)

    @pytest.mark.parametrize("limit", [None, 7])
    def test_a_long_conversation_is_read_from_its_end_page_by_page(
        self, client: httpx.Client, limit: int | None
    ) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user)
        messages = [f"message {n}" for n in range(51)]
        for message in messages:
            send_message(client, message, user_id=user, conversation_id=conversation_id)
        size = {"limit": limit} if limit else {}
        pages = [read_conversation(client, conversation_id, **size)]
        while "next" in pages[0]:
            assert len(pages[0]["messages"]) == (limit or 100)
            pages.insert(
                0, read_conversation(client, conversation_id, before=pages[0]["next"], **size)
            )
            assert len(pages) <= 20, "the conversation never ends"
        forwards = [read_conversation(client, conversation_id, after=0, **size)]
        while "next" in forwards[-1]:
            following = read_conversation(
                client, conversation_id, after=forwards[-1]["next"], **size
            )
            forwards.append(following)
            assert len(forwards) <= 20, "the conversation never ends"
        assert [len(page["messages"]) for page in forwards[:-1]] == [limit or 100] * (
            len(pages) - 1
        )
        assert [each for page in forwards for each in page["messages"]] == [
            each for page in pages for each in page["messages"]
        ]
        assert all(page["metadata"] == {"message_count": 102} for page in pages)
        told = [turn for page in pages for turn in transcript(page)]
        assert len(told) == 102
        assert [text for role, text in told if role == "user"] == messages

    def test_a_page_of_long_messages_ends_at_a_mebibyte(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user)
        messages = [f"{n} ".ljust(MAX_MESSAGE_CHARACTERS, "x") for n in range(40)]
        for message in messages:
            send_message(client, message, user_id=user, conversation_id=conversation_id)
        pages = [read_conversation(client, conversation_id)]
        while "next" in pages[0]:
            pages.insert(0, read_conversation(client, conversation_id, before=pages[0]["next"]))
            assert len(pages) <= 5, "the conversation never ends"
        assert len(pages) == 2
        first = read_conversation(client, conversation_id, after=0)
        assert 1 < len(first["messages"]) < 80
        rest = read_conversation(client, conversation_id, after=first["next"])
        assert len(first["messages"] + rest["messages"]) == 80
        assert all(len(str(page)) < MAX_PAGE_BYTES for page in pages)
        told = [turn for page in pages for turn in transcript(page)]
        assert [text for role, text in told if role == "user"] == messages

    @pytest.mark.parametrize("query", BAD_PAGE)
    def test_an_invalid_page_query_is_rejected(self, client: httpx.Client, query: str) -> None:
        conversation_id = create_conversation(client, user_id=new_user())
        expect_error(client.get(f"{conversation_path(conversation_id)}?{query}"), 400, 422)
