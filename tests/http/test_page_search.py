"""The page in Chromium: the search box, its matches, and the messages that they open."""

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.http.client import create_conversation, new_user, open_client
from tests.http.test_page import Visitor, create_conversation_with
from tests.serving import Server, StartServer


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


class Searcher(Visitor):
    """A user of the page who searches."""

    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, url)
        self.search_box = page.get_by_role("searchbox", name="Search your conversations")
        self.matches = page.get_by_role("list", name="Matches").get_by_role("listitem")
        self.status = page.locator("#found-note")
        self.list = page.locator("#list")

    def search(self, words: str) -> None:
        self.search_box.fill(words)


@pytest.fixture
def searcher(page: Page, server: Server) -> Searcher:
    return Searcher(page, server.url)


def in_view(message: Locator) -> None:
    expect(message).to_be_in_viewport()


def fill_history(client: httpx.Client, user: str) -> str:
    """Return the id of a conversation of 70 messages, the first of which has a needle."""
    conversation_id = create_conversation(client, user_id=user, title="Hay")
    texts = ["A nèedle, <b>here</b>", *(f"hay {n}" for n in range(34))]
    return create_conversation_with(client, user, *texts, conversation_id=conversation_id)


def test_typing_shows_matches_and_a_click_opens_the_conversation_at_the_message(
    searcher: Searcher,
) -> None:
    user = new_user()
    with open_client(searcher.url) as client:
        fill_history(client, user)
        create_conversation(client, user_id=user, title="Other")
    searcher.visit(as_user=user)
    expect(searcher.rows).to_have_count(2)
    searcher.search("needle HERE")
    match = searcher.matches.filter(has_text="You: A nèedle, <b>here</b>")
    expect(match).to_have_count(1)
    assert match.locator("mark").all_inner_texts() == ["nèedle", "here"]
    expect(searcher.list).to_be_hidden()
    match.get_by_role("link").click()
    message = searcher.messages.filter(has_text="A nèedle").first
    expect(message).to_have_class("message user found")
    expect(message).to_be_focused()
    in_view(message)
    expect(searcher.heading).to_have_text("Hay")
    expect(message).to_have_class("message user")
    expect(searcher.matches.first).to_be_visible()


def test_escape_gives_the_list_back(searcher: Searcher) -> None:
    user = new_user()
    with open_client(searcher.url) as client:
        create_conversation(client, user_id=user, title="A plan")
        create_conversation(client, user_id=user, title="Other")
    searcher.visit(as_user=user)
    searcher.search("pla")
    expect(searcher.matches).to_have_count(1)
    expect(searcher.status).to_have_text("1 match")
    searcher.search_box.press("Tab")
    expect(searcher.matches.get_by_role("link")).to_be_focused()
    searcher.focused().press("Escape")
    expect(searcher.search_box).to_be_focused()
    expect(searcher.search_box).to_have_value("")
    expect(searcher.matches).to_have_count(0)
    expect(searcher.list).to_be_visible()
    expect(searcher.rows).to_have_count(2)


def test_more_matches_are_shown_on_demand_and_none_says_so(searcher: Searcher) -> None:
    user = new_user()
    with open_client(searcher.url) as client:
        for number in range(23):
            create_conversation(client, user_id=user, title=f"Plan {number}")
    searcher.visit(as_user=user)
    searcher.search("plan")
    expect(searcher.matches).to_have_count(20)
    searcher.page.get_by_role("button", name="More matches").click()
    expect(searcher.matches).to_have_count(23)
    expect(searcher.matches.nth(20).get_by_role("link")).to_be_focused()
    expect(searcher.status).to_have_text("23 matches")
    searcher.search("nowhere")
    expect(searcher.status).to_have_text("Nothing was found.")
    expect(searcher.matches).to_have_count(0)


@pytest.mark.console_errors
def test_signs_alone_ask_for_a_word_and_another_user_sees_no_matches(searcher: Searcher) -> None:
    user = new_user()
    with open_client(searcher.url) as client:
        create_conversation(client, user_id=user, title="A plan")
    searcher.visit(as_user=user)
    searcher.search("?!")
    expect(searcher.status).to_have_text("Type a word to search for.")
    searcher.search("plan")
    expect(searcher.matches).to_have_count(1)
    searcher.switch_user(new_user())
    expect(searcher.search_box).to_have_value("")
    expect(searcher.matches).to_have_count(0)


def test_a_title_that_matches_opens_its_conversation(searcher: Searcher) -> None:
    user = new_user()
    with open_client(searcher.url) as client:
        create_conversation(client, user_id=user, title="A plan for Málaga")
    searcher.visit(as_user=user)
    searcher.search("malaga")
    searcher.matches.get_by_role("link", name="A plan for Málaga").click()
    expect(searcher.heading).to_have_text("A plan for Málaga")
    expect(searcher.box).to_be_focused()
