"""Calling a model over either transport, and an environment that leads it to a test server."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import aclosing, closing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

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
    """The server for ``model``, without requests and without a script."""
    running.reset()
    return running


@pytest.fixture
def aws(running: BedrockServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BedrockServer:
    """Return ``server`` with its address and key in the environment, and no other AWS settings."""
    running.reset()
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": running.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "missing"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "missing"),
    }.items():
        monkeypatch.setenv(name, value)
    return running


@cache
def session() -> boto3.Session:
    """Return a cached session: it reads botocore's description of the service only once."""
    return boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)


def model(
    server: BedrockServer, model_id: str = MODEL, *, patience: float = 0.0, **options: Any
) -> BedrockModel:
    """Return a model on ``server``; without patience it makes one attempt."""
    return BedrockModel(
        model_id, session=session(), endpoint=server.endpoint, patience=patience, **options
    )


def ask(
    transport: Transport,
    model: BedrockModel,
    messages: str | Sequence[Message] = "Hello",
    *,
    system_prompt: str | None = None,
    delivered: list[str] | None = None,
) -> tuple[list[str], Finished]:
    """Return the reply's pieces and its end; append the pieces to ``delivered`` as they come."""
    if isinstance(messages, str):
        messages = [Message.user(messages)]
    pieces = [] if delivered is None else delivered
    if transport == "async":
        ends = asyncio.run(_ask(model, messages, system_prompt, pieces))
    else:
        ends = []
        try:
            with closing(model.stream_sync(messages, system_prompt=system_prompt)) as reply:
                for piece in reply:
                    (ends if isinstance(piece, Finished) else pieces).append(piece)  # type: ignore[arg-type]
        finally:
            asyncio.run(model.close())
    [finished] = ends
    return pieces, finished


async def _ask(
    model: BedrockModel, messages: Sequence[Message], system_prompt: str | None, pieces: list[str]
) -> list[Finished]:
    ends: list[Finished] = []
    try:
        async with aclosing(model.stream(messages, system_prompt=system_prompt)) as reply:
            async for piece in reply:
                if isinstance(piece, Finished):
                    ends.append(piece)
                else:
                    pieces.append(piece)
    finally:
        await model.close()
    return ends
