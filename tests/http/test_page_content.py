"""Tool calls, reasoning, images and usage on the page, in a real Chromium."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from chatledger import Message, Store, open_store
from chatledger.values import Json
from tests.http.client import new_user
from tests.http.test_page import QUICKLY, Visitor
from tests.http.test_page_list import store_conversation
from tests.serving import Server, StartServer

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
"""An image of one pixel, in Base64."""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE=QUICKLY)


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    with open_store(f"sqlite:///{server.folder / 'chatledger.db'}") as store:
        yield store


@pytest.fixture
def visitor(page: Page, server: Server) -> Visitor:
    return Visitor(page, server.url)


def show(visitor: Visitor, store: Store, *messages: Message) -> None:
    """Show a conversation that consists of ``messages``."""
    user = new_user()
    conversation_id = store_conversation(store, user, "apples", messages)
    visitor.visit(as_user=user)
    visitor.open_conversation(conversation_id)
    expect(visitor.messages).to_have_count(len(messages))


def unfold(visitor: Visitor, label: str) -> Locator:
    """Unfold the part with that label, which was folded, and return it."""
    part = visitor.page.locator("details").filter(has=visitor.page.get_by_text(label, exact=True))
    body = part.locator(".folded")
    expect(body).to_be_hidden()
    part.locator("summary").click()
    expect(body).to_be_visible()
    return body


CALLS: dict[str, Message] = {
    "LangChain": Message.assistant(
        [
            {"type": "reasoning", "reasoning": "I need the weather."},
            {"type": "tool_call", "id": "c1", "name": "weather", "args": {"city": "Bergen"}},
        ],
        tool_calls=[{"id": "c1", "name": "weather", "args": {"city": "Bergen"}}],
    ),
    "Anthropic": Message.assistant(
        [
            {"type": "thinking", "thinking": "I need the weather.", "signature": "x"},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bergen"}},
        ]
    ),
    "Bedrock": Message.assistant(
        [
            {"reasoningContent": {"reasoningText": {"text": "I need the weather."}}},
            {"toolUse": {"toolUseId": "c1", "name": "weather", "input": {"city": "Bergen"}}},
        ]
    ),
    "OpenAI": Message.assistant(
        [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "I need the weather."}],
            }
        ],
        tool_calls=[
            {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Bergen"}'}}
        ],
    ),
}
RESULTS: dict[str, Message] = {
    "LangChain": Message.tool("rain", tool_call_id="c1"),
    "Anthropic": Message.user(
        [
            {
                "type": "tool_result",
                "tool_use_id": "c1",
                "content": [{"type": "text", "text": "rain"}],
            }
        ]
    ),
    "Bedrock": Message.user([{"toolResult": {"toolUseId": "c1", "content": [{"text": "rain"}]}}]),
    "OpenAI": Message.tool("rain", tool_call_id="c1"),
}


@pytest.mark.parametrize("framework", CALLS)
def test_reasoning_and_tool_calls_are_folded_away(
    visitor: Visitor, store: Store, framework: str
) -> None:
    show(visitor, store, Message.user("Rain?"), CALLS[framework], RESULTS[framework])
    expect(visitor.page.locator("main summary")).to_have_text(
        ["Reasoning", "Called weather", "Result of weather"]
    )
    expect(unfold(visitor, "Reasoning")).to_have_text("I need the weather.")
    expect(unfold(visitor, "Called weather")).to_have_text('{ "city": "Bergen" }')
    expect(unfold(visitor, "Result of weather")).to_have_text("rain")


IMAGES: dict[str, dict[str, Any]] = {
    "Anthropic": {"type": "image", "source": {"type": "base64", "data": PNG}},
    "LangChain": {"type": "image", "base64": PNG, "mime_type": "image/png"},
    "OpenAI": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
}


def test_images_in_messages_are_shown(visitor: Visitor, store: Store) -> None:
    show(visitor, store, Message.user([{"type": "text", "text": "Look"}, *IMAGES.values()]))
    images = visitor.messages.get_by_role("img")
    expect(images).to_have_count(len(IMAGES))
    widths = "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth)))"
    assert images.evaluate_all(widths) == [1] * len(IMAGES)
    expect(visitor.messages.locator(".text")).to_have_text("Look")


def test_images_of_other_servers_and_what_is_no_image_are_not_loaded(
    visitor: Visitor, store: Store
) -> None:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    addresses = (
        "https://example.invalid/a.png",
        "javascript:alert(1)",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:image/png,plain",
        "https://",
    )
    blocks: list[Any] = [
        {"type": "image_url", "image_url": {"url": address}} for address in addresses
    ]
    show(visitor, store, Message.user(["Look", *blocks]))
    expect(visitor.messages.get_by_role("img")).to_have_count(0)
    link = visitor.messages.get_by_role("link", name="Image at example.invalid")
    expect(link).to_have_attribute("href", addresses[0])
    expect(visitor.messages.get_by_text("An image that cannot be shown")).to_have_count(5)
    assert not [url for url in asked if not url.startswith(f"{visitor.url}/")]


def test_a_reply_shows_its_model_and_usage(visitor: Visitor, store: Store) -> None:
    usage = {"input_tokens": 1204, "output_tokens": 186, "cached_tokens": 1024}
    facts: dict[str, Any] = {"model": "openai:gpt-5", "stop_reason": "end_turn", "usage": usage}
    show(visitor, store, Message.user("Hello"), Message.assistant("Hi", extra=facts))
    expect(visitor.replies.locator(".fact")).to_have_text(
        ["openai:gpt-5", "1,204 tokens in (1,024 from a cache), 186 out"]
    )
    visitor.send("What is my name?")
    shown = visitor.replies.last.locator(".fact")
    expect(shown).to_have_text(["offline", re.compile(r"\d+ tokens in, \d+ out")])
    facts_of_stream = shown.all_inner_texts()
    visitor.page.reload()
    expect(shown).to_have_text(facts_of_stream)


ATTACK = (
    "\"'><img src=x onerror=owned()><svg/onload=owned()></textarea></title><script>owned()</script>"
    "[a](javascript:owned())\n\n```js\n</code><script>owned()</script>\n```\n\n| a |\n|-|\n"
    "| <img src=x onerror=owned()> |\n\n<iframe src=javascript:owned()></iframe>"
)
"""HTML that runs a function wherever it is taken for HTML."""


@pytest.mark.console_errors  # an image and a conversation are not found
def test_nothing_that_a_conversation_has_runs_in_the_page(visitor: Visitor, store: Store) -> None:
    page, user = visitor.page, f"{ATTACK.splitlines()[0]} {new_user()}"
    page.add_init_script("window.ran = false; window.owned = () => (window.ran = true)")
    blocks: list[Any] = [
        {"type": "text", "text": ATTACK},
        {"type": "reasoning", "reasoning": ATTACK},
        {"type": "tool_use", "id": "c1", "name": ATTACK, "input": {ATTACK: ATTACK}},
        {"type": "image_url", "image_url": {"url": ATTACK}},
        {"type": "document", "title": ATTACK, "source": {"data": ATTACK, "url": ATTACK}},
        {"type": ATTACK, "text": ATTACK},
    ]
    conversation_id = store_conversation(
        store,
        user,
        ATTACK,
        [
            Message.user(ATTACK),
            Message.assistant(blocks, extra={"model": ATTACK, "stop_reason": ATTACK}),
            Message(role="tool", content=ATTACK, extra={"tool_call_id": "c1", "name": ATTACK}),
            Message.assistant(ATTACK),
        ],
        model=ATTACK,
        system_prompt=ATTACK,
        pinned=True,
    )
    visitor.visit(as_user=user)
    visitor.open_conversation(conversation_id)
    expect(visitor.messages).to_have_count(4)
    page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
    page.locator("#search-box").fill("owned")
    expect(page.locator("#matches li").first).to_be_visible()
    page.locator("#search-box").press("Escape")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Close", exact=True).click()
    visitor.box.fill(ATTACK)
    visitor.box.press("Enter")
    expect(visitor.messages).to_have_count(6)
    elements = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter(each =>
          ["SCRIPT", "IFRAME"].includes(each.tagName) && !each.src.startsWith(location.origin) ||
          each.protocol === "javascript:" ||
          each.getAttributeNames().some(name => name.startsWith("on"))
        ).map(each => each.outerHTML)"""
    )
    assert elements == []
    page.evaluate(f"location.hash = {('#c=' + ATTACK)!r}")
    expect(visitor.notice).not_to_be_empty()
    assert page.evaluate("window.ran") is False
    page.evaluate("owned()")
    assert page.evaluate("window.ran") is True, "the attack would be noticed"


