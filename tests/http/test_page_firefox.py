"""The page's main paths in Debian's Firefox, served by a real server."""

import httpx
import pytest

from tests.firefox import ENTER, open_firefox
from tests.http.client import list_conversations, new_user, open_client, read_conversation
from tests.serving import Server, StartServer

pytestmark = pytest.mark.anyio

REPLY = 'document.querySelector(".message.assistant:last-child .text")?.textContent'
IS_COMPLETE = '!document.querySelector(".replying") && document.querySelector(".message.assistant")'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0.1")


def stored_reply(client: httpx.Client, user: str) -> str:
    (found,) = list_conversations(client, user)["conversations"]
    *_, reply = read_conversation(client, found["conversation_id"])["messages"]
    return " ".join(str(reply["content"]).split())


async def test_a_conversation_is_held_found_and_remembered(
    firefox_address: str, server: Server
) -> None:
    user = new_user()
    async with open_firefox(firefox_address) as firefox:
        await firefox.visit(server.url)
        await firefox.evaluate(f'localStorage.setItem("chatledger.user", "{user}")')
        await firefox.reload()
        await firefox.click("#box")
        await firefox.type(f"Hi, I am Bob{ENTER}")
        await firefox.wait_for(f'{REPLY}?.includes("Hello, Bob!")')
        await firefox.reload()  # in mid-reply
        await firefox.wait_for(IS_COMPLETE)
        with open_client(server.url) as client:
            text = stored_reply(client, user)
        assert " ".join((await firefox.evaluate(REPLY)).split()) == text

        await firefox.click("#box")
        await firefox.type(f"What is my name?{ENTER}")
        await firefox.wait_for(f'{REPLY}?.includes("Your name is Bob")')
        await firefox.wait_for(IS_COMPLETE)
        await firefox.click('.message.assistant:last-child [data-action="regenerate"]')
        await firefox.wait_for('document.querySelector(".replying")')
        await firefox.wait_for(f'{IS_COMPLETE} && {REPLY}?.includes("Your name is Bob")')

        await firefox.click("#search-box")
        await firefox.type("name")
        await firefox.wait_for('document.querySelector("#matches mark")?.checkVisibility()')
        await firefox.click("#matches a")
        await firefox.wait_for('document.querySelector(".message.found")')


async def test_the_theme_is_switched(firefox_address: str, server: Server) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    async with open_firefox(firefox_address) as firefox:
        await firefox.visit(server.url)
        await firefox.click("#open-settings")
        colors = []
        for theme in ("Light", "Dark"):
            await firefox.click(f'.themes [value="{theme.lower()}"] + span')
            colors.append(await firefox.evaluate(background))
        assert len(set(colors)) == 2
        await firefox.reload()
        assert await firefox.evaluate(background) == colors[-1]
