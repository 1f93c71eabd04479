"""The page exports, prints and imports conversations, in a real Chromium."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.http.client import create_conversation, new_user, open_client
from tests.http.export_contract import FILE, HI, import_file, timeless, with_messages
from tests.http.test_page import Visitor
from tests.serving import Server, StartServer

CODE = "```\n" + "long_name = " * 60 + "\n```"
TABLE = f"| a | b | c |\n|-|-|-|\n| {'x' * 80} | {'y' * 80} | z |"


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


@pytest.fixture
def visitor(page: Page, server: Server) -> Visitor:
    return Visitor(page, server.url)


def open_imported(visitor: Visitor, file: dict[str, Any]) -> str:
    """Show a conversation of a new user that has the file's messages; return the user."""
    user = new_user()
    visitor.visit(as_user=user)
    with open_client(visitor.url) as client:
        visitor.open_conversation(import_file(client, file, user))
    expect(visitor.messages.last).to_be_visible()
    return user


def test_an_exported_file_is_imported_with_the_keyboard_and_the_mouse(
    visitor: Visitor, tmp_path: Path
) -> None:
    open_imported(visitor, FILE | {"title": "Übung 🧠"})
    page = visitor.page
    more = page.get_by_role("button", name="More for this conversation")
    more.focus()
    page.keyboard.press("Enter")
    items = page.get_by_role("menuitem")
    exports = ["Export as Markdown", "Export as JSON", "Print"]
    expect(items).to_have_text(["System prompt…", "Go to the beginning", *exports])
    expect(items.first).to_be_focused()
    page.keyboard.press("Escape")
    expect(more).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    with page.expect_download() as markdown:
        page.keyboard.press("Enter")
    assert markdown.value.suggested_filename == "Übung 🧠.md"
    assert markdown.value.path().read_text().startswith("# Übung 🧠\n\n## User\n")
    more.click()
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name="Export as JSON").click()
    path = tmp_path / saved.value.suggested_filename
    assert path.name == "Übung 🧠.json"
    saved.value.save_as(path)
    assert timeless(json.loads(path.read_text())) == timeless(FILE | {"title": "Übung 🧠"})

    before = page.url
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Settings").click()
        page.get_by_role("button", name="Import").click()
    chooser.value.set_files(path)
    expect(visitor.rows).to_have_count(2)
    expect(visitor.heading).to_have_text("Übung 🧠")
    expect(visitor.messages.first).to_contain_text("What is the weather in Bergen?")
    assert page.url != before
    expect(visitor.box).to_be_focused()


@pytest.mark.console_errors
def test_a_file_that_cannot_be_imported_is_refused_in_words(
    visitor: Visitor, tmp_path: Path
) -> None:
    visitor.visit(as_user=new_user())
    files = {
        "photo.json": ("\x89PNG", "not valid JSON"),
        "other.json": ('{"mapping": {}}', "unknown field"),
        "broken.json": (json.dumps(FILE | with_messages(HI, {})), "messages[1].role must be"),
    }
    for name, (text, reason) in files.items():
        path = tmp_path / name
        path.write_text(text)
        with visitor.page.expect_file_chooser() as chooser:
            visitor.page.get_by_role("button", name="Settings").click()
            visitor.page.get_by_role("button", name="Import").click()
        chooser.value.set_files(path)
        expect(visitor.notice).to_contain_text("The file was not imported. Choose a file that")
        expect(visitor.notice).to_contain_text(reason)
    expect(visitor.rows).to_have_count(0)


def test_on_paper_is_the_whole_conversation_and_nothing_else(visitor: Visitor) -> None:
    page = visitor.page
    page.add_init_script("window.print = () => document.body.setAttribute('data-printed', '')")
    texts = [f"number {n}" for n in range(120)]
    messages = [HI | {"content": text} for text in texts]
    open_imported(
        visitor,
        FILE
        | with_messages(*messages, HI | {"role": "assistant", "content": f"{CODE}\n\n{TABLE}"}),
    )
    page.get_by_role("button", name="More for this conversation").click()
    page.get_by_role("menuitem", name="Print").click()
    expect(page.locator("[data-printed]")).to_be_visible()
    expect(visitor.messages).to_have_count(len(texts) + 1)
    page.emulate_media(media="print", color_scheme="dark")
    expect(visitor.heading).to_be_visible()
    expect(visitor.messages.first).to_be_visible()
    for hidden in (
        visitor.box,
        page.locator("#sidebar"),
        page.locator("#more"),
        page.locator(".copy").last,
    ):
        expect(hidden).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    for part in (
        "html",
        "main",
        ".scroller",
        ".messages",
        ".message",
        ".code",
        "pre",
        ".table",
        "td",
    ):
        overflows = "(each) => each.scrollWidth > each.clientWidth + 1"
        assert not page.locator(part).last.evaluate(overflows), f"{part} is cut off"
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight")


def test_an_empty_conversation_that_exists_can_be_exported(visitor: Visitor) -> None:
    user = new_user()
    visitor.visit(as_user=user)
    visitor.page.get_by_role("button", name="More for this conversation").click()
    expect(visitor.page.get_by_role("menuitem")).to_have_text(["System prompt…"])
    visitor.page.keyboard.press("Escape")
    with open_client(visitor.url) as client:
        visitor.open_conversation(create_conversation(client, user_id=user))
    visitor.page.get_by_role("button", name="More for this conversation").click()
    with visitor.page.expect_download() as saved:
        visitor.page.get_by_role("menuitem", name="Export as Markdown").click()
    assert saved.value.path().read_text() == "# Conversation\n\n"
