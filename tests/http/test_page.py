"""The page at ``/``, as somebody in front of a real Chromium meets it, over a real server."""

import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.http.client import connected, created, said, someone
from tests.serving import Server, StartServer

AT_ONCE, SLOWLY = "0", "0.1"
"""Seconds that the model takes for a word; slowly where somebody wants to interrupt it."""
LONG_QUESTION = "Hi, I am Bob and I would like to hear all that you can do"
"""What the offline model answers in some 50 words."""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=AT_ONCE)


@pytest.fixture(scope="module")
def slow_server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=SLOWLY)


@pytest.fixture
def url(server: Server) -> str:
    return server.url


class Visitor:
    """What somebody does on the page, and where they look."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.box = page.get_by_role("textbox", name="Your message")
        self.messages = page.locator(".message")
        self.replies = page.locator(".message.assistant")
        self.being_written = page.locator(".message.replying")
        self.rows = page.get_by_role("navigation").get_by_role("listitem")
        self.notice = page.get_by_role("alert")
        self.stop = page.get_by_role("button", name="Stop")
        self.heading = page.get_by_role("heading", level=1)

    def comes(self, *, as_user: str) -> "Visitor":
        self.page.goto(self.url)
        self.becomes(as_user)
        return self

    def opens(self, place: str) -> None:
        self.page.goto(f"{self.url}/#{address(place)}")

    def becomes(self, user: str) -> None:
        self.page.get_by_role("button", name="Change").click()
        self.page.get_by_role("textbox", name="Your name or id").fill(user)
        self.page.get_by_role("button", name="Save").click()
        expect(self.page.locator("#who")).to_have_text(user)

    def says(self, text: str) -> None:
        """Say it and wait for the end of the reply."""
        before = self.replies.count()
        self.box.fill(text)
        self.box.press("Enter")
        expect(self.replies).to_have_count(before + 1)
        expect(self.being_written).to_have_count(0)

    def row(self, title: str) -> Locator:
        return self.rows.filter(has_text=title)

    def focused(self) -> Locator:
        return self.page.locator(":focus")


def address(place: str) -> str:
    """What stands behind the # for a conversation."""
    return f"c={quote(place, safe='')}"


@pytest.fixture
def visitor(page: Page, server: Server) -> Visitor:
    return Visitor(page, server.url)


@pytest.fixture
def patient(page: Page, slow_server: Server) -> Visitor:
    """A visitor to the server whose model takes its time."""
    return Visitor(page, slow_server.url)


def told(client: httpx.Client, user: str, *messages: str, **fields: Any) -> str:
    """A conversation in which the user said ``messages``."""
    for message in messages:
        fields["conversation_id"] = said(client, message, user_id=user, **fields)["conversation_id"]
    place: str = fields["conversation_id"]
    return place


# Talking


def test_a_reply_streams_in(patient: Visitor) -> None:
    patient.comes(as_user=someone())
    patient.box.fill(LONG_QUESTION)
    patient.box.press("Enter")
    expect(patient.box).to_be_empty()
    expect(patient.messages.first).to_contain_text(LONG_QUESTION)
    text = patient.being_written.locator(".text")
    expect(text).not_to_be_empty()
    early = text.inner_text()
    expect(patient.being_written).to_have_count(0)
    whole = patient.replies.last.locator(".text").inner_text()
    assert whole.startswith(early)
    assert len(whole) > len(early)


def test_what_was_said_is_there_after_a_reload(visitor: Visitor) -> None:
    visitor.comes(as_user=someone())
    visitor.says("My boat is called Halibut")
    before = visitor.messages.locator(".text").all_inner_texts()
    visitor.page.reload()
    expect(visitor.messages.locator(".text")).to_have_text(before)


def test_it_is_remembered_after_the_server_was_killed(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE=AT_ONCE)
    visitor = Visitor(page, server.url).comes(as_user=someone())
    visitor.says("Hi, I am Bob")
    place = page.url
    page.goto("about:blank")
    server.restart()
    page.goto(place)
    expect(visitor.messages.first).to_contain_text("Hi, I am Bob")
    visitor.says("What is my name?")
    expect(visitor.replies.last).to_contain_text("Bob")


