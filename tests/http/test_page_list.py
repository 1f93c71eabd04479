"""The list of conversations on the page, in a real Chromium, served by a real server."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Page, expect

from chatledger import Conversation, Message, Store, open_store
from tests.http.client import conversation_path, create_conversation, list_conversations, new_user
from tests.http.test_page import QUICKLY, Visitor
from tests.serving import Server, StartServer

NOON = datetime(2026, 6, 20, 12, tzinfo=UTC)
"""The time that the page's clock shows if a test fixes it."""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=QUICKLY)


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    """The store of the server."""
    with open_store(f"sqlite:///{server.folder / 'chatledger.db'}") as store:
        yield store


@pytest.fixture
def visitor(page: Page, server: Server) -> Visitor:
    return Visitor(page, server.url)


def store_conversation(
    store: Store,
    user: str,
    title: str,
    messages: Sequence[Message] = (Message.user("Hello"),),
    *,
    updated_at: datetime = NOON,
    **metadata: Any,
) -> str:
    """Store a conversation whose last activity was at ``updated_at``, and return its id."""
    conversation = Conversation(
        id=str(uuid4()),
        owner=user,
        title=title,
        metadata=metadata,
        created_at=updated_at,
        updated_at=updated_at,
        message_count=len(messages),
        revision=len(messages),
        expires_at=None,
    )
    stored = [message.with_seq(seq) for message, seq in zip(messages, count(1), strict=False)]
    return store.restore(conversation, stored, revision=0).id


def groups(page: Page) -> dict[str, list[str]]:
    """Return the titles in each group of the list, by the group's name."""
    found: dict[str, list[str]] = page.locator("#list").evaluate(
        """list => Object.fromEntries([...list.children].map(group => [
          group.firstElementChild.textContent,
          [...group.querySelectorAll(".title")].map(title => title.textContent),
        ]))"""
    )
    return found


def metadata_of(client: httpx.Client, user: str, title: str) -> dict[str, Any]:
    listed = list_conversations(client, user)["conversations"]
    (metadata,) = (each["metadata"] for each in listed if each["title"] == title)
    return dict(metadata)


def test_the_list_is_grouped_by_the_day_of_the_last_activity(
    visitor: Visitor, store: Store
) -> None:
    user = new_user()
    for title, days in {"a": 0, "b": 1, "c": 2, "d": 7, "e": 8, "f": 30, "g": 31, "h": 365}.items():
        store_conversation(store, user, title, updated_at=NOON - timedelta(days=days, hours=1))
    visitor.page.clock.set_fixed_time(NOON)
    visitor.visit(as_user=user)
    expect(visitor.rows).to_have_count(8)
    assert groups(visitor.page) == {
        "Today": ["a"],
        "Yesterday": ["b"],
        "Previous 7 days": ["c", "d"],
        "Previous 30 days": ["e", "f"],
        "May": ["g"],
        "June 2025": ["h"],
    }


def test_a_pinned_conversation_is_above_the_others_and_keeps_its_other_metadata(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    create_conversation(client, user_id=user, title="apples", metadata={"color": "red"})
    create_conversation(client, user_id=user, title="pears")
    page = visitor.visit(as_user=user).page
    visitor.choose("Pin", "apples")
    expect(page.get_by_role("list", name="Pinned").get_by_role("listitem")).to_have_text("apples")
    expect(page.get_by_role("button", name="Actions for “apples”")).to_be_focused()
    assert metadata_of(client, user, "apples") == {"color": "red", "pinned": True}
    page.reload()
    expect(visitor.rows).to_have_text(["apples", "pears"])
    visitor.choose("Unpin", "apples")
    expect(visitor.rows).to_have_text(["pears", "apples"])
    assert metadata_of(client, user, "apples") == {"color": "red"}


def test_an_edit_does_not_pin_the_copy_of_the_conversation(visitor: Visitor) -> None:
    page = visitor.visit(as_user=new_user()).page
    visitor.send("Hi, I am Bob")
    visitor.choose("Pin", "Hi, I am Bob")
    pinned = page.get_by_role("list", name="Pinned").get_by_role("listitem")
    expect(pinned).to_have_count(1)
    visitor.messages.first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="The message").fill("Hi, I am Ann")
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(visitor.replies.last).to_contain_text("Ann")
    expect(page.get_by_role("list", name="Today").get_by_role("listitem")).to_have_count(1)
    expect(pinned).to_have_count(1)
    page.reload()
    expect(visitor.rows).to_have_count(2)
    expect(pinned).to_have_count(1)


