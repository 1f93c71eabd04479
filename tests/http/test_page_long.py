"""A conversation of 10,000 messages on the page, in a real Chromium."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from chatledger import Message, Store, open_store
from tests.http.client import new_user
from tests.http.test_page import SLOWLY, Visitor
from tests.serving import Server, StartServer

MESSAGES = 10_000
MOST_KEPT = 200
"""The most messages that the page keeps while the user scrolls."""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=SLOWLY)


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    with open_store(f"sqlite:///{server.folder / 'chatledger.db'}") as store:
        yield store


def store_messages(store: Store, count: int) -> str:
    """Store a conversation of a new user with so many messages, of several lengths.

    Return the user, who has the same name as the conversation.
    """
    user = new_user()
    texts = [f"Message {n}. {'It goes on. ' * (n % 17)}" for n in range(1, count + 1)]
    messages = [
        Message.user(text) if n % 2 == 0 else Message.assistant(text)
        for n, text in enumerate(texts)
    ]
    for start in range(0, count, 1_000):
        store.append(user, messages[start : start + 1_000], owner=user, title="long")
    return user


@pytest.fixture(scope="module")
def reader(store: Store) -> str:
    """The user with the longest conversation, which no test changes."""
    return store_messages(store, MESSAGES)


def open_long(page: Page, server: Server, user: str, *, last: int) -> Visitor:
    visitor = Visitor(page, server.url).visit(as_user=user)
    visitor.open_conversation(user)
    expect(message(visitor, last)).to_be_in_viewport()
    return visitor


@pytest.fixture
def visitor(page: Page, server: Server, reader: str) -> Visitor:
    return open_long(page, server, reader, last=MESSAGES)


@pytest.fixture
def writer(page: Page, server: Server, store: Store) -> Visitor:
    """A visitor who may change a conversation, of 120 messages."""
    return open_long(page, server, store_messages(store, 120), last=120)


def numbers(visitor: Visitor) -> list[int]:
    """Return the numbers of the messages that are shown."""
    texts = visitor.messages.locator(".text").all_text_contents()
    assert len(texts) <= MOST_KEPT
    found = [re.match(r"Message (\d+)\.", text) for text in texts]
    shown = [int(each[1]) for each in found if each]
    assert shown == list(range(shown[0], shown[0] + len(shown))), "each once, and in order"
    return shown


def message(visitor: Visitor, number: int) -> Locator:
    return visitor.messages.filter(has_text=f"Message {number}.")


WATCH_FOR_JUMPS = """() => {
  const scroller = document.querySelector("#scroller");
  const readMessages = () => {
    const { top, bottom } = scroller.getBoundingClientRect();
    return [...document.querySelectorAll(".message")]
      .map((element) => ({ element, box: element.getBoundingClientRect() }))
      .filter(({ box }) => box.bottom > top && box.top < bottom);
  };
  window.jumps = [];
  window.changes = 0;
  let inView = readMessages();
  scroller.addEventListener("scroll", () => (inView = readMessages()));
  new MutationObserver(() => {
    window.changes++;
    for (const { element } of inView) if (!element.isConnected) window.jumps.push("it went");
    const [{ element, box }] = inView;
    window.jumps.push(Math.round(element.getBoundingClientRect().top - box.top));
    inView = readMessages();
  }).observe(document.querySelector(".messages"), { childList: true });
}"""
"""Notes, for each time that messages come or go, how far the message at the top moves."""


def scroll(visitor: Visitor, *, to: int, by: int) -> None:
    """Turn the wheel until the message is shown."""
    page = visitor.page
    page.locator("#scroller").hover()
    while not message(visitor, to).count():
        page.mouse.wheel(0, by)
        page.evaluate("() => new Promise((resolve) => requestAnimationFrame(resolve))")


def test_earlier_and_later_messages_come_by_themselves_and_nothing_jumps(visitor: Visitor) -> None:
    page = visitor.page
    latest = page.get_by_role("button", name="Latest")
    assert numbers(visitor) == list(range(MESSAGES - 49, MESSAGES + 1))
    page.evaluate(WATCH_FOR_JUMPS)
    scroll(visitor, to=9_700, by=-1500)
    assert numbers(visitor)[-1] < MESSAGES
    expect(latest).to_be_visible()
    scroll(visitor, to=MESSAGES, by=1500)
    assert numbers(visitor)[-1] == MESSAGES
    assert page.evaluate("window.changes") > 6
    assert set(page.evaluate("window.jumps")) == {0}
    latest.click()
    expect(message(visitor, MESSAGES)).to_be_in_viewport()


def test_the_beginning_is_one_step_away_and_so_is_the_end(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_role("button", name="More for this conversation").press("Enter")
    page.get_by_role("menuitem", name="Go to the beginning").press("Enter")
    expect(message(visitor, 1)).to_be_in_viewport()
    expect(page.locator("#scroller")).to_be_focused()
    assert numbers(visitor) == list(range(1, 51))
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(0)
    page.get_by_role("button", name="Later messages").press("Enter")
    expect(message(visitor, 75)).to_be_attached()
    assert numbers(visitor)[0] == 1
    page.get_by_role("button", name="Latest").press("Enter")
    expect(message(visitor, MESSAGES)).to_be_in_viewport()
    assert numbers(visitor) == list(range(MESSAGES - 49, MESSAGES + 1))
    page.get_by_role("button", name="Earlier messages").press("Enter")
    expect(message(visitor, MESSAGES - 74)).to_be_attached()
    expect(page.locator("#spoken")).to_contain_text("Earlier messages loaded")


def test_a_message_that_is_sent_from_the_beginning_is_shown_at_the_end(writer: Visitor) -> None:
    visitor, page = writer, writer.page
    show_beginning(visitor)
    visitor.box.fill("Where was I?")
    visitor.box.press("Enter")
    expect(visitor.pending.locator(".text")).not_to_be_empty()
    expect(visitor.pending).to_be_in_viewport()
    show_beginning(visitor)
    assert numbers(visitor) == list(range(1, 51))
    page.get_by_role("button", name="Latest").click()
    expect(visitor.pending).to_be_in_viewport()
    expect(visitor.pending).to_have_count(0)
    expect(visitor.messages.filter(has_text="Where was I?").first).to_be_attached()
    reply = visitor.replies.last.locator(".text").inner_text()
    page.reload()
    expect(visitor.replies.last.locator(".text")).to_have_text(reply)


def show_beginning(visitor: Visitor) -> None:
    visitor.page.get_by_role("button", name="More for this conversation").click()
    visitor.page.get_by_role("menuitem", name="Go to the beginning").click()
    expect(message(visitor, 1)).to_be_in_viewport()


def test_a_reply_that_arrives_meanwhile_is_reached_from_the_beginning_too(writer: Visitor) -> None:
    writer.box.fill("Where was I?")
    writer.box.press("Enter")
    expect(writer.pending.locator(".text")).not_to_be_empty()
    show_beginning(writer)
    later = writer.page.get_by_role("button", name="Later messages")
    later.press("Enter")
    expect(writer.pending).to_be_attached()
    expect(later).to_be_hidden()
    assert numbers(writer) == list(range(1, 121))
    expect(writer.messages).to_have_count(122)
    writer.stop.click()
    expect(writer.replies.last).to_contain_text("Stopped")


def test_a_message_far_from_the_end_can_be_edited(writer: Visitor) -> None:
    show_beginning(writer)
    message(writer, 3).hover()
    message(writer, 3).get_by_role("button", name="Edit").click()
    writer.page.get_by_role("textbox", name="The message").fill("Once more")
    writer.page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(writer.pending.locator(".text")).not_to_be_empty()
    expect(writer.messages).to_have_count(4)
    expect(writer.messages.nth(2)).to_contain_text("Once more")
    expect(writer.page.get_by_role("button", name="Later messages")).to_be_hidden()
    writer.stop.click()
    expect(writer.replies.last).to_contain_text("Stopped")


@pytest.mark.console_errors
def test_messages_that_cannot_be_read_are_read_when_the_user_tries_again(writer: Visitor) -> None:
    page = writer.page
    page.route("**/conversations/*before=*", lambda route: route.abort())
    page.locator("#scroller").hover()
    page.mouse.wheel(0, -100_000)
    expect(writer.notice).to_contain_text("cannot be reached")
    page.unroute_all()
    writer.notice.get_by_role("button", name="Try again").click()
    expect(message(writer, 46)).to_be_attached()
    assert numbers(writer)[-1] == 120