def test_what_users_write_is_shown_as_text(visitor: Visitor, client: httpx.Client) -> None:
    user = someone()
    attack = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
    created(client, user_id=user, title=attack)
    visitor.comes(as_user=user)
    visitor.says(attack)
    visitor.page.reload()
    expect(visitor.messages.first.locator(".text")).to_have_text(attack)
    expect(visitor.row(attack).first).to_be_visible()
    expect(visitor.page.locator("main img, main li script, nav img, nav script")).to_have_count(0)
    assert visitor.page.evaluate("window.owned") is None


def test_lines_and_spaces_are_kept(visitor: Visitor) -> None:
    visitor.comes(as_user=someone())
    visitor.box.press_sequentially("first")
    visitor.box.press("Shift+Enter")
    visitor.box.press_sequentially("  second")
    expect(visitor.messages).to_have_count(0)
    visitor.box.press("Enter")
    text = visitor.messages.first.locator(".text")
    expect(text).to_be_visible()
    assert text.inner_text() == "first\n  second"


def test_blank_text_is_not_sent(visitor: Visitor) -> None:
    visitor.comes(as_user=someone())
    visitor.box.fill(" \n ")
    visitor.box.press("Enter")
    expect(visitor.box).to_have_value(" \n ")
    expect(visitor.messages).to_have_count(0)


def test_a_stopped_reply_keeps_what_was_said(patient: Visitor) -> None:
    patient.comes(as_user=someone())
    patient.box.fill(LONG_QUESTION)
    patient.box.press("Enter")
    expect(patient.being_written.locator(".text")).not_to_be_empty()
    patient.stop.click()
    expect(patient.being_written).to_have_count(0)
    expect(patient.stop).to_be_hidden()
    expect(patient.replies.last).to_contain_text("Stopped")
    expect(patient.box).to_be_focused()
    seen = patient.replies.last.locator(".text").inner_text()
    with connected(patient.url) as client:
        whole = said(client, LONG_QUESTION, user_id=someone())["response"]
    assert seen
    assert whole.startswith(seen)
    assert seen != whole


def test_a_stopped_reply_is_still_there_later(patient: Visitor) -> None:
    patient.comes(as_user=someone())
    patient.box.fill(LONG_QUESTION)
    patient.box.press("Enter")
    expect(patient.being_written.locator(".text")).not_to_be_empty()
    patient.box.press("Escape")
    expect(patient.being_written).to_have_count(0)
    seen = patient.replies.last.locator(".text").inner_text()
    # Until the server has noticed, the reply is not there to be read.
    patient.page.reload()
    expect(patient.messages.first).to_be_visible()
    again = patient.page.get_by_role("button", name="Look again")
    for _ in range(20):
        if not again.is_visible():
            break
        again.click()
        expect(patient.messages.first).to_be_visible()
    expect(patient.replies).to_have_count(1)
    expect(patient.replies.first).to_contain_text(seen)
    expect(patient.replies.first).to_contain_text("Stopped")


def test_a_reply_goes_on_while_another_conversation_is_shown(patient: Visitor) -> None:
    patient.comes(as_user=someone())
    patient.box.fill(LONG_QUESTION)
    patient.box.press("Enter")
    expect(patient.being_written.locator(".text")).not_to_be_empty()
    patient.page.get_by_role("button", name="New conversation").click()
    expect(patient.messages).to_have_count(0)
    expect(patient.stop).to_be_hidden()
    patient.page.go_back()
    expect(patient.messages).to_have_count(2)
    expect(patient.being_written).to_have_count(0)
    shown = patient.messages.locator(".text").all_inner_texts()
    patient.page.reload()
    expect(patient.messages.locator(".text")).to_have_text(shown)


# Finding conversations again


def test_the_list_shows_newest_activity_first(visitor: Visitor, client: httpx.Client) -> None:
    user = someone()
    apples, pears, plums = (told(client, user, what) for what in ("apples", "pears", "plums"))
    visitor.comes(as_user=user)
    expect(visitor.rows).to_have_count(3)
    assert places(visitor) == [address(place) for place in (plums, pears, apples)]
    visitor.rows.last.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("apples")
    visitor.says("more apples")
    expect(visitor.rows.first.get_by_role("link")).to_have_attribute("href", f"#{address(apples)}")
    assert places(visitor) == [address(place) for place in (apples, plums, pears)]


