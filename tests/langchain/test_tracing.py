"""Callbacks and LangSmith receive the owner and the session of a turn."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.history import RunnableWithMessageHistory

from chatledger import open_store
from chatledger.langchain import OWNED_SESSION, OfflineChatModel, owned_session_factory

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
]


class Runs(BaseCallbackHandler):
    """Records the metadata of every run."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any] | None] = []

    def on_chain_start(self, *_: Any, metadata: dict[str, Any] | None = None, **__: Any) -> None:
        self.metadata.append(metadata)

    def on_chat_model_start(
        self, *_: Any, metadata: dict[str, Any] | None = None, **__: Any
    ) -> None:
        self.metadata.append(metadata)


@pytest.mark.parametrize("is_async", [False, True], ids=["invoke", "ainvoke"])
async def test_every_run_of_a_turn_has_the_session_and_owner_given_as_metadata(
    is_async: bool,
) -> None:
    named = {"user_id": "bob", "conversation_id": "trip"}
    runs = Runs()
    config: RunnableConfig = {"configurable": named, "metadata": named, "callbacks": [runs]}
    with open_store("sqlite:///:memory:") as store:
        chain: Any = RunnableWithMessageHistory(
            OfflineChatModel(), owned_session_factory(store), history_factory_config=OWNED_SESSION
        )
        if is_async:
            await chain.ainvoke("Hi", config=config)
        else:
            chain.invoke("Hi", config=config)
    assert len(runs.metadata) > 3
    for metadata in runs.metadata:
        assert metadata is not None
        assert metadata.items() >= named.items()


TRACED_PROGRAM = """
import warnings
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tracers.langchain import wait_for_all_tracers
from chatledger import open_store
from chatledger.langchain import *

warnings.simplefilter("ignore")
prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
with open_store("sqlite:///:memory:") as store:
    chain = RunnableWithMessageHistory(
        prompt | OfflineChatModel(),
        owned_session_factory(store),
        input_messages_key="question",
        history_messages_key="history",
        history_factory_config=OWNED_SESSION,
    )
    config = {"configurable": {"user_id": "bob-7", "conversation_id": "trip-7"}}
    print(chain.invoke({"question": "Hi! I'm bob"}, config=config).content)
wait_for_all_tracers()
"""


class FakeLangSmith(BaseHTTPRequestHandler):
    """Stands in for LangSmith and records what it receives."""

    received: list[bytes]

    def do_GET(self) -> None:
        self._answer(b"{}")

    def do_POST(self) -> None:
        self._read()

    def do_PATCH(self) -> None:
        self._read()

    def _read(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received.append(body)
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(202 if self.command != "GET" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def test_langsmith_receives_session_and_owner_if_its_variables_are_set() -> None:
    class RecordingLangSmith(FakeLangSmith):
        received: list[bytes] = []  # noqa: RUF012

    with ThreadingHTTPServer(("127.0.0.1", 0), RecordingLangSmith) as server:
        Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        variables = {
            "LANGCHAIN_TRACING_V2": "true",  # langchain-core 0.3; later versions too
            "LANGCHAIN_ENDPOINT": address,
            "LANGCHAIN_API_KEY": "none",
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_ENDPOINT": address,
            "LANGSMITH_API_KEY": "none",
            "LANGSMITH_DISABLE_RUN_COMPRESSION": "true",
        }
        done = subprocess.run(
            [sys.executable, "-c", TRACED_PROGRAM],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        server.shutdown()
    assert done.stdout.startswith("Hello, bob!"), done.stderr
    sent = b"".join(RecordingLangSmith.received)
    for name, value in (("user_id", "bob-7"), ("conversation_id", "trip-7")):
        assert f'"{name}":{json.dumps(value)}'.encode() in sent.replace(b": ", b":")
