"""The pytest fixtures that are published, in a project of somebody else."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

from chatledger.testing.dynamodb_local import DynamoDBLocal

ROOT = Path(__file__).parents[2]
PLUGIN = "chatledger.testing.plugin"
TESTS = """
import asyncio

import boto3
import pytest

from chatledger import open_async_store
from chatledger.chat import Chat, SyncChat
from chatledger.models.bedrock import BedrockModel


def test_a_turn(chatledger_store, chatledger_model):
    chatledger_model.script("Hello, Bob!")
    reply = SyncChat(chatledger_store, chatledger_model).send("Hi, I am Bob", owner="bob")
    assert reply.text == "Hello, Bob!"


def test_an_async_turn(chatledger_url, chatledger_store, chatledger_model):
    async def talk():
        async with open_async_store(chatledger_url) as store:
            return await Chat(store, chatledger_model).send("Hi", owner="bob")

    chatledger_model.script("Hello!")
    reply = asyncio.run(talk())
    assert [message.text for message in chatledger_store.tail(reply.conversation_id)] == [
        "Hi", "Hello!",
    ]


def test_every_store_is_new(chatledger_store):
    assert not list(chatledger_store.list("bob"))


def test_bedrock(chatledger_store, chatledger_bedrock):
    chat = SyncChat(chatledger_store, BedrockModel("amazon.nova-lite-v1:0"))
    assert "Bob" in chat.send("Hi, I am Bob", owner="bob").text
    assert len(chatledger_bedrock.requests) == 1


def test_dynamodb(chatledger_dynamodb):
    assert "TableNames" in chatledger_dynamodb.client().list_tables()
"""


def run_pytest(folder: Path, *arguments: str, **variables: str) -> str:
    """Run pytest in ``folder`` with the plugin and without any that are installed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, *arguments],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_fixtures_work_in_a_project_without_any_configuration(
    tmp_path: Path, dynamodb_local: DynamoDBLocal
) -> None:
    (tmp_path / "test_theirs.py").write_text(TESTS)
    passed = run_pytest(tmp_path, CHATLEDGER_TEST_DYNAMODB=dynamodb_local.endpoint)
    assert "5 passed" in passed


def test_the_tests_that_the_documentation_shows_pass(
    tmp_path: Path, dynamodb_local: DynamoDBLocal
) -> None:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    tests = [block for block in blocks if "def test_" in block]
    assert len(tests) == 4
    for number, test in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(test)
    passed = run_pytest(tmp_path, CHATLEDGER_TEST_DYNAMODB=dynamodb_local.endpoint)
    assert "4 passed" in passed


def test_pytest_lists_them_with_what_they_provide(tmp_path: Path) -> None:
    listed = run_pytest(tmp_path, "--fixtures", "--co")
    named = [line for line in listed.splitlines() if line.startswith("chatledger_")]
    assert len(named) == 5
    assert "no docstring available" not in listed.partition("chatledger_")[2]


def test_a_project_that_uses_no_fixture_loads_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n"
        "def test_nothing_else_is_loaded():\n"
        "    loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'boto3', 'aiohttp', 'sqlite3', 'openai', 'langchain_core'}\n"
        "    ours = [name for name in sys.modules if name.startswith('chatledger.')]\n"
        "    assert 'chatledger.testing.plugin' in ours\n"
        "    assert not [name for name in ours if name.startswith(('chatledger.models', "
        "'chatledger.chat', 'chatledger.stores.sqlite'))]\n"
    )
    assert "1 passed" in run_pytest(tmp_path)


def test_the_project_names_the_plugin_for_pytest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"chatledger": PLUGIN}
    assert import_module(PLUGIN)
