"""The page in Chromium: replies that outlive it, and replies, messages and titles that change."""

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.http.client import (
    conversation_path,
    create_conversation,
    delete_conversation,
    new_user,
    open_client,
    read_conversation,
    send_message,
    transcript,
)
from tests.http.test_page import LONG_QUESTION, SLOWLY, Visitor
from tests.serving import Server, StartServer


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


@pytest.fixture(scope="module")
def slow_server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=SLOWLY)


@pytest.fixture
def visitor(page: Page, server: Server) -> Visitor:
    return Visitor(page, server.url)


def stored_in(visitor: Visitor) -> list[tuple[str, str]]:
    """Return the roles and texts of the conversation that is shown, as the server has it."""
    with open_client(visitor.url) as client:
        conversation_id = visitor.page.url.partition("#c=")[2]
        return transcript(read_conversation(client, conversation_id))


def start_slow_reply(page: Page, server: Server) -> Visitor:
    visitor = Visitor(page, server.url).visit(as_user=new_user())
    visitor.box.fill(LONG_QUESTION)
    visitor.box.press("Enter")
    expect(visitor.pending.locator(".text")).to_contain_text(re.compile(r"\w+ \w+"))
    return visitor


def test_a_reply_is_complete_although_the_page_was_reloaded(
    page: Page, slow_server: Server
) -> None:
    visitor = start_slow_reply(page, slow_server)
    for _ in range(3):
        page.reload()
        expect(visitor.pending.locator(".text")).to_contain_text(re.compile(r"\w+ \w+"))
        expect(visitor.messages).to_have_count(2)
    expect(visitor.pending).to_have_count(0, timeout=30_000)
    expect(visitor.notice).to_be_empty()
    _, (role, text) = stored_in(visitor)
    assert role == "assistant"
    expect(visitor.replies.last.locator(".text")).to_have_text(" ".join(text.split()))


def test_a_second_tab_shows_the_reply_and_can_stop_it(page: Page, slow_server: Server) -> None:
    visitor = start_slow_reply(page, slow_server)
    tab = page.context.new_page()
    other = Visitor(tab, slow_server.url)
    tab.goto(page.url)
    expect(other.pending.locator(".text")).to_contain_text(re.compile(r"\w+ \w+"))
    other.stop.click()
    for each in (visitor, other):
        expect(each.pending).to_have_count(0)
        expect(each.replies.last).to_contain_text("Stopped")
    _, (_, text) = stored_in(visitor)
    expect(visitor.replies.last.locator(".text")).to_have_text(" ".join(text.split()))
    tab.close()


def test_the_last_reply_is_regenerated(visitor: Visitor) -> None:
    visitor.visit(as_user=new_user())
    visitor.send("Hello")
    visitor.send("What is my name?")
    regenerate = visitor.page.get_by_role("button", name="Regenerate")
    expect(regenerate).to_have_count(1)
    first = visitor.page.locator(".message.assistant").last.element_handle()
    regenerate.press("Enter")
    visitor.page.wait_for_function("element => !element.isConnected", arg=first)
    expect(visitor.box).to_be_focused()
    expect(visitor.pending).to_have_count(0)
    expect(visitor.messages).to_have_count(4)
    assert len(stored_in(visitor)) == 4


def test_a_message_is_edited_and_the_former_branch_is_a_click_away(visitor: Visitor) -> None:
    page = visitor.visit(as_user=new_user()).page
    visitor.send("Hi, I am Bob")
    visitor.send("What is my name?")
    before = stored_in(visitor)
    visitor.messages.first.get_by_role("button", name="Edit").click()
    box = page.get_by_role("textbox", name="The message")
    expect(box).to_have_value("Hi, I am Bob")
    box.fill("Hi, I am Ann")
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(visitor.messages).to_have_count(2)
    expect(visitor.replies.last).to_contain_text("Ann")
    assert [text for role, text in stored_in(visitor) if role == "user"] == ["Hi, I am Ann"]
    page.reload()
    page.get_by_role("link", name="Before the edit").press("Enter")
    expect(visitor.messages).to_have_count(4)
    expect(visitor.box).to_be_focused()
    assert stored_in(visitor) == before


