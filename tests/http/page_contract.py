"""Lists and long conversations over HTTP, page by page."""

from uuid import uuid4

import httpx
import pytest

from tests.http.bad_input import BAD_LIST, BAD_PAGE, KEY_BYTES, table
from tests.http.client import at, created, ids, listed, moment, refused, said, shown, someone, talk

USERS = table(
    {
        "unicode": "Zoë 日本語 🧠",
        "like more parameters": "a&limit=0",
        "encoded already": "a+b%20c",
        "a hash": "a#b?c",
        "a path": "../bob",
        "the longest": "x" * KEY_BYTES,
    }
)


class PageContract:
    def test_a_list_shows_the_newest_activity_first(self, client: httpx.Client) -> None:
        user = someone()
        assert listed(client, user) == {"conversations": [], "cursor": None}
        first, second, third = (created(client, user_id=user, title=t) for t in "abc")
        said(client, "Hi", user_id=user, conversation_id=first)
        assert ids(listed(client, user)) == [first, third, second]
        said(client, "Hi", user_id=user, conversation_id=second)
        said(client, "Hi", user_id=someone())
        assert ids(listed(client, user)) == [second, first, third]

    @pytest.mark.parametrize("limit", [1, 3, 7, 100])
    def test_the_pages_of_a_list_skip_and_double_nothing(
        self, client: httpx.Client, limit: int
    ) -> None:
        user = someone()
        made = [created(client, user_id=user, title=str(n)) for n in range(7)]
        pages = [listed(client, user, limit=limit)]
        while (cursor := pages[-1]["cursor"]) is not None:
            assert len(ids(pages[-1])) == limit
            pages.append(listed(client, user, limit=limit, cursor=cursor))
            assert len(pages) <= 8, "the list never ends"
        assert sorted(place for page in pages for place in ids(page)) == sorted(made)
        entries = [entry for page in pages for entry in page["conversations"]]
        times = [moment(entry["updated_at"]) for entry in entries]
        assert times == sorted(times, reverse=True)

    @pytest.mark.parametrize("user", USERS)
    def test_a_user_id_may_be_any_text(self, client: httpx.Client, user: str) -> None:
        user = f"{uuid4()}{user}"[:KEY_BYTES]
        place = said(client, "Hi", user_id=user)["conversation_id"]
        assert ids(listed(client, user)) == [place]
        assert shown(client, place, user_id=user)["user_id"] == user

    @pytest.mark.parametrize("query", BAD_LIST)
    def test_a_list_asked_for_wrongly_is_refused(self, client: httpx.Client, query: str) -> None:
        refused(client.get(f"/conversations?{query}"), 400, 422)

    @pytest.mark.parametrize("limit", [None, 7])
    def test_a_long_conversation_is_shown_from_its_end_page_by_page(
        self, client: httpx.Client, limit: int | None
    ) -> None:
        user = someone()
        place = created(client, user_id=user)
        messages = [f"message {n}" for n in range(51)]
        for message in messages:
            said(client, message, user_id=user, conversation_id=place)
        size = {"limit": limit} if limit else {}
        pages = [shown(client, place, **size)]
        while "next" in pages[0]:
            assert len(pages[0]["messages"]) == (limit or 100)
            pages.insert(0, shown(client, place, before=pages[0]["next"], **size))
            assert len(pages) <= 20, "the conversation never ends"
        assert all(page["metadata"] == {"message_count": 102} for page in pages)
        told = [turn for page in pages for turn in talk(page)]
        assert len(told) == 102
        assert [text for role, text in told if role == "user"] == messages

    @pytest.mark.parametrize("query", BAD_PAGE)
    def test_a_page_asked_for_wrongly_is_refused(self, client: httpx.Client, query: str) -> None:
        place = created(client, user_id=someone())
        refused(client.get(f"{at(place)}?{query}"), 400, 422)
