"""What an import of the integration brings along, and what it says where something is missing."""

import subprocess
import sys

import pytest

LOADED = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"


def run(code: str) -> "subprocess.CompletedProcess[str]":
    """What a fresh interpreter, that shows every warning, makes of ``code``."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_package_loads_nothing_before_it_is_asked_for_something() -> None:
    done = run(f"import chatledger.langchain; {LOADED}")
    assert done.stderr == ""
    assert set(done.stdout.split()) & {"langchain_core", "boto3", "pydantic"} == set()


@pytest.mark.parametrize(
    "name", ["ChatMessageHistory", "OfflineChatModel", "session_factory", "to_chatledger"]
)
def test_what_is_over_any_store_loads_no_boto3(name: str) -> None:
    done = run(f"from chatledger.langchain import {name}; {LOADED}")
    assert "langchain_core" in done.stdout.split()
    assert "boto3" not in done.stdout.split()


def test_importing_prints_no_warning() -> None:
    assert run("from chatledger.langchain import *").stderr == ""


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("langchain_core", "ChatMessageHistory", "langchain"),
        ("boto3", "DynamoDBChatMessageHistory", "dynamodb"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    missing: str, name: str, extra: str
) -> None:
    done = run(
        f"import sys; sys.modules[{missing!r}] = None\nfrom chatledger.langchain import {name}"
    )
    said = f"{name} needs {missing}; install it with pip install 'chatledger[{extra}]'."
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said}"


def test_a_name_that_is_not_there_is_no_missing_package() -> None:
    done = run("from chatledger.langchain import ChatHistory")
    assert "ImportError: cannot import name 'ChatHistory'" in done.stderr