@pytest.mark.console_errors
def test_pinning_keeps_what_another_program_changes_at_the_same_time(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    conversation_id = create_conversation(client, user_id=user, title="apples")
    visitor.visit(as_user=user)
    rivals = iter([{"color": "red"}, {"color": "green"}])

    def change_first(route: Any) -> None:
        if route.request.method == "PATCH" and (metadata := next(rivals, None)):
            fields = {"metadata": metadata}
            client.patch(conversation_path(conversation_id), json=fields).raise_for_status()
        route.continue_()

    visitor.page.route("**/conversations/*", change_first)
    visitor.choose("Pin", "apples")
    expect(visitor.page.get_by_role("list", name="Pinned")).to_contain_text("apples")
    assert metadata_of(client, user, "apples") == {"color": "green", "pinned": True}


def test_an_archived_conversation_is_folded_away_and_can_be_brought_back(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    for title in ("apples", "pears"):
        create_conversation(client, user_id=user, title=title)
    page = visitor.visit(as_user=user).page
    visitor.choose("Archive", "apples")
    expect(visitor.rows).to_have_text(["pears"])
    expect(visitor.row("pears").get_by_role("link")).to_be_focused()
    page.reload()
    expect(visitor.rows).to_have_text(["pears"])
    page.get_by_text("Archived", exact=True).click()
    expect(visitor.rows).to_have_text(["pears", "apples"])
    visitor.choose("Unarchive", "apples")
    expect(page.get_by_text("Archived", exact=True)).to_have_count(0)
    expect(visitor.rows).to_have_text(["pears", "apples"])


def test_pinned_conversations_are_found_on_later_pages_of_the_list(
    visitor: Visitor, store: Store
) -> None:
    user = new_user()
    store_conversation(store, user, "old", pinned=True)
    for n in range(31):
        store_conversation(store, user, f"{n}", updated_at=NOON + timedelta(minutes=n))
    page = visitor.visit(as_user=user).page
    pinned = page.get_by_role("list", name="Pinned").get_by_role("listitem")
    expect(pinned).to_have_text(["old"])
    expect(visitor.rows).to_have_count(31)
    page.get_by_role("button", name="Older conversations").click()
    expect(visitor.rows).to_have_count(32)
    expect(pinned).to_have_text(["old"])


def test_a_conversation_is_renamed_from_its_menu(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    for title in ("apples", "pears"):
        create_conversation(client, user_id=user, title=title)
    page = visitor.visit(as_user=user).page
    visitor.choose("Rename", "apples")
    page.get_by_role("textbox", name="Its title").fill("plums")
    page.keyboard.press("Enter")
    expect(visitor.rows).to_have_text(["pears", "plums"])
    expect(visitor.page.get_by_role("button", name="Actions for “plums”")).to_be_focused()
    expect(visitor.heading).to_have_text("New conversation")


def test_a_menu_works_with_the_keyboard(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    create_conversation(client, user_id=user, title="apples")
    page = visitor.visit(as_user=user).page
    opener = page.get_by_role("button", name="Actions for “apples”")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menu", name="Actions for “apples”")).to_be_visible()
    expect(opener).to_have_attribute("aria-expanded", "true")
    focused = visitor.focused()
    expect(focused).to_have_text("Rename")
    for key, label in {
        "ArrowDown": "Pin",
        "End": "Delete",
        "Home": "Rename",
        "ArrowUp": "Delete",
        "a": "Archive",
    }.items():
        page.keyboard.press(key)
        expect(focused).to_have_text(label)
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_be_hidden()
    expect(opener).to_be_focused()
    expect(opener).to_have_attribute("aria-expanded", "false")
    opener.click()
    expect(page.get_by_role("menu")).to_be_visible()
    opener.click()
    expect(page.get_by_role("menu")).to_be_hidden()
    opener.click()
    page.get_by_role("heading", level=1).click()
    expect(page.get_by_role("menu")).to_be_hidden()


def test_the_tabs_of_a_browser_show_each_others_changes(visitor: Visitor) -> None:
    page = visitor.visit(as_user=new_user()).page
    visitor.send("Hi, I am Bob")
    tab = page.context.new_page()
    tab.goto(page.url)
    other = Visitor(tab, visitor.url)
    expect(other.messages).to_have_count(2)

    visitor.send("What is my name?")
    expect(other.messages).to_have_count(4)
    expect(other.replies.last.locator(".text")).to_have_text(
        visitor.replies.last.locator(".text").inner_text()
    )
    other.choose("Rename", "Hi, I am Bob")
    tab.get_by_role("textbox", name="Its title").fill("About Bob")
    tab.get_by_role("button", name="Save").click()
    expect(visitor.heading).to_have_text("About Bob")
    expect(visitor.rows).to_have_text(["About Bob"])
    other.choose("Pin", "About Bob")
    expect(page.get_by_role("list", name="Pinned")).to_have_text("About Bob")

    page.bring_to_front()  # Chromium slows down the tabs in the background
    page.get_by_role("button", name="New conversation").first.click()
    visitor.send("Hello")
    expect(other.rows).to_have_text(["About Bob", "Hello"])
    visitor.choose("Delete", "About Bob")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(other.rows).to_have_text(["Hello"])
    expect(other.messages).to_have_count(0)
    expect(other.notice).to_contain_text("This conversation was deleted in another tab.")
    tab.close()
