"""What the user of the page chooses for a conversation, in a real Chromium: its model
and its system prompt."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, Response, expect

from chatledger import Store, open_store
from chatledger.testing.bedrock_server import BedrockServer, Says
from tests.http.client import conversation_ids, list_conversations, new_user
from tests.http.test_page import Visitor, address
from tests.http.test_page_list import metadata_of, store_conversation
from tests.serving import Server, StartServer

NOVA = "bedrock:amazon.nova-lite-v1:0"


@pytest.fixture(scope="module")
def server(start_server: StartServer, bedrock: BedrockServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_MODELS=NOVA, **bedrock.environment)


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    with open_store(f"sqlite:///{server.folder / 'chatledger.db'}") as store:
        yield store


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def visitor(page: Page, server: Server, bedrock: BedrockServer) -> Visitor:
    bedrock.reset()
    return Visitor(page, server.url)


def test_the_chosen_model_writes_all_replies_of_the_conversation(
    visitor: Visitor, bedrock: BedrockServer, client: httpx.Client
) -> None:
    bedrock.script(Says("The first."), Says("The second."), Says("The third."), Says("The last."))
    user = new_user()
    page = visitor.visit(as_user=user).page
    picker = page.get_by_role("combobox", name="Model")
    expect(picker).to_have_value("offline")
    picker.select_option(NOVA)
    visitor.send("Hi, I am Bob")
    expect(visitor.replies.last).to_contain_text("The first.")
    visitor.choose("Pin", "Hi, I am Bob")
    expect(page.get_by_role("list", name="Pinned")).to_be_visible()
    page.reload()
    expect(picker).to_have_value(NOVA)
    visitor.replies.hover()
    page.get_by_role("button", name="Regenerate").click()
    expect(visitor.replies.last).to_contain_text("The second.")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="The message").fill("Hi, I am Rob")
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(visitor.replies.last).to_contain_text("The third.")
    visitor.send("Who am I?")
    expect(visitor.replies.last).to_contain_text("The last.")
    page.get_by_role("button", name="New conversation").first.click()
    expect(picker).to_have_value("offline")
    assert len(conversation_ids(list_conversations(client, user))) == 2  # one is the branch
    page.go_back()
    expect(picker).to_have_value(NOVA)
    picker.select_option("offline")
    visitor.send("And now?")
    expect(visitor.replies.last).to_contain_text("offline")


def test_a_model_that_is_no_longer_offered_is_replaced_by_the_default_and_the_page_says_so(
    visitor: Visitor, store: Store, client: httpx.Client
) -> None:
    user = new_user()
    id = store_conversation(store, user, "apples", model="bedrock:gone", colour="red")
    page = visitor.visit(as_user=user).page
    visitor.open_conversation(id)
    expect(visitor.notice).to_contain_text("The model bedrock:gone is no longer offered")
    expect(visitor.notice).to_contain_text("offline replies")
    expect(page.get_by_role("combobox", name="Model")).to_have_value("offline")
    visitor.send("Hello")
    expect(visitor.replies.last).to_contain_text("offline")
    assert page.url.endswith(address(id))
    picker = page.get_by_role("combobox", name="Model")
    with page.expect_response(lambda response: chooses(response, "offline")):
        picker.select_option(NOVA)
        picker.select_option("offline")
    kept = {"model": "offline", "colour": "red"}
    assert metadata_of(client, user, "apples") == kept


def chooses(response: Response, model: str) -> bool:
    request = response.request
    return request.method == "PATCH" and f'"model":"{model}"' in (request.post_data or "")


def test_a_conversation_has_a_system_prompt_of_its_own_from_the_next_message_on(
    visitor: Visitor, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Ahoy."), Says("Aye."), Says("Hello."))
    page = visitor.visit(as_user=new_user()).page
    page.get_by_role("combobox", name="Model").select_option(NOVA)
    shown = page.get_by_role("button", name="System prompt: Talk like")
    set_prompt(page, "Talk like a pirate.")
    expect(shown).to_be_visible()
    visitor.send("Hi, I am Bob")
    page.reload()
    expect(shown).to_be_visible()
    visitor.send("Who am I?")
    set_prompt(page, "")
    expect(shown).to_be_hidden()
    visitor.send("Goodbye")
    pirate = [{"text": "Talk like a pirate."}]
    assert [each.body.get("system") for each in bedrock.requests] == [pirate, pirate, None]


def set_prompt(page: Page, text: str) -> None:
    page.get_by_role("button", name="More for this conversation").press("Enter")
    page.get_by_role("menuitem", name="System prompt…").press("Enter")
    page.get_by_role("textbox", name="The system prompt").fill(text)
    page.get_by_role("dialog").get_by_role("button", name="Save").click()


def test_a_system_prompt_that_the_metadata_cannot_hold_is_not_sent(visitor: Visitor) -> None:
    page = visitor.visit(as_user=new_user()).page
    set_prompt(page, "語" * 1001)
    expect(page.get_by_role("dialog")).to_be_visible()
    box = page.get_by_role("textbox", name="The system prompt")
    assert box.evaluate("box => box.validationMessage") == "Shorten it by 1 %."
    box.fill("語" * 1000)
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="System prompt: 語")).to_be_visible()
    visitor.send("Hello")
    expect(visitor.notice).to_be_empty()


def test_where_system_prompts_are_not_allowed_the_page_shows_nothing_of_them(
    page: Page, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_SYSTEM_PROMPT="Be kind.")
    user = new_user()
    with open_store(f"sqlite:///{server.folder / 'chatledger.db'}") as store:
        id = store_conversation(store, user, "apples", system_prompt="Talk like a pirate.")
    visitor = Visitor(page, server.url).visit(as_user=user)
    visitor.open_conversation(id)
    visitor.send("Hello")
    expect(visitor.notice).to_be_empty()
    page.get_by_role("button", name="More for this conversation").click()
    expect(page.get_by_role("menuitem").first).to_have_text("Go to the beginning")
    expect(page.get_by_text("System prompt").filter(visible=True)).to_have_count(0)
    expect(page.get_by_role("combobox", name="Model")).to_be_hidden()
