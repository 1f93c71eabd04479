"""The settings of the page, in a real Chromium, served by a real server."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.http.client import create_conversation, new_user
from tests.http.test_page import QUICKLY, Visitor
from tests.serving import Server, StartServer

LIGHT, DARK = "rgb(252, 252, 250)", "rgb(22, 26, 24)"
"""The page's background in each theme."""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=QUICKLY)


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def visitor(page: Page, server: Server) -> Visitor:
    return Visitor(page, server.url)


def test_conversations_of_a_former_name_can_be_reached_again(visitor: Visitor) -> None:
    page = visitor.page
    page.goto(visitor.url)
    visitor.send("Hi, I am Bob")
    made_up, ann = page.locator("#who").inner_text(), new_user()
    visitor.switch_user(ann)
    expect(visitor.rows).to_have_count(0)
    expect(visitor.notice).to_contain_text(f"Conversations of {made_up} stay under that name.")
    visitor.send("Hi, I am Ann")

    page.reload()
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name=f"Switch back to {made_up}").click()
    expect(visitor.rows).to_have_text(["Hi, I am Bob"])
    expect(visitor.notice).to_contain_text(f"Conversations of {ann} stay under that name.")
    visitor.notice.get_by_role("button", name="Switch back").click()
    expect(visitor.rows).to_have_text(["Hi, I am Ann"])


def test_a_name_without_conversations_is_not_remembered(
    visitor: Visitor, client: httpx.Client
) -> None:
    user = new_user()
    create_conversation(client, user_id=user, title="apples")
    page = visitor.visit(as_user=new_user()).page
    with page.expect_response(re.compile(r"conversations\?.*limit=1$")):
        visitor.switch_user(user)
    expect(visitor.rows).to_have_count(1)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("heading", name="Former names")).to_be_hidden()
    expect(visitor.notice).to_be_empty()


def test_the_theme_is_the_users_choice_and_stays(visitor: Visitor) -> None:
    page = visitor.page
    page.emulate_media(color_scheme="light")
    page.goto(visitor.url)
    tab = page.context.new_page()
    tab.emulate_media(color_scheme="light")
    tab.goto(visitor.url)
    page.bring_to_front()  # Chromium slows down the tabs in the background
    expect(page.locator("body")).to_have_css("background-color", LIGHT)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("radio", name="System")).to_be_checked()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Dark")).to_be_checked()
    for each in (page, tab):
        expect(each.locator("body")).to_have_css("background-color", DARK)
    page.reload()
    expect(page.locator("body")).to_have_css("background-color", DARK)
    page.get_by_role("button", name="Settings").click()
    page.get_by_text("System", exact=True).click()
    expect(page.locator("body")).to_have_css("background-color", LIGHT)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("body")).to_have_css("background-color", DARK)
    tab.close()
