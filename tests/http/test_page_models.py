"""The page when the model fails, in a real Chromium, served by a real server."""

import re

import pytest
from playwright.sync_api import Page, expect

from chatledger.testing.bedrock_server import (
    BedrockServer,
    DropsConnection,
    Fails,
    Says,
    ScriptedResponse,
)
from tests.http.client import new_user
from tests.http.test_page import Visitor
from tests.serving import Server, StartServer

SECRET = "what the service says of the prompt"


@pytest.fixture(scope="module")
def server(start_server: StartServer, bedrock: BedrockServer) -> Server:
    return start_server(CHATLEDGER_MODEL="bedrock:amazon.nova-lite-v1:0", **bedrock.environment)


@pytest.fixture
def visitor(page: Page, server: Server, bedrock: BedrockServer) -> Visitor:
    bedrock.reset()
    return Visitor(page, server.url).visit(as_user=new_user())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fails("AccessDeniedException", SECRET), "The model does not accept this conversation"),
        (DropsConnection(after=2), "The model is not available; try again later."),
    ],
    ids=["refused", "broken off"],
)
def test_the_page_explains_a_model_error_and_the_next_message_is_answered(
    visitor: Visitor, bedrock: BedrockServer, fault: ScriptedResponse, words: str
) -> None:
    bedrock.script(fault, Says("Here I am again."))
    visitor.send("Hi, I am Bob")
    expect(visitor.notice).to_contain_text(words)
    expect(visitor.page.locator("body")).not_to_contain_text(SECRET)
    expect(visitor.messages.first).to_contain_text("Hi, I am Bob")
    visitor.send("Are you there?")
    expect(visitor.replies.last).to_contain_text("Here I am again.")
    expect(visitor.notice).to_be_empty()


@pytest.mark.parametrize("reloaded", [False, True], ids=["at once", "after a reload"])
@pytest.mark.parametrize(
    "fault", [Fails("AccessDeniedException", SECRET), DropsConnection(after=2)], ids=["", "partial"]
)
def test_a_message_sent_again_after_a_failed_reply_is_shown_once(
    visitor: Visitor, bedrock: BedrockServer, fault: ScriptedResponse, reloaded: bool
) -> None:
    bedrock.script(Says("Hello."), fault, Says("You are Bob."))
    visitor.send("Hi, I am Bob")
    visitor.send("Who am I?")
    expect(visitor.notice).not_to_be_empty()
    if reloaded:
        visitor.page.reload()
        expect(visitor.page.get_by_text("Who am I?")).to_be_visible()
    visitor.box.fill("Who am I?")
    visitor.box.press("Enter")
    expect(visitor.replies.last).to_contain_text("You are Bob.")
    expect(visitor.pending).to_have_count(0)
    texts = ["Hi, I am Bob", "Hello.", "Who am I?", "You are Bob."]
    expect(visitor.messages.locator(".text")).to_have_text(texts)
    visitor.page.reload()
    expect(visitor.messages.locator(".text")).to_have_text(texts)


def test_a_reply_stays_if_the_model_has_no_other_one(
    visitor: Visitor, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello."), Fails("AccessDeniedException", SECRET), Says("Good day."))
    visitor.send("Hi")
    visitor.page.get_by_role("button", name="Regenerate").click()
    expect(visitor.notice).to_contain_text("The model does not accept this conversation")
    expect(visitor.messages.locator(".text")).to_have_text(["Hi", "Hello."])
    visitor.notice.get_by_role("button", name="Try again").click()
    expect(visitor.messages.locator(".text")).to_have_text(["Hi", "Good day."])
    expect(visitor.notice).to_be_empty()


def test_the_page_says_why_a_reply_was_cut_short(visitor: Visitor, bedrock: BedrockServer) -> None:
    bedrock.script(Says("Once upon a", stop_reason="max_tokens"))
    visitor.send("Tell me a story")
    expect(visitor.replies.last).to_contain_text("Cut off at the length limit")


@pytest.mark.console_errors
def test_a_message_over_the_limit_can_be_sent_again_when_the_server_said(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_TURNS_A_MINUTE="1")
    page.clock.install()
    visitor = Visitor(page, server.url).visit(as_user=new_user())
    visitor.send("Hi, I am Bob")
    visitor.box.fill("What is my name?")
    visitor.box.press("Enter")
    expect(visitor.notice).to_contain_text("Your message is back in the box.")
    again = visitor.notice.get_by_role("button", name="Try again")
    expect(again).to_be_disabled()
    expect(again).to_have_text(re.compile(r"^Try again in \d+ s$"))
    page.clock.fast_forward(60_000)
    expect(again).to_be_enabled()
    expect(again).to_have_text("Try again")
    with page.expect_request("**/chat/stream") as sent:
        again.click()
    assert "What is my name?" in (sent.value.post_data or "")
