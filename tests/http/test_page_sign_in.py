"""The page of a server with sign-in, in a real Chromium."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.http.client import new_user, open_client, send_message
from tests.http.test_page import Visitor
from tests.http.tokens import KeyServer, bearer, claims, key_server, token
from tests.serving import Server, StartServer

# Chromium logs each failed request.
pytestmark = pytest.mark.console_errors


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyServer]:
    with key_server() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def server(start_server: StartServer, issuer: KeyServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0", **issuer.settings)


class SignInVisitor(Visitor):
    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, url)
        self.dialog = page.get_by_role("dialog", name="Sign in")
        self.who = page.locator("#who")

    def sign_in(self, text: str) -> None:
        expect(self.dialog).to_be_visible()
        self.dialog.get_by_label("Your token").fill(text)
        self.dialog.get_by_role("button", name="Sign in").click()


@pytest.fixture
def visitor(page: Page, server: Server) -> SignInVisitor:
    page.goto(server.url)
    return SignInVisitor(page, server.url)


def test_a_user_signs_in_with_a_token_and_finds_their_conversations(visitor: SignInVisitor) -> None:
    user = new_user()
    expect(visitor.dialog).to_contain_text("Sign in")
    visitor.sign_in(f"  {bearer(token(claims(user)))} ")
    expect(visitor.dialog).to_be_hidden()
    expect(visitor.who).to_have_text(user)
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    visitor.send("Hi, I am Bob")
    visitor.send("What is my name?")
    expect(visitor.replies.last).to_contain_text("Bob")
    visitor.page.reload()
    expect(visitor.messages).to_have_count(4)
    expect(visitor.rows).to_have_count(1)
    expect(visitor.dialog).to_be_hidden()


def test_a_page_that_asks_for_tokens_loads_nothing_for_another_way_to_sign_in(
    page: Page, server: Server
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    visitor = SignInVisitor(page, server.url)
    visitor.sign_in(token(claims(new_user())))
    visitor.send("Hi, I am Bob")
    assert f"{server.url}/page/page.js" in asked
    assert not [url for url in asked if "oidc" in url or "oauth" in url]


def test_the_page_asks_again_after_an_invalid_token(visitor: SignInVisitor) -> None:
    visitor.sign_in(token(claims(exp=int(time.time()) - 3600)))
    expect(visitor.dialog).to_contain_text("The token has expired; sign in again.")
    visitor.sign_in(token(claims(new_user())))
    expect(visitor.dialog).to_be_hidden()
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()


def test_a_user_who_skips_sign_in_is_asked_on_sending_and_loses_no_text(
    visitor: SignInVisitor,
) -> None:
    visitor.dialog.get_by_role("button", name="Cancel").click()
    visitor.box.fill("Hi, I am Bob")
    visitor.box.press("Enter")
    visitor.sign_in(token(claims(new_user())))
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    expect(visitor.box).to_have_value("Hi, I am Bob")
    visitor.box.press("Enter")
    expect(visitor.replies).to_have_count(1)


def test_the_address_of_a_conversation_opens_it_after_sign_in(page: Page, server: Server) -> None:
    user = token(claims(new_user()))
    with open_client(server.url) as client:
        client.headers["Authorization"] = bearer(user)
        conversation_id = send_message(client, "a secret of mine")["conversation_id"]
    visitor = SignInVisitor(page, server.url)
    visitor.open_conversation(conversation_id)
    visitor.sign_in(user)
    expect(visitor.messages.first).to_contain_text("a secret of mine")


def test_another_token_switches_the_user(visitor: SignInVisitor, server: Server) -> None:
    ann, bob = new_user(), new_user()
    with open_client(server.url) as client:
        client.headers["Authorization"] = bearer(token(claims(ann)))
        send_message(client, "a secret of mine")
    visitor.sign_in(token(claims(ann)))
    expect(visitor.rows).to_have_count(1)
    visitor.page.get_by_role("button", name="Settings").click()
    visitor.page.get_by_role("button", name="Switch user").click()
    visitor.sign_in(token(claims(bob)))
    expect(visitor.who).to_have_text(bob)
    expect(visitor.rows).to_have_count(0)


def test_the_token_stays_in_its_tab(visitor: SignInVisitor) -> None:
    text = token(claims(new_user()))
    visitor.sign_in(text)
    expect(visitor.dialog).to_be_hidden()
    expect(visitor.page.get_by_label("Your token")).to_have_value("")
    assert text not in visitor.page.content()
    assert text not in str(visitor.page.evaluate("JSON.stringify(localStorage)"))
    assert visitor.page.context.cookies() == []