def places(visitor: Visitor) -> list[str]:
    links = visitor.rows.get_by_role("link").all()
    return [(link.get_attribute("href") or "").removeprefix("#") for link in links]


def test_older_conversations_are_loaded_on_demand(visitor: Visitor, client: httpx.Client) -> None:
    user = someone()
    for n in range(35):
        created(client, user_id=user, title=f"number {n}")
    visitor.comes(as_user=user)
    expect(visitor.rows).to_have_count(30)
    visitor.page.get_by_role("button", name="Older conversations").click()
    expect(visitor.rows).to_have_count(35)
    titles = [row.locator(".title").inner_text() for row in visitor.rows.all()]
    assert titles == [f"number {n}" for n in reversed(range(35))]


def test_back_and_forward_go_from_conversation_to_conversation(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = someone()
    for what in ("apples", "pears"):
        told(client, user, what)
    visitor.comes(as_user=user)
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
    "place", ["a/b/c", "Gespräch 日本語 🧠", "100%25 #c=x&c=y?", "a+b", "../health", "'\"<b>"]
)
def test_a_conversation_opens_whatever_its_id(
    visitor: Visitor, client: httpx.Client, place: str
) -> None:
    user = someone()
    place = f"{place} {user}"
    told(client, user, "apples", conversation_id=place)
    visitor.comes(as_user=user)
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("apples")
    visitor.says("pears")
    visitor.page.reload()
    expect(visitor.messages).to_have_count(4)
    expect(visitor.rows).to_have_count(1)


def test_a_long_history_loads_earlier_messages_and_stays_where_it_was_read(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = someone()
    place = told(client, user, *(f"This is message {n}." for n in range(60)))
    visitor.comes(as_user=user)
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages).to_have_count(50)
    expect(visitor.messages.last).to_be_in_viewport()
    earlier = visitor.page.get_by_role("button", name="Earlier messages")
    for count in (100, 120):
        earlier.scroll_into_view_if_needed()
        reading = visitor.messages.first.element_handle()
        before = reading.bounding_box()
        earlier.click()
        expect(visitor.messages).to_have_count(count)
        expect(visitor.page.locator("#spoken")).to_contain_text("Earlier messages loaded")
        after = reading.bounding_box()
        assert before
        assert after
        assert abs(after["y"] - before["y"]) < 2
    expect(earlier).to_be_hidden()
    said_so_far = visitor.page.locator(".message.user .text").all_inner_texts()
    assert said_so_far == [f"This is message {n}." for n in range(60)]
    assert visitor.page.url.endswith(address(place))


def test_the_end_stays_in_view_unless_one_scrolls_away(patient: Visitor) -> None:
    patient.page.set_viewport_size({"width": 800, "height": 320})
    patient.comes(as_user=someone())
    patient.says("Hello")
    patient.box.fill(LONG_QUESTION)
    patient.box.press("Enter")
    expect(patient.being_written.locator(".text")).not_to_be_empty()
    expect(patient.being_written).to_be_in_viewport()
    expect(patient.messages.first).not_to_be_in_viewport()
    patient.page.locator("#scroller").hover()
    patient.page.mouse.wheel(0, -2000)
    latest = patient.page.get_by_role("button", name="Latest")
    expect(latest).to_be_visible()
    expect(patient.being_written).to_have_count(0)
    expect(patient.replies.last).not_to_be_in_viewport()
    latest.click()
    expect(patient.replies.last).to_be_in_viewport()
    expect(latest).to_be_hidden()


