"""The page at ``/``, in a real Chromium, served by a real server."""

import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.http.client import (
    conversation_path,
    create_conversation,
    new_user,
    open_client,
    open_stream,
    read_events,
    send_message,
    success_body,
)
from tests.serving import Server, StartServer

QUICKLY, SLOWLY = "0", "0.1"
"""Seconds that the model takes per word; slowly if the test interrupts the reply."""
LONG_QUESTION = "Hi, I am Bob and I would like to hear all that you can do"
"""A message that the offline model answers with about 50 words."""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=QUICKLY)


@pytest.fixture(scope="module")
def slow_server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=SLOWLY)


@pytest.fixture
def url(server: Server) -> str:
    return server.url


class Visitor:
    """A user of the page: actions, and locators of what the user sees."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.box = page.get_by_role("textbox", name="Your message")
        self.messages = page.locator(".message")
        self.replies = page.locator(".message.assistant")
        self.pending = page.locator(".message.replying")
        self.rows = page.get_by_role("navigation").get_by_role("listitem")
        self.notice = page.get_by_role("alert")
        self.stop = page.get_by_role("button", name="Stop")
        self.heading = page.get_by_role("heading", level=1)

    def visit(self, *, as_user: str) -> "Visitor":
        self.page.goto(self.url)
        self.switch_user(as_user)
        return self

    def open_conversation(self, conversation_id: str) -> None:
        self.page.goto(f"{self.url}/#{address(conversation_id)}")

    def switch_user(self, user: str) -> None:
        self.page.get_by_role("button", name="Settings").click()
        self.page.get_by_role("textbox", name="Your name or id").fill(user)
        self.page.get_by_role("button", name="Save").click()
        expect(self.page.locator("#who")).to_have_text(user)

    def send(self, text: str) -> None:
        """Send a message and wait for the end of the reply."""
        before = self.replies.count()
        self.box.fill(text)
        self.box.press("Enter")
        expect(self.replies).to_have_count(before + 1)
        expect(self.pending).to_have_count(0)

    def row(self, title: str) -> Locator:
        return self.rows.filter(has_text=title)

    def choose(self, action: str, title: str) -> None:
        """Choose an action of the menu of the conversation with that title."""
        self.row(title).hover()
        self.page.get_by_role("button", name=f"Actions for “{title}”").click()
        self.page.get_by_role("menuitem", name=action, exact=True).click()

    def focused(self) -> Locator:
        return self.page.locator(":focus")


def address(conversation_id: str) -> str:
    """Return the fragment of a conversation's address, without the #."""
    return f"c={quote(conversation_id, safe='')}"


@pytest.fixture
def visitor(page: Page, server: Server) -> Visitor:
    return Visitor(page, server.url)


@pytest.fixture
def slow_visitor(page: Page, slow_server: Server) -> Visitor:
    """A visitor to the server with the slow model."""
    return Visitor(page, slow_server.url)


def create_conversation_with(client: httpx.Client, user: str, *messages: str, **fields: Any) -> str:
    """Create a conversation with ``messages`` of the user, and return its id."""
    for message in messages:
        fields["conversation_id"] = send_message(client, message, user_id=user, **fields)[
            "conversation_id"
        ]
    conversation_id: str = fields["conversation_id"]
    return conversation_id


# Sending messages


def test_a_reply_is_shown_while_it_streams_in(slow_visitor: Visitor) -> None:
    slow_visitor.visit(as_user=new_user())
    slow_visitor.box.fill(LONG_QUESTION)
    slow_visitor.box.press("Enter")
    expect(slow_visitor.box).to_be_empty()
    expect(slow_visitor.messages.first).to_contain_text(LONG_QUESTION)
    text = slow_visitor.pending.locator(".text")
    expect(text).not_to_be_empty()
    early = text.inner_text()
    expect(slow_visitor.pending).to_have_count(0)
    complete = slow_visitor.replies.last.locator(".text").inner_text()
    assert complete.startswith(early)
    assert len(complete) > len(early)


def test_messages_are_still_there_after_a_reload(visitor: Visitor) -> None:
    visitor.visit(as_user=new_user())
    visitor.send("My boat is called Halibut")
    before = visitor.messages.locator(".text").all_inner_texts()
    visitor.page.reload()
    expect(visitor.messages.locator(".text")).to_have_text(before)