def test_a_reply_to_a_tool_is_regenerated_and_what_is_before_it_stays(
    visitor: Visitor, store: Store
) -> None:
    call: dict[str, Json] = {"id": "c1", "name": "weather", "args": {}}
    show(
        visitor,
        store,
        Message.user("How is the weather?"),
        Message.assistant("I look it up.", tool_calls=[call]),
        Message.tool("rain", tool_call_id="c1"),
        Message.assistant("It rains."),
    )
    visitor.replies.last.hover()
    visitor.page.get_by_role("button", name="Regenerate").click()
    expect(visitor.replies.last).not_to_contain_text("It rains.")
    expect(visitor.pending).to_have_count(0)
    expect(visitor.messages).to_have_count(4)
    expect(visitor.replies.first).to_contain_text("I look it up.")
    visitor.messages.first.get_by_role("button", name="Edit").click()
    visitor.page.get_by_role("textbox", name="The message").fill("And the wind?")
    visitor.page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(visitor.messages).to_have_count(2)
    expect(visitor.messages.first).to_contain_text("And the wind?")


def test_blocks_whose_names_are_no_text_do_not_hide_the_conversation(
    visitor: Visitor, store: Store
) -> None:
    odd: Json = {"toString": 1}
    show(
        visitor,
        store,
        Message.user(["Look: ", {"type": odd}]),
        Message.assistant([{"type": "tool_use", "name": odd}], tool_calls=[{"name": odd}]),
    )
    expect(visitor.messages.first).to_contain_text("Look:")
    expect(visitor.replies.last).to_contain_text("Called a tool")
