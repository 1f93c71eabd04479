"""The page signs users in at the issuer (OpenID Connect), in a real Chromium."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.http.client import delete_conversation, open_client, send_message
from tests.http.provider import Provider, open_provider
from tests.http.test_page import Visitor
from tests.http.test_page_accessibility import expect_no_violations
from tests.http.tokens import bearer
from tests.serving import Server, StartServer

# Chromium logs each failed request.
pytestmark = pytest.mark.console_errors

NOT_VALID = "The answer of the sign-in service is not valid."


@pytest.fixture(scope="module")
def opened() -> Iterator[Provider]:
    with open_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def server(start_server: StartServer, opened: Provider) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0", **opened.settings)


@pytest.fixture
def provider(opened: Provider) -> Provider:
    """The issuer as it is by default, with another user for each test."""
    fresh = Provider(opened.url, user=f"bob {uuid4()}")
    for name in vars(fresh):
        if not name.startswith("_"):
            setattr(opened, name, getattr(fresh, name))
    return opened


class OIDCVisitor(Visitor):
    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, url)
        self.dialog = page.get_by_role("dialog", name="Sign in")
        self.who = page.locator("#who")

    def go_to_issuer(self) -> None:
        self.dialog.get_by_role("button", name="Sign in").click()
        expect(self.page).to_have_title("Provider")

    def sign_in(self) -> None:
        self.go_to_issuer()
        self.choose_answer("Sign in")
        expect(self.who).to_contain_text("Builder")

    def choose_answer(self, label: str) -> None:
        self.page.get_by_role("link", name=label, exact=True).click()

    def sign_out(self) -> None:
        self.page.get_by_role("button", name="Settings").click()
        self.page.get_by_role("button", name="Sign out").click()

    def open_tab(self, *, is_copy: bool = False) -> "OIDCVisitor":
        """Open another tab; a copy begins with the storage of this one."""
        with self.page.context.expect_page() as opened:
            features = "" if is_copy else ", '_blank', 'noopener'"
            self.page.evaluate(f"window.open('{self.url}'{features})")
        return OIDCVisitor(opened.value, self.url)

    def stored(self) -> str:
        return str(self.page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])"))


@pytest.fixture
def visitor(page: Page, server: Server, provider: Provider) -> OIDCVisitor:
    page.goto(server.url)
    return OIDCVisitor(page, server.url)


# Signing in


def test_axe_finds_no_fault_where_users_sign_in_and_out(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    visitor.page.emulate_media(reduced_motion="reduce")
    expect(visitor.dialog).to_be_visible()
    expect_no_violations(visitor.page)
    visitor.sign_in()
    visitor.page.get_by_role("button", name="Settings").click()
    expect(
        visitor.page.get_by_text(f"You are signed in as {provider.user.title()}")
    ).to_be_visible()
    expect_no_violations(visitor.page)


def test_a_user_signs_in_at_the_issuer_and_stays_signed_in_after_a_reload(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    expect(visitor.dialog).to_contain_text("Sign in to use this chatbot.")
    visitor.sign_in()
    expect(visitor.who).to_have_text(f"{provider.user.title()} <b>Builder</b>")
    assert visitor.page.url == f"{visitor.url}/"
    visitor.send("Hi, I am Bob")
    visitor.page.reload()
    expect(visitor.messages).to_have_count(2)
    expect(visitor.who).to_contain_text("Builder")
    expect(visitor.dialog).to_be_hidden()
    assert provider.exchanges == 1


def test_the_conversation_in_the_address_and_the_typed_text_are_kept(
    page: Page, server: Server, provider: Provider
) -> None:
    with open_client(server.url) as client:
        client.headers["Authorization"] = bearer(provider.access_token(provider.user))
        conversation_id = send_message(client, "a secret of mine")["conversation_id"]
    visitor = OIDCVisitor(page, server.url)
    visitor.open_conversation(conversation_id)
    visitor.dialog.get_by_role("button", name="Cancel").click()
    visitor.box.fill("What did I say?")
    visitor.box.press("Enter")
    visitor.sign_in()
    expect(visitor.messages.first).to_contain_text("a secret of mine")
    expect(visitor.box).to_have_value("What did I say?")
    visitor.box.press("Enter")
    expect(visitor.replies).to_have_count(2)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Refuse", "You were not signed in: you cancelled, or may not use this chatbot."),
        ("Be busy", "The sign-in service is not available at the moment."),
        ("Reject the scope", "The sign-in service refused this page (invalid_scope)."),
        ("Write anything", "The sign-in service refused this page. Try again"),
        ("Name no issuer", NOT_VALID),
        ("Name another issuer", NOT_VALID),
        ("Change the state", NOT_VALID),
    ],
)
def test_another_answer_of_the_issuer_signs_nobody_in_and_is_explained(
    visitor: OIDCVisitor, provider: Provider, answer: str, words: str
) -> None:
    visitor.dialog.get_by_role("button", name="Cancel").click()
    visitor.box.fill("Hi, I am Bob")
    visitor.box.press("Enter")
    visitor.go_to_issuer()
    visitor.choose_answer(answer)
    expect(visitor.dialog).to_contain_text(words)
    assert visitor.page.url == f"{visitor.url}/"
    expect(visitor.box).to_have_value("Hi, I am Bob")
    assert provider.exchanges == 0
    visitor.sign_in()
    expect(visitor.box).to_have_value("Hi, I am Bob")


def test_a_token_of_another_attempt_signs_nobody_in(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    provider.nonce = "of another attempt"
    visitor.go_to_issuer()
    visitor.choose_answer("Sign in")
    expect(visitor.dialog).to_contain_text(NOT_VALID)
    assert "accessToken" not in visitor.stored()


@pytest.mark.parametrize(
    ("difference", "is_accepted"), [(-240, True), (-360, False)], ids=["minutes", "more"]
)
def test_the_clock_of_the_browser_may_be_some_minutes_ahead(
    visitor: OIDCVisitor, provider: Provider, difference: int, is_accepted: bool
) -> None:
    provider.id_lifetime = difference
    visitor.go_to_issuer()
    visitor.choose_answer("Sign in")
    if is_accepted:
        expect(visitor.who).to_contain_text("Builder")
    else:
        expect(visitor.dialog).to_contain_text(NOT_VALID)


def test_a_page_that_did_not_come_over_https_says_that_it_must(page: Page, server: Server) -> None:
    # As in a browser to which this machine is another one.
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    page.goto(server.url)
    visitor = OIDCVisitor(page, server.url)
    visitor.dialog.get_by_role("button", name="Sign in").click()
    expect(visitor.dialog).to_contain_text("Browsers sign in only over HTTPS.")


def test_an_answer_counts_only_once_and_only_in_its_tab(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    visitor.go_to_issuer()
    link = visitor.page.get_by_role("link", name="Sign in", exact=True)
    address = str(link.get_attribute("href"))
    visitor.choose_answer("Sign in")
    expect(visitor.who).to_contain_text("Builder")
    visitor.page.goto(address)
    expect(visitor.who).to_contain_text("Builder")
    assert visitor.page.url == f"{visitor.url}/"
    assert provider.exchanges == 1
    stored = visitor.stored()
    assert "verifier" not in stored
    visitor.sign_out()
    expect(visitor.dialog).to_be_visible()
    visitor.page.goto(address)
    expect(visitor.dialog).to_contain_text("Sign in to use this chatbot.")
    assert provider.exchanges == 1


def test_the_log_and_the_page_have_no_code_and_no_token(
    visitor: OIDCVisitor, provider: Provider, server: Server
) -> None:
    provider.expires_in = 0
    visitor.sign_in()
    visitor.send("Hi, I am Bob")
    assert len(provider.secrets) >= 7
    for secret in provider.secrets:
        assert secret not in server.log()
        assert secret not in visitor.page.content()
    assert visitor.page.context.cookies() == []
    assert "oken" not in str(visitor.page.evaluate("JSON.stringify(localStorage)"))


# Renewing


def test_tokens_are_renewed_silently_while_tabs_are_open(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    provider.expires_in = 0  # each request needs a new token
    visitor.sign_in()
    new = visitor.open_tab()
    expect(new.who).to_contain_text("Builder")
    copy = visitor.open_tab(is_copy=True)
    expect(copy.who).to_contain_text("Builder")
    tabs = [visitor, new, copy]
    for tab in tabs:
        tab.box.fill("Hi, I am Bob")
    for tab in tabs:
        tab.page.evaluate("document.getElementById('send').click()")
    for tab in tabs:
        expect(tab.replies).to_have_count(1)
        expect(tab.pending).to_have_count(0)
        expect(tab.rows).to_have_count(3)
        expect(tab.dialog).to_be_hidden()
    assert provider.exchanges == 1
    assert provider.renewals > 3
    assert provider.reused == 0


def test_a_token_that_only_the_server_knows_to_be_over_is_renewed(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    provider.lifetime = -3600
    visitor.go_to_issuer()
    provider.lifetime = -3600
    visitor.choose_answer("Sign in")
    expect(visitor.dialog).to_contain_text("The token has expired; sign in again.")
    provider.lifetime = 3600
    visitor.page.reload()
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    expect(visitor.dialog).to_be_hidden()
    assert provider.exchanges == 1


@pytest.mark.parametrize("renews", [True, False], ids=["revoked", "never given"])
def test_a_user_whose_sign_in_ends_signs_in_again_and_loses_no_text(
    visitor: OIDCVisitor, provider: Provider, renews: bool
) -> None:
    provider.renews, provider.expires_in = renews, 0
    visitor.go_to_issuer()
    if not renews:
        provider.expires_in = 3600
    visitor.choose_answer("Sign in")
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    provider.revoke()
    if not renews:
        end = "const s = JSON.parse(sessionStorage['chatledger.session']); s.renewAt = 0;"
        visitor.page.evaluate(f"{end} sessionStorage['chatledger.session'] = JSON.stringify(s)")
    visitor.box.fill("Hi, I am Bob")
    visitor.box.press("Enter")
    expect(visitor.dialog).to_contain_text("Your sign-in has ended.")
    expect(visitor.box).to_have_value("Hi, I am Bob")
    provider.expires_in = 3600
    visitor.sign_in()
    expect(visitor.box).to_have_value("Hi, I am Bob")
    visitor.box.press("Enter")
    expect(visitor.replies).to_have_count(1)


def test_one_sign_in_is_enough_for_all_tabs_whose_sign_in_has_ended(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    provider.expires_in = 0
    visitor.sign_in()
    other = visitor.open_tab()
    tabs = {"one": visitor, "two": other}
    for tab in tabs.values():
        expect(tab.page.get_by_text("No conversations yet.")).to_be_visible()
    provider.revoke()
    for text, tab in tabs.items():
        tab.box.fill(text)
        tab.box.press("Enter")
    for tab in tabs.values():
        expect(tab.dialog).to_contain_text("Your sign-in has ended.")
    provider.expires_in = 3600
    visitor.sign_in()
    expect(other.dialog).to_be_hidden()
    for text, tab in tabs.items():
        expect(tab.notice).to_be_empty()
        expect(tab.box).to_have_value(text)
    other.box.press("Enter")
    expect(other.replies).to_have_count(1)
    assert provider.exchanges == 2


def test_another_user_does_not_get_the_text_of_the_one_whose_sign_in_ended(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    provider.expires_in = 0
    visitor.sign_in()
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    provider.revoke()
    visitor.box.fill("a secret of Bob's")
    visitor.box.press("Enter")
    expect(visitor.dialog).to_contain_text("Your sign-in has ended.")
    provider.user = f"ann {uuid4()}"
    visitor.go_to_issuer()
    visitor.choose_answer("Sign in")
    expect(visitor.who).to_contain_text("Ann")
    expect(visitor.box).to_be_empty()


def test_while_the_issuer_fails_the_user_stays_signed_in(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    provider.expires_in = 0
    visitor.sign_in()
    expect(visitor.page.get_by_text("No conversations yet.")).to_be_visible()
    provider.failure = (503, {"error": "temporarily_unavailable"})
    visitor.box.fill("Hi, I am Bob")
    visitor.box.press("Enter")
    expect(visitor.notice).to_contain_text("The sign-in service is not available at the moment.")
    expect(visitor.box).to_have_value("Hi, I am Bob")
    expect(visitor.dialog).to_be_hidden()
    provider.failure = None
    visitor.box.press("Enter")
    expect(visitor.replies).to_have_count(1)


def test_a_message_to_a_conversation_deleted_on_another_device_can_be_sent_as_a_new_one(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    visitor.sign_in()
    visitor.send("Hi, I am Bob")
    with open_client(visitor.url) as client:
        client.headers["Authorization"] = bearer(provider.access_token(provider.user))
        delete_conversation(client, visitor.page.url.partition("#c=")[2])
    visitor.box.fill("What is my name?")
    visitor.box.press("Enter")
    expect(visitor.notice).to_contain_text("There is no such conversation.")
    expect(visitor.messages).to_have_count(0)
    expect(visitor.box).to_have_value("What is my name?")
    visitor.box.press("Enter")
    expect(visitor.messages).to_have_count(2)
    expect(visitor.rows).to_have_count(1)


# Signing out


def test_signing_out_ends_all_tabs_and_the_session_at_the_issuer(
    visitor: OIDCVisitor, provider: Provider
) -> None:
    visitor.sign_in()
    visitor.send("a secret of mine")
    other = visitor.open_tab()
    expect(other.rows).to_have_count(1)
    other.box.fill("not sent yet")
    visitor.sign_out()
    for tab in (visitor, other):
        expect(tab.dialog).to_contain_text("Sign in to use this chatbot.")
        expect(tab.rows).to_have_count(0)
        expect(tab.messages).to_have_count(0)
        assert not any(secret in tab.stored() for secret in provider.secrets)
        assert "not sent yet" not in tab.stored()
    (ended,) = provider.ended
    assert ended["id_token_hint"] in provider.secrets
    assert ended["post_logout_redirect_uri"] == f"{visitor.url}/"
    visitor.sign_in()
    expect(other.dialog).to_be_hidden()
    expect(other.rows).to_have_count(1)


def test_without_an_end_of_sessions_at_the_issuer_signing_out_is_local(
    page: Page, start_server: StartServer
) -> None:
    with open_provider() as provider:
        provider.has_end_session = False
        server = start_server(CHATLEDGER_OFFLINE_PACE="0", **provider.settings)
        page.goto(server.url)
        visitor = OIDCVisitor(page, server.url)
        visitor.sign_in()
        visitor.send("a secret of mine")
        visitor.sign_out()
        expect(visitor.dialog).to_contain_text("Sign in to use this chatbot.")
        assert visitor.page.url == f"{visitor.url}/"
        expect(visitor.messages).to_have_count(0)
        assert not any(secret in visitor.stored() for secret in provider.secrets)
        server.kill()