def test_a_conversation_is_renamed(visitor: Visitor) -> None:
    page = visitor.visit(as_user=new_user()).page
    expect(page.get_by_role("button", name="Rename")).to_be_hidden()
    visitor.send("Hello")
    page.get_by_role("button", name="Rename").click()
    title = page.get_by_role("textbox", name="Its title")
    title.fill("  ")
    page.get_by_role("button", name="Save").click()
    expect(title).to_be_visible()
    title.fill("A trip to <b>Bergen</b>")
    page.get_by_role("button", name="Save").click()
    expect(visitor.heading).to_have_text("A trip to <b>Bergen</b>")
    expect(visitor.rows.first).to_contain_text("A trip to <b>Bergen</b>")
    page.reload()
    expect(visitor.heading).to_have_text("A trip to <b>Bergen</b>")


def test_a_message_without_a_reply_is_tried_again(visitor: Visitor) -> None:
    user = new_user()
    page = visitor.visit(as_user=user).page
    visitor.send("Hi, I am Bob")
    conversation_id = page.url.partition("#c=")[2]
    with open_client(visitor.url) as client:
        # A copy that ends with the question.
        seq = read_conversation(client, conversation_id)["messages"][0]["seq"]
        path = f"{conversation_path(conversation_id)}/fork"
        copy = client.post(path, json={"at": seq}).json()["conversation_id"]
        create_conversation(client, user_id=user)
    visitor.open_conversation(copy)
    expect(visitor.notice).to_contain_text("There is no reply to the last message.")
    page.get_by_role("button", name="Try again").click()
    expect(visitor.replies).to_have_count(1)
    expect(visitor.replies.last).to_contain_text("Bob")
    expect(visitor.notice).to_be_empty()


def test_a_reply_is_not_regenerated_if_another_device_has_added_messages(visitor: Visitor) -> None:
    user = new_user()
    page = visitor.visit(as_user=user).page
    visitor.send("Hello")
    visitor.send("What is my name?")
    page.reload()
    expect(visitor.messages).to_have_count(4)
    with open_client(visitor.url) as client:
        send_message(
            client, "Hi from my phone", user_id=user, conversation_id=page.url.partition("#c=")[2]
        )
    before = stored_in(visitor)
    visitor.replies.last.hover()
    page.get_by_role("button", name="Regenerate").click()
    expect(visitor.notice).to_contain_text("changed on another device")
    expect(visitor.messages).to_have_count(6)
    assert stored_in(visitor) == before


def delete_elsewhere(visitor: Visitor, user: str) -> None:
    with open_client(visitor.url) as client:
        delete_conversation(client, visitor.page.url.partition("#c=")[2], user_id=user)


@pytest.mark.parametrize("loaded", [False, True], ids=["as sent", "as loaded"])
def test_a_message_to_a_conversation_deleted_on_another_device_begins_it_anew(
    visitor: Visitor, loaded: bool
) -> None:
    user = new_user()
    visitor.visit(as_user=user).send("Hi, I am Bob")
    visitor.send("Hello")
    expect(visitor.page.get_by_text("tokens in")).to_have_count(2)
    if loaded:
        visitor.page.reload()
        expect(visitor.messages).to_have_count(4)
    delete_elsewhere(visitor, user)
    visitor.box.fill("What is my name?")
    visitor.box.press("Enter")
    expect(visitor.notice).to_contain_text("had been deleted on another device")
    expect(visitor.messages).to_have_count(2)
    expect(visitor.pending).to_have_count(0)
    expect(visitor.messages.first).to_contain_text("What is my name?")
    assert len(stored_in(visitor)) == 2


