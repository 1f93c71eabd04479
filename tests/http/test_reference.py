"""The description of the API for people, ``/docs``: over a socket, and in a real Chromium."""

import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from playwright.sync_api import Page, Request, expect

from chatledger.chat import Chat
from chatledger.http.fastapi import create_app
from chatledger.http.openapi import describe_api
from chatledger.http.reference import render_reference
from chatledger.models import Models
from chatledger.stores.sqlite import AsyncSQLiteStore
from tests.http.client import Fields, open_checking_client, open_client, success_body
from tests.serverless.chalice_local import ChaliceLocal
from tests.serving import Server, StartServer

HOSTILE = "</code><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture(scope="module")
def fastapi_server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


@pytest.fixture(scope="module")
def chalice_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = ChaliceLocal(tmp_path_factory.mktemp("chalice"), CHATLEDGER_OFFLINE_PACE="0")
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["FastAPI", "Chalice"])
def url(request: pytest.FixtureRequest, fastapi_server: Server, chalice_server: Server) -> str:
    return {"FastAPI": fastapi_server, "Chalice": chalice_server}[request.param].url


class Sections(HTMLParser):
    """The sections of the page by their headings, with the texts of the code blocks in each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.code: dict[str, list[str]] = {}
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self.text = ""
        self._heading: list[str] | None = None
        self._block: list[str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)
        given = dict(attributes)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.targets |= {given["href"] or ""} if tag == "a" else set()
        if tag == "h2":
            self._heading = []
        if tag == "pre":
            self._block = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2" and self._heading is not None:
            self.code["".join(self._heading)] = []
            self._heading = None
        if tag == "pre" and self._block is not None:
            list(self.code.values())[-1].append("".join(self._block))
            self._block = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._heading is not None:
            self._heading.append(data)
        if self._block is not None:
            self._block.append(data)


def routes(document: Fields) -> set[str]:
    return {
        f"{method.upper()} {path}" for path, each in document["paths"].items() for method in each
    }


def test_every_endpoint_has_a_section(url: str) -> None:
    with open_client(url) as client:
        document = success_body(client.get("/openapi.json"))
        sections = Sections(client.get("/docs").text)
    others = {"Contents", "How to run the examples", "Errors"}
    assert sections.code.keys() == routes(document) | others
    assert len(sections.ids) == len(set(sections.ids))
    targets = {target.removeprefix("#") for target in sections.targets - {"openapi.json"}}
    assert targets <= set(sections.ids), "every link leads somewhere"


def test_the_server_understands_the_example_of_every_request(url: str) -> None:
    with open_checking_client(url) as client:
        sections = Sections(client.get("/docs").text)
        asked = set()
        for route, (command, *_) in ((r, code) for r, code in sections.code.items() if " /" in r):
            program, *arguments = shlex.split(command.replace("\\\n", ""))
            assert program == "curl"
            method, headers, body, address = "GET", {}, None, ""
            while arguments:
                match arguments.pop(0):
                    case "-X":
                        method = arguments.pop(0)
                    case "-H":
                        name, _, value = arguments.pop(0).partition(": ")
                        headers[name] = value
                    case "-d":
                        body = arguments.pop(0)
                    case "-N":
                        assert "\nevent: done\n" in sections.code[route][1], "it is a stream"
                    case argument:
                        address = argument
            assert address.startswith("$URL/")
            response = client.request(
                method, address.removeprefix("$URL"), headers=headers, content=body
            )
            # There is no conversation with the id in the examples.
            expected = (200, 201, 404, 501) if "conversations/" in address or body else (200,)
            assert response.status_code in expected, f"{command}: {response.text}"
            asked.add(route)
        assert asked == routes(success_body(client.get("/openapi.json")))


def test_with_sign_in_the_examples_have_a_token_and_the_page_needs_none(
    start_server: StartServer,
) -> None:
    document = describe_api(has_sign_in=True)
    sections = Sections(render_reference(document).html.decode())
    for route, (command, *_) in ((r, code) for r, code in sections.code.items() if " /" in r):
        method, path = route.split(" ")
        is_public = document["paths"][path][method.lower()].get("security") == []
        assert ("$TOKEN" in command) != is_public
        assert "user_id" not in command


def test_a_browser_asks_whether_the_page_has_changed(url: str) -> None:
    with open_client(url) as client:
        response = client.get("/docs")
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache"
        tag = response.headers["ETag"]
        for known in (tag, f"W/{tag}", f'"older", {tag}', "*"):
            again = client.get("/docs", headers={"If-None-Match": known})
            assert again.status_code == 304, known
            assert again.content == b""
            assert again.headers["ETag"] == tag
        assert client.get("/docs", headers={"If-None-Match": '"older"'}).status_code == 200
        head = client.head("/docs")
        assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", tag)
        assert success_body(client.get("/"))["reference"] == "/docs"


def test_the_page_may_run_no_script_and_ask_no_other_host(url: str) -> None:
    with open_client(url) as client:
        response = client.get("/docs")
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy.keys().isdisjoint({"script-src", "connect-src"})
    assert "unsafe" not in str(policy)
    sections = Sections(response.text)
    assert sections.tags.isdisjoint({"script", "img", "iframe", "form", "object"})
    assert sections.attributes.isdisjoint({"style", "src", "onload", "onclick"})


def hostile(value: Any) -> Any:
    """Return a part of a document with a hostile end of each of its texts and names."""
    if isinstance(value, dict):
        return {
            name: text if name in ("$ref", "in", "openapi") else hostile(text)
            for name, text in value.items()
        }
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_no_text_of_the_description_becomes_markup() -> None:
    document = hostile(describe_api(has_sign_in=True))
    schema = document["components"]["schemas"]["ChatRequest"]
    schema["properties"] = {name + HOSTILE: each for name, each in schema["properties"].items()}
    document["paths"] = {path + HOSTILE: each for path, each in document["paths"].items()}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"]["418" + HOSTILE] = {
                "description": HOSTILE,
                "headers": {HOSTILE: {"schema": {}}},
                "content": {HOSTILE: {"x-events": {HOSTILE: {}}, "example": HOSTILE}},
            }
    usual = Sections(render_reference(describe_api(has_sign_in=True)).html.decode())
    sections = Sections(render_reference(document).html.decode())
    assert sections.tags == usual.tags
    assert sections.attributes == usual.attributes
    assert sections.text.count("<script>alert(1)</script>") > 500


def test_a_route_that_the_operator_adds_has_a_section(tmp_path: Path) -> None:
    models = Models(["offline"])
    store = AsyncSQLiteStore(tmp_path / "chatledger.db")  # it is not opened
    app = create_app(Chat(store, models.get()), models)
    router = APIRouter()

    @router.post("/feedback/{conversation_id}")
    async def give_feedback(conversation_id: str, stars: int, comments: list[str]) -> bool:
        """Rate a conversation with <stars>."""
        return True

    app.include_router(router)
    html = render_reference(app.openapi()).html.decode()
    sections = Sections(html)
    assert "POST /feedback/{conversation_id}" in sections.code
    assert "Rate a conversation with <stars>." in sections.text


# In Chromium --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_asks_for_nothing_else_and_fits_a_phone(
    page: Page, fastapi_server: Server, scheme: Any
) -> None:
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{fastapi_server.url}/docs")
    expect(page.get_by_role("heading", level=1)).to_have_text("The API of Chatledger")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(252, 252, 250)", "dark": "rgb(22, 26, 24)"}[scheme]
    assert [each.url for each in requests if not each.url.startswith("data:")] == [
        f"{fastapi_server.url}/docs"
    ]


def test_a_link_of_the_contents_leads_to_the_section(page: Page, fastapi_server: Server) -> None:
    page.goto(f"{fastapi_server.url}/docs")
    contents = page.get_by_role("navigation", name="Contents")
    contents.get_by_role("link", name="POST /chat/stream").press("Enter")
    section = page.get_by_role("region", name="POST /chat/stream")
    expect(section.get_by_role("heading", level=2)).to_be_in_viewport()
    expect(section).to_contain_text("text/event-stream")
    section.get_by_role("link", name="turn_in_progress").press("Enter")
    expect(page.locator("#error-turn_in_progress")).to_be_in_viewport()


def test_the_keyboard_skips_the_contents(page: Page, fastapi_server: Server) -> None:
    page.goto(f"{fastapi_server.url}/docs")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the description")
    page.keyboard.press("Enter")
    expect(page.locator(":focus")).to_have_attribute("id", "main")
