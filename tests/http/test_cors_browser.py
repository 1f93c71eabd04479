"""A page of the allowed site uses the API in a real browser."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Page

from tests.http.client import new_user
from tests.serving import StartServer

SEND = """async ([url, user]) => {
  const body = JSON.stringify({ message: "Hi, I am Bob", user_id: user });
  const headers = { "Content-Type": "application/json", "Idempotency-Key": "one" };
  const reply = await (await fetch(`${url}/chat`, { method: "POST", headers, body })).json();
  const list = await (await fetch(`${url}/conversations?user_id=${user}`)).json();
  const error = await fetch(`${url}/conversations?limt=1`);
  return [reply.response, list.conversations.length, error.status];
}"""


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        thread = Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.console_errors
def test_a_page_of_the_allowed_site_reads_replies_lists_and_errors(
    page: Page, site: str, start_server: StartServer
) -> None:
    server = start_server(CHATLEDGER_OFFLINE_PACE="0", CHATLEDGER_ALLOW_ORIGIN=site)
    page.goto(site)
    # Under another name of this machine, the server is another site to the browser.
    url = server.url.replace("127.0.0.1", "localhost")
    reply, conversations, status = page.evaluate(SEND, [url, new_user()])
    assert "Bob" in reply
    assert (conversations, status) == (1, 422)
    server.kill()
