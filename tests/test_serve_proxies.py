"""The server as in docs/running.md: behind nginx and Caddy, and in several processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.http.client import GETS_SHORT_REPLY
from tests.serving import Server, StartServer, free_port

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
HOST = "chat.example"
OPEN = {"CHATLEDGER_PUBLIC_HOSTS": HOST, "CHATLEDGER_ALLOW_UNAUTHENTICATED": "true"}
SLOW = {**OPEN, "CHATLEDGER_OFFLINE_PACE": "0.3"}


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def program(name: str) -> str:
    path = shutil.which(name) or str(ROOT / ".cache" / "debian" / name)
    assert Path(path).exists(), "run scripts/test-programs, which installs it in .cache"
    return path


def nginx_command(folder: Path, port: int, server_port: int) -> list[str]:
    (block,) = code_blocks("nginx")
    block = block.replace("listen 80;", f"listen 127.0.0.1:{port};")
    block = block.replace("127.0.0.1:8000", f"127.0.0.1:{server_port}")
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{block}}}\n"
    )
    return [program("nginx"), "-p", str(folder), "-c", str(configuration)]


def caddy_command(folder: Path, port: int, server_port: int) -> list[str]:
    (block,) = code_blocks("caddy")
    block = block.replace(f"{HOST} {{", f"http://{HOST}:{port} {{\nbind 127.0.0.1")
    block = block.replace("127.0.0.1:8000", f"127.0.0.1:{server_port}")
    configuration = folder / "Caddyfile"
    configuration.write_text(f"{{\nadmin off\nauto_https off\n}}\n{block}")
    arguments = ["run", "--config", str(configuration), "--adapter", "caddyfile"]
    return [program("caddy"), *arguments]


COMMANDS = {"nginx": nginx_command, "caddy": caddy_command}


@contextmanager
def running(
    command: list[str], port: int, log: Path, environment: dict[str, str], *, host: str = HOST
) -> Iterator[str]:
    """Run a program until it is reached at ``port``; yield the URL."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"{url}/health", headers={"Host": host}, trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
        yield url
        process.send_signal(signal.SIGTERM)
        process.wait(15)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def slow_server(start_server: StartServer) -> Server:
    return start_server(**SLOW)


@pytest.fixture(scope="module", params=COMMANDS)
def proxy(
    request: pytest.FixtureRequest, slow_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a proxy in front of ``slow_server``."""
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    command = COMMANDS[request.param](folder, port, slow_server.port)
    with ExitStack() as stack:
        url = stack.enter_context(running(command, port, folder / "log", {"HOME": str(folder)}))
        headers = {"Host": HOST}
        client = httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30)
        yield stack.enter_context(client)


def stop_reason(client: httpx.Client, conversation_id: str) -> str | None:
    """Return how the reply ended, once there is one."""
    for _ in range(200):
        found = client.get(f"/conversations/{conversation_id}").json()["conversation"]
        if len(found["messages"]) == 2:
            reason: str | None = found["messages"][1].get("stop_reason")
            return reason
        time.sleep(0.05)
    raise AssertionError("no reply was stored")


def test_the_page_and_the_api_are_served_under_the_public_name(proxy: httpx.Client) -> None:
    assert proxy.get("/", headers={"Accept": "text/html"}).status_code == 200
    assert proxy.get("/health").json() == {"status": "healthy"}
    listed = proxy.get("/conversations", params={"user_id": "nobody"})
    assert listed.json()["conversations"] == []


def test_pieces_of_a_reply_arrive_as_they_are_said(proxy: httpx.Client) -> None:
    body = {"message": GETS_SHORT_REPLY, "user_id": "bob"}
    with proxy.stream("POST", "/chat/stream", json=body) as response:
        assert response.status_code == 200
        chunks = response.iter_text()
        received = ""
        while "event: piece" not in received:
            received += next(chunks)
        assert "event: done" not in received
        assert received.count("event: piece") <= 3
        received += "".join(chunks)
    assert received.count("event: piece") > 3
    assert "event: done" in received


def test_a_turn_ends_when_the_client_leaves_the_proxy(proxy: httpx.Client) -> None:
    body = {"message": "Hello", "user_id": "bob", "on_disconnect": "stop"}
    with proxy.stream("POST", "/chat/stream", json=body) as response:
        lines = response.iter_lines()
        start = next(line for line in lines if line.startswith("data: "))
        while next(lines) != "event: piece":
            pass
    conversation_id = json.loads(start.removeprefix("data: "))["conversation_id"]
    assert stop_reason(proxy, conversation_id) == "stopped"


def test_other_names_are_refused_unless_users_sign_in(start_server: StartServer) -> None:
    def health(server: Server, host: str) -> int:
        headers = {"Host": host}
        return httpx.get(f"{server.url}/health", headers=headers, trust_env=False).status_code

    public = start_server(**OPEN)
    signed_in = start_server(
        CHATLEDGER_AUTH="jwt",
        CHATLEDGER_JWT_ISSUER="https://issuer.example",
        CHATLEDGER_JWT_AUDIENCE="chat",
    )
    private = start_server()
    assert [health(public, HOST), health(public, "evil.example")] == [200, 400]
    assert health(public, f"{HOST.upper()}:443") == 200
    assert [health(signed_in, HOST), health(signed_in, "evil.example")] == [200, 200]
    assert [health(private, HOST), health(private, "localhost")] == [400, 200]


def test_several_processes_serve_the_same_conversations(tmp_path: Path) -> None:
    port = free_port()
    options = next(block for block in code_blocks("sh") if "--workers" in block)
    command = [sys.executable, "-m", *options.replace("\\\n", " ").split()]
    command[command.index("--port") + 1] = str(port)
    settings = {
        "CHATLEDGER_STORE": f"sqlite:///{tmp_path}/chatledger.db",
        "CHATLEDGER_OFFLINE_PACE": "0",
    }
    body = {"message": "Hello", "user_id": "bob", "conversation_id": "trip"}
    with running(command, port, tmp_path / "log", settings, host="localhost") as url:
        for _ in range(20):  # each with a connection of its own, which any process may accept
            response = httpx.post(f"{url}/chat", json=body, trust_env=False, timeout=30)
            assert response.status_code == 200, response.text
        found = httpx.get(f"{url}/conversations/trip?user_id=bob", trust_env=False).json()
    assert found["conversation"]["metadata"]["message_count"] == 40
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "GET /conversations/{conversation_id} 200" in log
    assert "bob" not in log


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CHATLEDGER_PUBLIC_HOSTS", HOST), ("CHATLEDGER_TRUSTED_PROXIES", "127.0.0.1")],
)
def test_the_application_refuses_to_serve_others_without_sign_in(
    tmp_path: Path, variable: str, value: str
) -> None:
    refused = subprocess.run(
        [sys.executable, "-c", "from chatledger.http.app import create; create()"],
        env=os.environ | {variable: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert f"{variable} is set" in refused.stderr
    assert "CHATLEDGER_ALLOW_UNAUTHENTICATED=true" in refused.stderr
