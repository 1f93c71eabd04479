"""The page where users sign in, as somebody in front of a real Chromium meets it."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.http.client import connected, said, someone
from tests.http.test_page import Visitor
from tests.http.tokens import KeyServer, bearer, claims, key_server, token
from tests.serving import Server, StartServer

# Chromium logs each request that is refused.
pytestmark = pytest.mark.console_errors


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyServer]:
    with key_server() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def server(start_server: StartServer, issuer: KeyServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0", **issuer.settings)


class SignedOut(Visitor):
    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, url)
        self.dialog = page.get_by_role("dialog", name="Sign in")
        self.who = page.locator("#who")

    def signs_in(self, text: str) -> None:
        expect(self.dialog).to_be_visible()
        self.dialog.get_by_label("Your token").fill(text)
        self.dialog.get_by_role("button", name="Sign in").click()


@pytest.fixture
def visitor(page: Page, server: Server) -> SignedOut:
    page.goto(server.url)
    return SignedOut(page, server.url)


def test_a_token_signs_in_and_its_owner_finds_their_conversations(visitor: SignedOut) -> None:
    user = someone()
    expect(visitor.dialog).to_contain_text("Sign in")
    visitor.signs_in(f"  {bearer(token(claims(user)))} ")
    expect(visitor.dialog).to_be_hidden()
    expect(visitor.who).to_have_text(user)
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    visitor.says("Hi, I am Bob")
    visitor.says("What is my name?")
    expect(visitor.replies.last).to_contain_text("Bob")
    visitor.page.reload()
    expect(visitor.messages).to_have_count(4)
    expect(visitor.rows).to_have_count(1)
    expect(visitor.dialog).to_be_hidden()


def test_a_token_that_is_refused_is_asked_for_again(visitor: SignedOut) -> None:
    visitor.signs_in(token(claims(exp=int(time.time()) - 3600)))
    expect(visitor.dialog).to_contain_text("The token has expired; sign in again.")
    visitor.signs_in(token(claims(someone())))
    expect(visitor.dialog).to_be_hidden()
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()


def test_who_does_not_sign_in_is_asked_when_they_speak_and_loses_nothing(
    visitor: SignedOut,
) -> None:
    visitor.dialog.get_by_role("button", name="Cancel").click()
    visitor.box.fill("Hi, I am Bob")
    visitor.box.press("Enter")
    visitor.signs_in(token(claims(someone())))
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    expect(visitor.box).to_have_value("Hi, I am Bob")
    visitor.box.press("Enter")
    expect(visitor.replies).to_have_count(1)


def test_the_address_of_a_conversation_opens_it_once_its_owner_has_signed_in(
    page: Page, server: Server
) -> None:
    user = token(claims(someone()))
    with connected(server.url) as client:
        client.headers["Authorization"] = bearer(user)
        place = said(client, "a secret of mine")["conversation_id"]
    visitor = SignedOut(page, server.url)
    visitor.opens(place)
    visitor.signs_in(user)
    expect(visitor.messages.first).to_contain_text("a secret of mine")


def test_another_token_makes_another_user(visitor: SignedOut, server: Server) -> None:
    ann, bob = someone(), someone()
    with connected(server.url) as client:
        client.headers["Authorization"] = bearer(token(claims(ann)))
        said(client, "a secret of mine")
    visitor.signs_in(token(claims(ann)))
    expect(visitor.rows).to_have_count(1)
    visitor.page.get_by_role("button", name="Change").click()
    visitor.signs_in(token(claims(bob)))
    expect(visitor.who).to_have_text(bob)
    expect(visitor.rows).to_have_count(0)


def test_the_token_goes_no_further_than_this_tab(visitor: SignedOut) -> None:
    text = token(claims(someone()))
    visitor.signs_in(text)
    expect(visitor.dialog).to_be_hidden()
    expect(visitor.page.get_by_label("Your token")).to_have_value("")
    assert text not in visitor.page.content()
    assert text not in str(visitor.page.evaluate("JSON.stringify(localStorage)"))
    assert visitor.page.context.cookies() == []
