"""Imports: the optional packages they load, and modules that can be imported by themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

import chatledger

SOURCE = Path(chatledger.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
)
OPTIONAL = {
    *("boto3", "botocore", "aiohttp"),
    *("fastapi", "prometheus_client", "starlette", "uvicorn", "chalice", "pydantic", "msgspec"),
    *("pydantic_core", "typer", "click", "anyio", "httpx", "joserfc", "cryptography"),
    *("langchain", "langchain_core", "langgraph", "langsmith", "openai"),
    *("opentelemetry", "pytest", "hypothesis"),
}
PRINT_LOADED = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"


def run(code: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "import chatledger",
        """
from chatledger import Message, open_store
with open_store("sqlite:///chatledger.db?expire_after=30d") as store:
    store.append("greeting", [Message.user("hello")], owner="bob")
    assert store.tail("greeting", 1, owner="bob").messages[0].text == "hello"
    assert store.list("bob").conversations
""",
        """
import asyncio
from chatledger import Message, open_async_store
async def use():
    async with open_async_store("sqlite:///chatledger.db") as store:
        await store.append("greeting", [Message.user("hello")])
        assert (await store.tail("greeting", 1)).messages[0].text == "hello"
asyncio.run(use())
""",
        """
import asyncio
from chatledger import open_async_store
from chatledger.chat import Chat, collect
from chatledger.models import open_model
async def talk():
    async with open_async_store("sqlite:///:memory:") as store:
        reply = await collect(Chat(store, open_model("offline")).stream("Hi", owner="bob"))
        assert reply.text
asyncio.run(talk())
""",
    ],
    ids=["import chatledger", "a SQLite store", "an async SQLite store", "a turn"],
)
def test_the_core_loads_no_optional_dependency(tmp_path: Path, code: str) -> None:
    done = run(code + PRINT_LOADED, tmp_path)
    assert done.stderr == ""
    loaded = set(done.stdout.split())
    assert "chatledger" in loaded
    assert loaded & OPTIONAL == set()


IMPORT_EACH = """
import importlib, os, sys, traceback

modules = sys.argv[1:]
for module in modules:  # loads the dependencies once, before the forks
    importlib.import_module(module)
for name in [name for name in sys.modules if name.partition(".")[0] == "chatledger"]:
    del sys.modules[name]
for module in modules:
    if not os.fork():
        try:
            exec(f"from {module} import *")  # checks the names in its __all__
        except BaseException:
            traceback.print_exc()
        os._exit(0)  # a regular exit takes longer than the import
    os.wait()
"""


def test_each_module_can_be_imported_by_itself(tmp_path: Path) -> None:
    assert {"chatledger", "chatledger.stores.sqlite", "chatledger.testing"} <= set(MODULES)
    errors = run(IMPORT_EACH, tmp_path, *MODULES).stderr
    assert not errors, errors


def test_every_public_name_exists_once_and_in_order() -> None:
    names = chatledger.__all__
    assert names == sorted(set(names))
    for name in names:
        assert getattr(chatledger, name).__module__.startswith("chatledger.")
