"""docs/architecture.md lists every file that a turn enters, and a turn enters few."""

import re
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest

import chatledger
from chatledger.chat import Chat
from chatledger.http.fastapi import create_app
from chatledger.http.metrics import Metrics
from chatledger.models import Models
from chatledger.stores.dynamodb import AsyncDynamoDBStore, create_table
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.values import new_id

pytestmark = pytest.mark.anyio

SOURCE = Path(chatledger.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
MOST_FILES = 39


async def test_the_page_lists_the_files_that_a_turn_enters(
    dynamodb_local: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"path-{new_id()}"
    create_table(dynamodb_local.client(), table)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    models, metrics = Models(["offline"]), Metrics()
    async with AsyncDynamoDBStore(
        table,
        region="us-east-1",
        endpoint=dynamodb_local.endpoint,
        on_call=metrics.record_store_call,
    ) as store:
        app = create_app(Chat(store, models.get(None)), models, hosts=["test"], metrics=metrics)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"user_id": "bob", "message": "Hello"}
            begun = (await client.post("/chat", json=body)).json()
            body["conversation_id"] = begun["conversation_id"]
            with FilesEntered() as entered:
                assert (await client.post("/chat", json=body)).status_code == 200
    section = re.search(r"## The path of one message\n(.*?)\n## ", PAGE.read_text(), re.DOTALL)
    assert section is not None
    listed = set(re.findall(r"`([\w/]+\.py)`", section[1]))
    assert entered.files <= listed
    assert len(entered.files) <= MOST_FILES


class FilesEntered:
    """Notes the files of the package whose functions are called within the block."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def __enter__(self) -> "FilesEntered":
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(SOURCE):
            self.files.add(path.relative_to(SOURCE).as_posix())