def test_a_conversation_continues_after_the_server_was_killed(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE=QUICKLY)
    visitor = Visitor(page, server.url).visit(as_user=new_user())
    visitor.send("Hi, I am Bob")
    url = page.url
    page.goto("about:blank")
    server.restart()
    page.goto(url)
    expect(visitor.messages.first).to_contain_text("Hi, I am Bob")
    visitor.send("What is my name?")
    expect(visitor.replies.last).to_contain_text("Bob")


def test_user_input_is_shown_as_text(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    attack = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
    create_conversation(client, user_id=user, title=attack)
    visitor.visit(as_user=user)
    visitor.send(attack)
    visitor.page.reload()
    expect(visitor.messages.first.locator(".text")).to_have_text(attack)
    expect(visitor.row(attack).first).to_be_visible()
    expect(visitor.page.locator("main img, main li script, nav img, nav script")).to_have_count(0)
    assert visitor.page.evaluate("window.owned") is None


def test_line_breaks_and_spaces_are_preserved(visitor: Visitor) -> None:
    visitor.visit(as_user=new_user())
    visitor.box.press_sequentially("first")
    visitor.box.press("Shift+Enter")
    visitor.box.press_sequentially("  second")
    expect(visitor.messages).to_have_count(0)
    visitor.box.press("Enter")
    text = visitor.messages.first.locator(".text")
    expect(text).to_be_visible()
    assert text.inner_text() == "first\n  second"


def test_blank_text_is_not_sent(visitor: Visitor) -> None:
    visitor.visit(as_user=new_user())
    visitor.box.fill(" \n ")
    visitor.box.press("Enter")
    expect(visitor.box).to_have_value(" \n ")
    expect(visitor.messages).to_have_count(0)


def test_a_stopped_reply_keeps_its_text_so_far(slow_visitor: Visitor) -> None:
    slow_visitor.visit(as_user=new_user())
    slow_visitor.box.fill(LONG_QUESTION)
    slow_visitor.box.press("Enter")
    expect(slow_visitor.pending.locator(".text")).not_to_be_empty()
    slow_visitor.stop.click()
    expect(slow_visitor.pending).to_have_count(0)
    expect(slow_visitor.stop).to_be_hidden()
    expect(slow_visitor.replies.last).to_contain_text("Stopped")
    expect(slow_visitor.box).to_be_focused()
    seen = slow_visitor.replies.last.locator(".text").inner_text()
    with open_client(slow_visitor.url) as client:
        complete = send_message(client, LONG_QUESTION, user_id=new_user())["response"]
    assert seen
    assert complete.startswith(seen)
    assert seen != complete


def test_a_stopped_reply_is_still_there_later(slow_visitor: Visitor) -> None:
    slow_visitor.visit(as_user=new_user())
    slow_visitor.box.fill(LONG_QUESTION)
    slow_visitor.box.press("Enter")
    expect(slow_visitor.pending.locator(".text")).not_to_be_empty()
    slow_visitor.box.press("Escape")
    expect(slow_visitor.pending).to_have_count(0)
    seen = slow_visitor.replies.last.locator(".text").inner_text()
    # The reply appears once the server has noticed the disconnect.
    slow_visitor.page.reload()
    expect(slow_visitor.messages.first).to_be_visible()
    again = slow_visitor.page.get_by_role("button", name="Check again")
    for _ in range(20):
        if not again.is_visible():
            break
        again.click()
        expect(slow_visitor.messages.first).to_be_visible()
    expect(slow_visitor.replies).to_have_count(1)
    expect(slow_visitor.replies.first).to_contain_text(seen)
    expect(slow_visitor.replies.first).to_contain_text("Stopped")


def test_a_reply_continues_while_another_conversation_is_shown(slow_visitor: Visitor) -> None:
    slow_visitor.visit(as_user=new_user())
    slow_visitor.box.fill(LONG_QUESTION)
    slow_visitor.box.press("Enter")
    expect(slow_visitor.pending.locator(".text")).not_to_be_empty()
    slow_visitor.page.get_by_role("button", name="New conversation").click()
    expect(slow_visitor.messages).to_have_count(0)
    expect(slow_visitor.stop).to_be_hidden()
    slow_visitor.page.go_back()
    expect(slow_visitor.messages).to_have_count(2)
    expect(slow_visitor.pending).to_have_count(0)
    texts = slow_visitor.messages.locator(".text").all_inner_texts()
    slow_visitor.page.reload()
    expect(slow_visitor.messages.locator(".text")).to_have_text(texts)


# Finding conversations again


def test_the_list_shows_newest_activity_first(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    apples, pears, plums = (
        create_conversation_with(client, user, what) for what in ("apples", "pears", "plums")
    )
    visitor.visit(as_user=user)
    expect(visitor.rows).to_have_count(3)
    assert listed_addresses(visitor) == [
        address(conversation_id) for conversation_id in (plums, pears, apples)
    ]
    visitor.rows.last.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("apples")
    visitor.send("more apples")
    expect(visitor.rows.first.get_by_role("link")).to_have_attribute("href", f"#{address(apples)}")
    assert listed_addresses(visitor) == [
        address(conversation_id) for conversation_id in (apples, plums, pears)
    ]


def listed_addresses(visitor: Visitor) -> list[str]:
    links = visitor.rows.get_by_role("link").all()
    return [(link.get_attribute("href") or "").removeprefix("#") for link in links]


def test_older_conversations_are_loaded_on_demand(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    for n in range(35):
        create_conversation(client, user_id=user, title=f"number {n}")
    visitor.visit(as_user=user)
    expect(visitor.rows).to_have_count(30)
    visitor.page.get_by_role("button", name="Older conversations").click()
    expect(visitor.rows).to_have_count(35)
    titles = [row.locator(".title").inner_text() for row in visitor.rows.all()]
    assert titles == [f"number {n}" for n in reversed(range(35))]


def test_back_and_forward_switch_between_conversations(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    for what in ("apples", "pears"):
        create_conversation_with(client, user, what)
    visitor.visit(as_user=user)
    visitor.rows.nth(0).get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("pears")
    visitor.rows.nth(1).get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("apples")
    visitor.page.go_back()
    expect(visitor.messages.first).to_contain_text("pears")
    visitor.page.go_back()
    expect(visitor.messages).to_have_count(0)
    expect(visitor.page.get_by_text("What is on your mind?")).to_be_visible()
    visitor.page.go_forward()
    expect(visitor.messages.first).to_contain_text("pears")


@pytest.mark.parametrize(
    "conversation_id",
    ["a/b/c", "Gespräch 日本語 🧠", "100%25 #c=x&c=y?", "a+b", "../health", "'\"<b>"],
)
def test_a_conversation_opens_whatever_its_id(
    visitor: Visitor, client: httpx.Client, conversation_id: str
) -> None:
    user = new_user()
    conversation_id = f"{conversation_id} {user}"
    create_conversation_with(client, user, "apples", conversation_id=conversation_id)
    visitor.visit(as_user=user)
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("apples")
    visitor.send("pears")
    visitor.page.reload()
    expect(visitor.messages).to_have_count(4)
    expect(visitor.rows).to_have_count(1)


def test_earlier_messages_can_be_loaded_with_the_keyboard(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    conversation_id = create_conversation_with(
        client, user, *(f"This is message {n}." for n in range(45))
    )
    visitor.visit(as_user=user)
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages).to_have_count(50)
    expect(visitor.messages.last).to_be_in_viewport()
    earlier = visitor.page.get_by_role("button", name="Earlier messages")
    earlier.focus()  # comes into view, and so the messages before it load by themselves
    expect(visitor.messages).to_have_count(75)
    visitor.page.keyboard.press("Enter")
    expect(visitor.messages).to_have_count(90)
    expect(visitor.page.locator("#spoken")).to_contain_text("Earlier messages loaded")
    expect(visitor.page.locator("#scroller")).to_be_focused()
    expect(earlier).to_be_hidden()
    said_so_far = visitor.page.locator(".message.user .text").all_inner_texts()
    assert said_so_far == [f"This is message {n}." for n in range(45)]
    assert visitor.page.url.endswith(address(conversation_id))


def test_the_end_stays_in_view_unless_the_user_scrolls_away(slow_visitor: Visitor) -> None:
    slow_visitor.page.set_viewport_size({"width": 800, "height": 320})
    slow_visitor.visit(as_user=new_user())
    slow_visitor.send("Hello")
    slow_visitor.box.fill(LONG_QUESTION)
    slow_visitor.box.press("Enter")
    expect(slow_visitor.pending.locator(".text")).not_to_be_empty()
    expect(slow_visitor.pending).to_be_in_viewport()
    expect(slow_visitor.messages.first).not_to_be_in_viewport()
    slow_visitor.page.locator("#scroller").hover()
    slow_visitor.page.mouse.wheel(0, -2000)
    latest = slow_visitor.page.get_by_role("button", name="Latest")
    expect(latest).to_be_visible()
    expect(slow_visitor.pending).to_have_count(0)
    expect(slow_visitor.replies.last).not_to_be_in_viewport()
    latest.click()
    expect(slow_visitor.replies.last).to_be_in_viewport()
    expect(latest).to_be_hidden()


def test_a_deleted_conversation_no_longer_exists(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    for title in ("apples", "pears"):
        create_conversation(client, user_id=user, title=title)
    visitor.visit(as_user=user)
    visitor.row("apples").get_by_role("link").click()
    expect(visitor.heading).to_have_text("apples")
    visitor.send("I like apples")

    visitor.choose("Delete", "apples")
    visitor.page.get_by_role("button", name="Keep it").click()
    expect(visitor.rows).to_have_count(2)

    visitor.choose("Delete", "apples")
    visitor.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(visitor.rows).to_have_count(1)
    expect(visitor.messages).to_have_count(0)
    expect(visitor.row("pears").get_by_role("link")).to_be_focused()
    visitor.page.reload()
    expect(visitor.row("pears")).to_be_visible()
    expect(visitor.row("apples")).to_have_count(0)
    expect(visitor.messages).to_have_count(0)


# The user


def test_the_page_makes_up_a_user_and_keeps_it(visitor: Visitor) -> None:
    visitor.page.goto(visitor.url)
    who = visitor.page.locator("#who")
    expect(who).to_have_text(re.compile(r"^web-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
    name = who.inner_text()
    visitor.send("Hello")
    visitor.page.reload()
    expect(who).to_have_text(name)
    expect(visitor.rows).to_have_count(1)


def test_another_user_sees_none_of_the_conversations(
    visitor: Visitor, client: httpx.Client
) -> None:
    bob, ann = new_user(), new_user()
    create_conversation_with(client, bob, "a secret of mine")
    visitor.visit(as_user=bob)
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("a secret of mine")
    visitor.switch_user(ann)
    expect(visitor.rows).to_have_count(0)
    expect(visitor.messages).to_have_count(0)
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    expect(visitor.page.get_by_text("a secret of mine")).to_have_count(0)
    visitor.switch_user(bob)
    expect(visitor.rows).to_have_count(1)


@pytest.mark.console_errors
def test_the_address_of_a_conversation_works_only_for_its_owner(
    visitor: Visitor, client: httpx.Client
) -> None:
    bob, ann = new_user(), new_user()
    conversation_id = create_conversation_with(client, bob, "a secret of mine")
    visitor.visit(as_user=ann)
    visitor.open_conversation(conversation_id)
    expect(visitor.notice).not_to_be_empty()
    expect(visitor.messages).to_have_count(0)
    visitor.switch_user(bob)
    expect(visitor.messages.first).to_contain_text("a secret of mine")
    expect(visitor.notice).to_be_empty()


# Errors


@pytest.mark.console_errors
def test_the_page_says_that_the_server_is_down_and_keeps_the_typed_text(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE=QUICKLY)
    visitor = Visitor(page, server.url).visit(as_user=new_user())
    visitor.send("Hi, I am Bob")
    server.kill()
    visitor.box.fill("What is my name?")
    visitor.box.press("Enter")
    expect(visitor.notice).to_contain_text("The server cannot be reached.")
    expect(visitor.box).to_have_value("What is my name?")
    expect(visitor.messages).to_have_count(2)
    server.restart()
    visitor.box.press("Enter")
    expect(visitor.replies).to_have_count(2)
    expect(visitor.replies.last).to_contain_text("Bob")
    expect(visitor.notice).to_be_empty()
    expect(visitor.box).to_be_empty()


@pytest.mark.console_errors
def test_a_conversation_opened_offline_is_shown_once_the_browser_is_online(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    conversation_id = create_conversation_with(client, user, "Hi, I am Bob")
    visitor.visit(as_user=user)
    expect(visitor.rows).to_have_count(1)
    visitor.page.context.set_offline(True)
    visitor.page.evaluate(f"location.hash = '{address(conversation_id)}'")
    expect(visitor.notice).to_contain_text("The server cannot be reached.")
    visitor.page.context.set_offline(False)
    expect(visitor.messages).to_have_count(2)
    expect(visitor.notice).to_be_empty()


@pytest.mark.console_errors
def test_the_page_says_that_the_server_crashed_during_a_reply(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE=SLOWLY)
    visitor = Visitor(page, server.url).visit(as_user=new_user())
    visitor.box.fill(LONG_QUESTION)
    visitor.box.press("Enter")
    expect(visitor.pending.locator(".text")).not_to_be_empty()
    server.kill()
    lost = "The connection was lost before the reply was complete."
    expect(visitor.notice).to_contain_text(lost, timeout=20_000)
    expect(visitor.pending).to_have_count(0)
    expect(visitor.replies.last).to_contain_text("Interrupted")
    server.restart()
    page.get_by_role("button", name="Show what was saved").click()
    expect(visitor.messages).to_have_count(1)
    expect(visitor.notice).to_contain_text("There is no reply to the last message.")


@pytest.mark.console_errors
def test_a_message_sent_while_another_reply_is_written_waits_until_that_has_ended(
    page: Page, start_server: StartServer
) -> None:
    server, user = start_server(CHATLEDGER_OFFLINE_PACE="0.3"), new_user()
    visitor = Visitor(page, server.url)
    with open_client(server.url) as client:
        conversation_id = create_conversation(client, user_id=user)
        visitor.visit(as_user=user).open_conversation(conversation_id)
        expect(visitor.rows).to_have_count(1)
        fields = {"message": LONG_QUESTION, "user_id": user, "conversation_id": conversation_id}
        with open_stream(client, **fields) as response:
            stream = read_events(response)
            assert next(stream)[0] == "start"
            visitor.box.fill("What is my name?")
            visitor.box.press("Enter")
            expect(visitor.notice).to_contain_text("An earlier reply is still being written")
            path = f"{conversation_path(conversation_id)}/stop"
            assert success_body(client.post(path, json={"user_id": user})) == {"stopped": True}
            assert [*stream][-1][0] == "done"
    expect(visitor.replies).to_have_count(1)
    expect(visitor.replies).to_contain_text("Your name is Bob.")
    expect(visitor.notice).to_be_empty()
    expect(visitor.box).to_be_empty()
    page.reload()
    expect(visitor.replies).to_have_count(2)


@pytest.mark.console_errors
def test_a_message_returns_to_the_box_if_another_reply_takes_too_long(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="30")
    page.clock.install()
    user = new_user()
    visitor = Visitor(page, server.url).visit(as_user=user)
    with open_client(server.url) as client:
        conversation_id = create_conversation(client, user_id=user)
        fields = {"message": "Hello", "user_id": user, "conversation_id": conversation_id}
        visitor.open_conversation(conversation_id)
        with open_stream(client, **fields) as response:
            stream = read_events(response)
            assert next(stream)[0] == "start"
            visitor.box.fill("Are you there?")
            visitor.box.press("Enter")
            expect(visitor.notice).to_contain_text("Your message will be sent")
            page.clock.fast_forward(20_000)
            expect(visitor.box).to_have_value("Are you there?")
            expect(visitor.notice).to_contain_text("Your message is back in the box.")


@pytest.mark.console_errors
def test_a_rejected_message_returns_to_the_box_with_the_servers_reason(visitor: Visitor) -> None:
    visitor.visit(as_user=new_user())
    too_long = "x" * 300_000
    visitor.box.fill(too_long)
    visitor.box.press("Enter")
    expect(visitor.notice).to_contain_text("Your message is back in the box.")
    assert visitor.box.input_value() == too_long
    expect(visitor.messages).to_have_count(0)
    visitor.page.get_by_role("button", name="Dismiss").click()
    expect(visitor.notice).to_be_empty()


def test_a_message_typed_while_a_conversation_loads_is_sent_once_it_has_loaded(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    conversation_id = create_conversation_with(client, user, "apples")
    visitor.visit(as_user=user)
    held: list[Route] = []
    visitor.page.route("**/conversations/*", lambda route: held.append(route))
    visitor.open_conversation(conversation_id)
    visitor.box.fill("pears")
    visitor.box.press("Enter")
    expect(visitor.box).to_have_value("pears")
    expect(visitor.messages).to_have_count(0)
    for route in held:
        route.continue_()
    expect(visitor.messages).to_have_count(4)
    expect(visitor.box).to_be_empty()


def test_each_conversation_keeps_its_own_draft(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    create_conversation_with(client, user, "apples")
    visitor.visit(as_user=user)
    visitor.box.fill("a new thought")
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("apples")
    expect(visitor.box).to_be_empty()
    visitor.box.fill("and pears")
    visitor.page.reload()
    expect(visitor.box).to_have_value("and pears")
    visitor.page.get_by_role("button", name="New conversation").click()
    expect(visitor.box).to_have_value("a new thought")


# Accessibility


def test_the_page_works_with_the_keyboard_alone(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    for title in ("apples", "pears"):
        create_conversation(client, user_id=user, title=title)
    visitor.visit(as_user=user)
    page, keys = visitor.page, visitor.page.keyboard
    expect(visitor.rows).to_have_count(2)
    page.reload()
    expect(visitor.rows).to_have_count(2)
    expect(visitor.box).to_be_focused()

    tab_until(visitor, "button", "Skip to the message box")
    keys.press("Enter")
    expect(visitor.box).to_be_focused()

    tab_until(visitor, "link", "apples")
    keys.press("Enter")
    expect(visitor.heading).to_have_text("apples")
    expect(visitor.box).to_be_focused()
    keys.type("Hi, I am Bob")
    keys.press("Enter")
    expect(visitor.replies).to_have_count(1)
    expect(visitor.pending).to_have_count(0)
    expect(visitor.box).to_be_focused()

    tab_until(visitor, "button", "Actions for “apples”")
    keys.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    keys.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Delete")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    keys.press("Tab")
    keys.press("Enter")
    expect(visitor.rows).to_have_count(1)
    expect(visitor.row("pears").get_by_role("link")).to_be_focused()

    tab_until(visitor, "button", "Settings")
    keys.press("Enter")
    tab_until(visitor, "textbox", "Your name or id")
    keys.type(new_user())
    keys.press("Enter")
    expect(visitor.rows).to_have_count(0)
    expect(visitor.box).to_be_focused()


def tab_until(visitor: Visitor, role: Any, name: str) -> None:
    wanted = visitor.page.get_by_role(role, name=name)
    for _ in range(40):
        visitor.page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"The Tab key does not reach the {role} {name!r}.")


def test_a_reply_is_read_aloud_in_sentences(visitor: Visitor) -> None:
    visitor.visit(as_user=new_user())
    visitor.send("Hi, I am Bob")
    spoken = visitor.page.get_by_role("log")
    expect(spoken).to_have_attribute("aria-live", "polite")
    reply = visitor.replies.last.locator(".text").inner_text()
    words = " ".join(spoken.locator("p").all_inner_texts())
    assert reply.split() == words.split()[-len(reply.split()) :]


def test_every_control_has_an_accessible_name(visitor: Visitor, client: httpx.Client) -> None:
    user = new_user()
    create_conversation_with(client, user, "apples")
    visitor.visit(as_user=user)
    expect(visitor.rows).to_have_count(1)
    for role in ("button", "link", "textbox", "region", "navigation", "log"):
        nameless = visitor.page.get_by_role(role, name=re.compile(r"^\s*$"))
        expect(nameless).to_have_count(0)


def test_a_phone_scrolls_in_one_direction_only(browser: Browser, server: Server) -> None:
    phone = {"width": 320, "height": 640}
    context = browser.new_context(viewport=phone, has_touch=True, is_mobile=True)  # type: ignore[arg-type]
    page = context.new_page()
    try:
        visitor = Visitor(page, server.url)
        page.goto(server.url)
        visitor.send("x" * 300 + " " + "https://example.invalid/" + "y" * 300)
        page.get_by_role("button", name="Conversations").tap()
        expect(visitor.rows).to_have_count(1)
        expect(visitor.rows.first).to_be_in_viewport()
        expect(page.get_by_role("button", name="Close the list")).to_be_focused()
        assert widest_scroll_width(page) <= 320
        visitor.rows.get_by_role("link").tap()
        expect(visitor.rows.first).to_be_hidden()
        expect(visitor.messages).to_have_count(2)
        assert widest_scroll_width(page) <= 320
        for part in ("#box", "#send", ".message.user .text", ".message.assistant .text"):
            rectangle = page.locator(part).bounding_box()
            assert rectangle
            assert rectangle["x"] >= 0
            assert rectangle["x"] + rectangle["width"] <= 320
        page.get_by_role("button", name="Conversations").tap()
        visitor.rows.get_by_role("button").tap()
        page.get_by_role("menuitem", name="Pin").tap()
        page.get_by_role("button", name="Close the list").tap()
        page.get_by_role("button", name="More for this conversation").tap()
        rename = page.get_by_role("menuitem", name="Rename")
        expect(rename).to_be_visible()
        heights = {
            item.evaluate("item => item.clientHeight")
            for item in page.get_by_role("menuitem").all()
        }
        assert len(heights) == 1, "a label is wrapped"
        rename.tap()
        page.get_by_role("textbox", name="Its title").fill("A trip")
        page.get_by_role("button", name="Save").tap()
        expect(visitor.heading).to_have_text("A trip")
    finally:
        context.close()


def widest_scroll_width(page: Page) -> int:
    width: int = page.evaluate(
        "Math.max(...['html', 'body', '#scroller'].map(s => document.querySelector(s).scrollWidth))"
    )
    return width


def test_the_page_follows_the_systems_color_scheme(visitor: Visitor) -> None:
    visitor.page.emulate_media(color_scheme="light")
    visitor.page.goto(visitor.url)
    brightness = """() => {
      const style = getComputedStyle(document.body);
      const sum = (color) => color.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + +b, 0);
      return sum(style.backgroundColor) - sum(style.color);
    }"""
    assert visitor.page.evaluate(brightness) > 500
    visitor.page.emulate_media(color_scheme="dark")
    assert visitor.page.evaluate(brightness) < -500


# Requests and events


def test_the_page_sends_requests_only_to_its_server(visitor: Visitor) -> None:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.visit(as_user=new_user())
    visitor.send("Hello, please load https://example.invalid/image.png")
    visitor.page.reload()
    expect(visitor.messages).to_have_count(2)
    elsewhere = [url for url in asked if not url.startswith((f"{visitor.url}/", "data:"))]
    assert asked
    assert elsewhere == []


def test_the_content_security_policy_allows_only_the_page(server: Server) -> None:
    response = httpx.get(server.url, headers={"Accept": "text/html"}, trust_env=False)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_events_are_parsed_however_their_bytes_are_split(visitor: Visitor) -> None:
    stream = (
        ": ping\n\n"
        'event: start\r\ndata: {"a": "é🧠"}\r\n\r\n'
        "event: piece\ndata: one\ndata:two\n\n"
        "\n\n: ping\nid: 7\nretry: 5\n\n"
        "data:  no name\r\r"
        "event: no data\n\n"
        "data: cut short"
    )
    visitor.page.goto(visitor.url)
    read = """async ([text, size]) => {
      const { parseEvents } = await import("/page/server.js");
      const bytes = new TextEncoder().encode(text);
      const source = new ReadableStream({
        start(controller) {
          for (let at = 0; at < bytes.length; at += size) {
            controller.enqueue(bytes.slice(at, at + size));
          }
          controller.close();
        },
      });
      const found = [];
      for await (const { name, data } of parseEvents(source)) found.push([name, data]);
      return found;
    }"""
    for size in (1, 2, 3, 5, 7, 1000):
        assert visitor.page.evaluate(read, [stream, size]) == [
            ["start", '{"a": "é🧠"}'],
            ["piece", "one\ntwo"],
            ["message", " no name"],
        ]