@pytest.mark.console_errors
def test_a_conversation_deleted_on_another_device_leaves_the_page_when_it_is_missed(
    visitor: Visitor,
) -> None:
    user = new_user()
    page = visitor.visit(as_user=user).page
    for action in ("Regenerate", "Edit"):
        page.get_by_role("button", name="New conversation", exact=True).click()
        visitor.send("Hello")
        delete_elsewhere(visitor, user)
        page.get_by_role("button", name=action).click()
        if action == "Edit":
            page.get_by_role("textbox", name="The message").fill("Hello again")
            page.get_by_role("dialog").get_by_role("button", name="Send").click()
        expect(visitor.notice).to_contain_text("There is no such conversation.")
        expect(visitor.messages).to_have_count(0)
    expect(visitor.box).to_have_value("Hello again")


def test_a_dialog_closes_when_another_conversation_is_shown(visitor: Visitor) -> None:
    page = visitor.visit(as_user=new_user()).page
    visitor.send("Hello")
    visitor.messages.first.get_by_role("button", name="Edit").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(visitor.messages).to_have_count(0)
    expect(visitor.box).to_be_focused()


@pytest.mark.console_errors
def test_a_reply_goes_on_when_the_browser_is_online_again(visitor: Visitor) -> None:
    page = visitor.visit(as_user=new_user()).page
    page.clock.install()

    def break_off(route: Route) -> None:
        response = route.fetch()
        page.context.set_offline(True)
        first, second, _ = response.text().split("\n\n", 2)
        route.fulfill(response=response, body=f"{first}\n\n{second}\n\n")

    page.route("**/chat/stream", break_off)
    visitor.box.fill("Hi, I am Bob")
    visitor.box.press("Enter")
    expect(visitor.pending.locator(".text")).not_to_be_empty()
    for _ in range(10):  # more than the page connects again
        page.clock.fast_forward(10_000)
        page.evaluate("fetch('health').catch(() => {})")
    expect(visitor.pending).to_have_count(1)
    page.context.set_offline(False)
    expect(visitor.pending).to_have_count(0)
    expect(visitor.notice).to_be_empty()
    _, (_, text) = stored_in(visitor)
    expect(visitor.replies.locator(".text")).to_have_text(" ".join(text.split()))


@pytest.mark.console_errors
def test_an_edit_that_is_refused_is_not_lost(visitor: Visitor) -> None:
    user = new_user()
    page = visitor.visit(as_user=user).page
    visitor.send("Hello")
    with open_client(visitor.url) as client:
        path = conversation_path(page.url.partition("#c=")[2])
        seq = read_conversation(client, page.url.partition("#c=")[2])["messages"][0]["seq"]
        changed = {"message": "Hello from my phone", "user_id": user}
        assert client.put(f"{path}/messages/{seq}", json=changed).status_code == 200
    visitor.messages.first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="The message").fill("Hello, I am Bob")
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(visitor.notice).to_contain_text("The message was not changed.")
    expect(visitor.box).to_have_value("Hello, I am Bob")
    page.reload()
    expect(visitor.box).to_have_value("Hello, I am Bob")


@pytest.mark.console_errors
def test_tabs_that_send_at_the_same_time_both_show_all_messages(
    page: Page, slow_server: Server
) -> None:
    visitor = start_slow_reply(page, slow_server)
    expect(visitor.pending).to_have_count(0, timeout=30_000)
    tab = page.context.new_page()
    other = Visitor(tab, slow_server.url)
    tab.goto(page.url)
    expect(other.messages).to_have_count(2)
    held: list[Route] = []  # the request of the other tab, until the message of the first is stored
    tab.route("**/chat/stream", lambda route: held.append(route), times=1)
    for each, text in ((other, "Hi from there"), (visitor, "Hi from here")):
        each.box.fill(text)
        each.box.press("Enter")
        expect(each.pending).to_have_count(1)
    expect(visitor.stop).to_be_visible()
    [request] = held
    request.continue_()
    for each in (visitor, other):
        expect(each.messages).to_have_count(6, timeout=30_000)
        expect(each.pending).to_have_count(0)
    tab.close()
