"""Asking a model over either transport, and an environment in which it comes to a test server."""

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import aclosing, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from select import select
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import boto3
import pytest

from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel
from chatledger.models.protocol import Finished
from chatledger.testing.bedrock_server import ACCESS_KEY, REGION, SECRET_KEY, BedrockServer

Transport: TypeAlias = Literal["async", "sync"]
MODEL = "amazon.nova-lite-v1:0"


@pytest.fixture(params=["async", "sync"])
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    return chosen


@pytest.fixture(scope="module")
def running() -> Iterator[BedrockServer]:
    with BedrockServer() as running:
        yield running


@pytest.fixture
def server(running: BedrockServer) -> BedrockServer:
    """One that has not been asked yet, for ``model``."""
    running.reset()
    return running


@pytest.fixture
def aws(running: BedrockServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BedrockServer:
    """As ``server``; its address and key are in the environment, and nothing else of AWS's is."""
    running.reset()
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": running.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    return running


@cache
def session() -> boto3.Session:
    """Kept, as it reads AWS's description of the service but once."""
    return boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)


def model(
    server: BedrockServer, model_id: str = MODEL, *, patience: float = 0.0, **options: Any
) -> BedrockModel:
    """Without patience it tries once."""
    return BedrockModel(
        model_id, session=session(), endpoint=server.endpoint, patience=patience, **options
    )


def ask(
    transport: Transport,
    asked: BedrockModel,
    messages: str | Sequence[Message] = "Hello",
    *,
    system_prompt: str | None = None,
    seen: list[str] | None = None,
) -> tuple[list[str], Finished]:
    """The reply's pieces, which are added to ``seen`` as they come, and its end."""
    if isinstance(messages, str):
        messages = [Message.user(messages)]
    pieces = [] if seen is None else seen
    if transport == "async":
        found = asyncio.run(_ask(asked, messages, system_prompt, pieces))
    else:
        found = []
        try:
            with closing(asked.stream_sync(messages, system_prompt=system_prompt)) as reply:
                for piece in reply:
                    (found if isinstance(piece, Finished) else pieces).append(piece)  # type: ignore[arg-type]
        finally:
            asyncio.run(asked.close())
    [finished] = found
    return pieces, finished


async def _ask(
    asked: BedrockModel, messages: Sequence[Message], system_prompt: str | None, pieces: list[str]
) -> list[Finished]:
    found: list[Finished] = []
    try:
        async with aclosing(asked.stream(messages, system_prompt=system_prompt)) as reply:
            async for piece in reply:
                if isinstance(piece, Finished):
                    found.append(piece)
                else:
                    pieces.append(piece)
    finally:
        await asked.close()
    return found


@contextmanager
def with_tls(endpoint: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """``endpoint`` over TLS: its address and the certificate to trust."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    address = urlsplit(endpoint)

    class PassesOn(BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),  # a client that trusts nobody, or one that is gone
                context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection((address.hostname, address.port)) as server,
            ):
                _pass_on(client, server)

    with ThreadingTCPServer(("127.0.0.1", 0), PassesOn) as listening:
        thread = Thread(target=listening.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.server_address[1]}", certificate
        finally:
            listening.shutdown()
            thread.join()


def _pass_on(client: ssl.SSLSocket, server: socket.socket) -> None:
    while readable := select([client, server], [], [], 2)[0]:
        for source, sink in ((client, server), (server, client)):
            if source not in readable:
                continue
            data = source.recv(65536)
            while client.pending():
                data += client.recv(65536)
            if not data:
                return
            sink.sendall(data)