def test_a_deleted_conversation_is_gone(visitor: Visitor, client: httpx.Client) -> None:
    user = someone()
    for title in ("apples", "pears"):
        created(client, user_id=user, title=title)
    visitor.comes(as_user=user)
    visitor.row("apples").get_by_role("link").click()
    expect(visitor.heading).to_have_text("apples")
    visitor.says("I like apples")

    visitor.row("apples").hover()
    visitor.page.get_by_role("button", name="Delete “apples”").click()
    visitor.page.get_by_role("button", name="Keep it").click()
    expect(visitor.rows).to_have_count(2)

    visitor.row("apples").hover()
    visitor.page.get_by_role("button", name="Delete “apples”").click()
    visitor.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(visitor.rows).to_have_count(1)
    expect(visitor.messages).to_have_count(0)
    expect(visitor.row("pears").get_by_role("link")).to_be_focused()
    visitor.page.reload()
    expect(visitor.row("pears")).to_be_visible()
    expect(visitor.row("apples")).to_have_count(0)
    expect(visitor.messages).to_have_count(0)


# Who one is


def test_the_page_gives_itself_a_user_and_keeps_it(visitor: Visitor) -> None:
    visitor.page.goto(visitor.url)
    who = visitor.page.locator("#who")
    expect(who).to_have_text(re.compile(r"^web-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
    name = who.inner_text()
    visitor.says("Hello")
    visitor.page.reload()
    expect(who).to_have_text(name)
    expect(visitor.rows).to_have_count(1)


def test_another_user_sees_nothing_of_it(visitor: Visitor, client: httpx.Client) -> None:
    bob, ann = someone(), someone()
    told(client, bob, "a secret of mine")
    visitor.comes(as_user=bob)
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("a secret of mine")
    visitor.becomes(ann)
    expect(visitor.rows).to_have_count(0)
    expect(visitor.messages).to_have_count(0)
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    expect(visitor.page.get_by_text("a secret of mine")).to_have_count(0)
    visitor.becomes(bob)
    expect(visitor.rows).to_have_count(1)


@pytest.mark.console_errors
def test_the_address_of_a_conversation_opens_it_for_its_owner_alone(
    visitor: Visitor, client: httpx.Client
) -> None:
    bob, ann = someone(), someone()
    place = told(client, bob, "a secret of mine")
    visitor.comes(as_user=ann)
    visitor.opens(place)
    expect(visitor.notice).not_to_be_empty()
    expect(visitor.messages).to_have_count(0)
    visitor.becomes(bob)
    expect(visitor.messages.first).to_contain_text("a secret of mine")
    expect(visitor.notice).to_be_empty()


# When things go wrong


@pytest.mark.console_errors
def test_a_server_that_is_down_is_told_in_words_and_nothing_typed_is_lost(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE=AT_ONCE)
    visitor = Visitor(page, server.url).comes(as_user=someone())
    visitor.says("Hi, I am Bob")
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
def test_a_server_that_dies_in_the_middle_of_a_reply_is_told_in_words(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE=SLOWLY)
    visitor = Visitor(page, server.url).comes(as_user=someone())
    visitor.box.fill(LONG_QUESTION)
    visitor.box.press("Enter")
    expect(visitor.being_written.locator(".text")).not_to_be_empty()
    server.kill()
    expect(visitor.notice).to_contain_text("The connection broke before the reply was complete.")
    expect(visitor.being_written).to_have_count(0)
    expect(visitor.replies.last).to_contain_text("Broke off")
    server.restart()
    page.get_by_role("button", name="Show what was kept").click()
    expect(visitor.messages).to_have_count(1)
    expect(visitor.notice).to_contain_text("There is no reply to the last message yet.")


@pytest.mark.console_errors
def test_what_the_server_refuses_is_told_in_its_words_and_given_back(visitor: Visitor) -> None:
    visitor.comes(as_user=someone())
    too_long = "x" * 300_000
    visitor.box.fill(too_long)
    visitor.box.press("Enter")
    expect(visitor.notice).to_contain_text("What you wrote is back in the box.")
    assert visitor.box.input_value() == too_long
    expect(visitor.messages).to_have_count(0)
    visitor.page.get_by_role("button", name="Dismiss").click()
    expect(visitor.notice).to_be_empty()


def test_what_is_said_to_a_conversation_still_loading_is_said_once_it_is_there(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = someone()
    place = told(client, user, "apples")
    visitor.comes(as_user=user)
    held: list[Route] = []
    visitor.page.route("**/conversations/*", lambda route: held.append(route))
    visitor.opens(place)
    visitor.box.fill("pears")
    visitor.box.press("Enter")
    expect(visitor.box).to_have_value("pears")
    expect(visitor.messages).to_have_count(0)
    for route in held:
        route.continue_()
    expect(visitor.messages).to_have_count(4)
    expect(visitor.box).to_be_empty()


def test_what_is_typed_waits_in_its_conversation(visitor: Visitor, client: httpx.Client) -> None:
    user = someone()
    told(client, user, "apples")
    visitor.comes(as_user=user)
    visitor.box.fill("a new thought")
    visitor.rows.get_by_role("link").click()
    expect(visitor.messages.first).to_contain_text("apples")
    expect(visitor.box).to_be_empty()
    visitor.box.fill("and pears")
    visitor.page.reload()
    expect(visitor.box).to_have_value("and pears")
    visitor.page.get_by_role("button", name="New conversation").click()
    expect(visitor.box).to_have_value("a new thought")


# For everybody


def test_it_works_by_keyboard_alone(visitor: Visitor, client: httpx.Client) -> None:
    user = someone()
    for title in ("apples", "pears"):
        created(client, user_id=user, title=title)
    visitor.comes(as_user=user)
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
    expect(visitor.being_written).to_have_count(0)
    expect(visitor.box).to_be_focused()

    tab_until(visitor, "button", "Delete “apples”")
    keys.press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    keys.press("Tab")
    keys.press("Enter")
    expect(visitor.rows).to_have_count(1)
    expect(visitor.row("pears").get_by_role("link")).to_be_focused()

    tab_until(visitor, "button", "Change")
    keys.press("Enter")
    keys.type(someone())
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
    visitor.comes(as_user=someone())
    visitor.says("Hi, I am Bob")
    spoken = visitor.page.get_by_role("log")
    expect(spoken).to_have_attribute("aria-live", "polite")
    reply = visitor.replies.last.locator(".text").inner_text()
    words = " ".join(spoken.locator("p").all_inner_texts())
    assert reply.split() == words.split()[-len(reply.split()) :]


def test_everything_one_can_press_or_fill_has_a_name(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = someone()
    told(client, user, "apples")
    visitor.comes(as_user=user)
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
        visitor.says("x" * 300 + " " + "https://example.invalid/" + "y" * 300)
        page.get_by_role("button", name="Conversations").tap()
        expect(visitor.rows).to_have_count(1)
        expect(visitor.rows.first).to_be_in_viewport()
        expect(page.get_by_role("button", name="Close the list")).to_be_focused()
        assert widest(page) <= 320
        visitor.rows.get_by_role("link").tap()
        expect(visitor.rows.first).to_be_hidden()
        expect(visitor.messages).to_have_count(2)
        assert widest(page) <= 320
        for part in ("#box", "#send", ".message.user .text", ".message.assistant .text"):
            place = page.locator(part).bounding_box()
            assert place
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= 320
    finally:
        context.close()


def widest(page: Page) -> int:
    width: int = page.evaluate(
        "Math.max(...['html', 'body', '#scroller'].map(s => document.querySelector(s).scrollWidth))"
    )
    return width


def test_it_is_light_or_dark_as_the_system_is(visitor: Visitor) -> None:
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


# What holds of it all


def test_no_request_goes_anywhere_but_to_the_server(visitor: Visitor) -> None:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.comes(as_user=someone())
    visitor.says("Hello, please load https://example.invalid/image.png")
    visitor.page.reload()
    expect(visitor.messages).to_have_count(2)
    elsewhere = [url for url in asked if not url.startswith((f"{visitor.url}/", "data:"))]
    assert asked
    assert elsewhere == []


def test_the_browser_is_told_to_run_nothing_but_the_page(server: Server) -> None:
    response = httpx.get(server.url, headers={"Accept": "text/html"}, trust_env=False)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_events_are_read_whole_however_their_bytes_are_cut(visitor: Visitor) -> None:
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
      const { events } = await import("/page/server.js");
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
      for await (const { name, data } of events(source)) found.push([name, data]);
      return found;
    }"""
    for size in (1, 2, 3, 5, 7, 1000):
        assert visitor.page.evaluate(read, [stream, size]) == [
            ["start", '{"a": "é🧠"}'],
            ["piece", "one\ntwo"],
            ["message", " no name"],
        ]
