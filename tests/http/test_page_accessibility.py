"""The page for people who cannot see it or use no mouse, checked by axe-core in a real Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chatledger import Message, Store, open_store
from tests.http.client import new_user
from tests.http.test_page import QUICKLY, Visitor
from tests.http.test_page_content import CALLS, IMAGES, RESULTS
from tests.http.test_page_list import store_conversation
from tests.serving import Server, StartServer

AXE = Path(__file__).parent / "vendor" / "axe.js"
REPLY = """\
# Weather

Some *rain*, [more here](https://example.invalid), `code`:

```python
# a comment
walk = min(walks, key=lambda each: each["rain"])  # 2
```

| | rain |
|---|---|
| Bergen | 2 mm |

- [x] jacket
"""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(
        CHATLEDGER_OFFLINE_PACE=QUICKLY, CHATLEDGER_MODELS="bedrock:amazon.nova-lite-v1:0"
    )


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    with open_store(f"sqlite:///{server.folder / 'chatledger.db'}") as store:
        yield store


@pytest.fixture
def visitor(page: Page, server: Server, store: Store) -> Visitor:
    """A visitor who has one conversation, with all that a message may contain."""
    user = new_user()
    call, result = CALLS["Anthropic"], RESULTS["Anthropic"]
    facts: dict[str, Any] = {"model": "openai:gpt-5", "stop_reason": "max_tokens"}
    messages = (
        Message.user([{"type": "text", "text": "Rain?"}, IMAGES["Anthropic"]]),
        *(call, result, Message.assistant(REPLY, extra=facts)),
    )
    store_conversation(store, user, "pins", pinned=True)
    store_conversation(store, user, "bin", archived=True)
    store_conversation(store, user, "apples", messages)
    return Visitor(page, server.url).visit(as_user=user)


def expect_no_violations(page: Page) -> None:
    """Assert that axe-core finds no fault in what the page shows."""
    if not page.evaluate("'axe' in window"):
        # Not a script of the page, which its Content-Security-Policy would forbid.
        page.evaluate(f"() => {{ {AXE.read_text(encoding='utf-8')}\n }}")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    faults = [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_in_the_page(visitor: Visitor, scheme: Any) -> None:
    page = visitor.page
    # Colors in the middle of a transition are not those that are meant.
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    expect_no_violations(page)
    visitor.row("apples").get_by_role("link").click()
    expect(page.locator(".code-keyword").first).to_be_visible()
    for part in page.locator("main summary").all():
        part.click()
    visitor.replies.last.hover()
    expect_no_violations(page)
    page.get_by_role("button", name="Actions for “apples”").focus()
    page.keyboard.press("Enter")
    expect_no_violations(page)
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect_no_violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    expect_no_violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="More for this conversation").press("Enter")
    page.get_by_role("menuitem", name="System prompt…").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect_no_violations(page)
    page.get_by_role("textbox", name="The system prompt").fill("Be brief.")
    page.get_by_role("dialog").get_by_role("button", name="Save").press("Enter")
    expect(page.get_by_role("button", name="System prompt: Be brief.")).to_be_visible()
    expect_no_violations(page)


def test_axe_finds_no_fault_in_the_list_on_a_phone(visitor: Visitor) -> None:
    page = visitor.page
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Conversations").click()
    page.get_by_text("Archived", exact=True).click()
    expect(visitor.row("bin")).to_be_visible()
    expect_no_violations(page)
