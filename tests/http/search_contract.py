"""HTTP contract: search messages and titles."""

import httpx
import pytest

from chatledger.conversations import MAX_QUERY_CHARACTERS
from tests.http.bad_input import named_params
from tests.http.client import (
    MARKER,
    Fields,
    conversation_ids,
    create_conversation,
    delete_conversation,
    expect_error,
    list_conversations,
    new_user,
    read_conversation,
    search,
    send_message,
)

BAD_WORDS = named_params(
    {
        "missing": {},
        "empty": {"q": ""},
        "blank": {"q": "  "},
        "signs only": {"q": "?!"},
        "an emoji": {"q": "🧠"},
        "too long": {"q": "x" * (MAX_QUERY_CHARACTERS + 1)},
        "twice": {"q": [MARKER, MARKER]},
    }
)


def units(text: str, span: list[int]) -> str:
    """Return the part of a text whose start and end count as in JavaScript."""
    start, end = (2 * place for place in span)
    return text.encode("utf-16-le")[start:end].decode("utf-16-le")


class SearchContract:
    def test_messages_and_titles_are_found_with_the_places_of_the_words(
        self, client: httpx.Client
    ) -> None:
        user = new_user()
        answer = send_message(client, "🧠 Fly me to Málaga 🧠, to malaga", user_id=user)
        found = search(client, user, "MALAGA")
        title, *messages = found["matches"]
        assert (title["seq"], title["role"]) == (None, None)
        assert {match["conversation_id"] for match in found["matches"]} == {
            answer["conversation_id"]
        }
        question = messages[-1]
        stored = read_conversation(client, answer["conversation_id"])["messages"][0]
        assert (question["seq"], question["role"]) == (stored["seq"], "user")
        assert question["title"] == title["title"]
        words = [units(question["excerpt"], span) for span in question["spans"]]
        assert words == ["Málaga", "malaga"]
        assert (found["cursor"], found["complete"]) == (None, True)

    def test_a_search_continues_with_its_cursor(self, client: httpx.Client) -> None:
        user = new_user()
        ids = [create_conversation(client, user_id=user, title=f"Plan {n}") for n in range(3)]
        found: list[str] = []
        cursor: Fields = {}
        while True:
            page = search(client, user, "plan", limit=2, **cursor)
            found += [match["conversation_id"] for match in page["matches"]]
            if page["cursor"] is None:
                break
            cursor = {"cursor": page["cursor"]}
        assert sorted(found) == sorted(ids)

    def test_a_search_shows_nothing_of_other_users_or_of_what_was_deleted(
        self, client: httpx.Client
    ) -> None:
        alice, eve = new_user(), new_user()
        hers = send_message(client, MARKER, user_id=alice)["conversation_id"]
        assert search(client, eve, MARKER)["matches"] == []
        found = search(client, alice, MARKER, limit=1)
        other = search(client, eve, MARKER, cursor=found["cursor"])
        assert other["matches"] == []
        delete_conversation(client, hers)
        assert search(client, alice, MARKER)["matches"] == []

    @pytest.mark.parametrize("params", BAD_WORDS)
    def test_a_search_without_words_is_refused(self, client: httpx.Client, params: Fields) -> None:
        response = client.get("/search", params={"user_id": new_user()} | params)
        error = expect_error(response, 400, 422)
        assert error["code"] == "invalid_request"
        assert "q " in error["error"]

    def test_a_search_needs_its_user(self, client: httpx.Client) -> None:
        expect_error(client.get("/search", params={"q": MARKER}), 400)

    def test_a_search_continues_only_with_the_cursor_of_a_search(
        self, client: httpx.Client
    ) -> None:
        user = new_user()
        for _ in range(2):
            create_conversation(client, user_id=user, title="Plans")
        cursor = list_conversations(client, user, limit=1)["cursor"]
        params = {"user_id": user, "q": MARKER, "cursor": cursor}
        expect_error(client.get("/search", params=params), 422)

    def test_a_list_can_be_filtered_by_words_in_titles(self, client: httpx.Client) -> None:
        user = new_user()
        titles = ["Trip to Málaga", "Other", "A trip, too", None, "Tripod"]
        ids = {title: create_conversation(client, user_id=user, title=title) for title in titles}
        listed = list_conversations(client, user, q="trip")
        assert set(conversation_ids(listed)) == {
            ids["Trip to Málaga"],
            ids["A trip, too"],
            ids["Tripod"],
        }
        assert listed["cursor"] is None
        listed = list_conversations(client, user, q="trip malag")
        assert conversation_ids(listed) == [ids["Trip to Málaga"]]

    def test_a_filtered_list_has_pages(self, client: httpx.Client) -> None:
        user = new_user()
        for n in range(7):
            create_conversation(client, user_id=user, title="Plan" if n % 2 else "Other")
        first = list_conversations(client, user, q="plan", limit=2)
        assert len(first["conversations"]) == 2
        rest = list_conversations(client, user, q="plan", limit=2, cursor=first["cursor"])
        assert len(rest["conversations"]) == 1
        assert rest["cursor"] is None
        assert not set(conversation_ids(first)) & set(conversation_ids(rest))

    def test_a_list_is_not_filtered_by_words_that_are_none(self, client: httpx.Client) -> None:
        params = {"user_id": new_user(), "q": "?!"}
        expect_error(client.get("/conversations", params=params), 422)
