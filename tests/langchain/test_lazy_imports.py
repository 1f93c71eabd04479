"""Modules that ``chatledger.langchain`` imports, and errors if a package is missing."""

import subprocess
import sys

import pytest

LOADED = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"


def run(code: str) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in a fresh interpreter that shows every warning."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_the_package_loads_no_dependency() -> None:
    done = run(f"import chatledger.langchain; {LOADED}")
    assert done.stderr == ""
    assert set(done.stdout.split()) & {"langchain_core", "boto3", "pydantic"} == set()


@pytest.mark.parametrize(
    "name", ["ChatMessageHistory", "OfflineChatModel", "session_factory", "to_chatledger"]
)
def test_names_that_work_on_any_store_do_not_load_boto3(name: str) -> None:
    done = run(f"from chatledger.langchain import {name}; {LOADED}")
    assert "langchain_core" in done.stdout.split()
    assert "boto3" not in done.stdout.split()


def test_importing_prints_no_warning() -> None:
    assert run("from chatledger.langchain import *").stderr == ""


@pytest.mark.parametrize(
    ("missing", "name", "needed", "requirement"),
    [
        ("langchain_core", "ChatMessageHistory", "langchain-core", "langchain-core>=0.3"),
        ("boto3", "DynamoDBChatMessageHistory", "boto3", "boto3>=1.40"),
    ],
)
def test_the_error_for_a_missing_package_has_the_command_that_installs_it(
    missing: str, name: str, needed: str, requirement: str
) -> None:
    done = run(
        f"import sys; sys.modules[{missing!r}] = None\nfrom chatledger.langchain import {name}"
    )
    command = f"{sys.executable} -m pip install '{requirement}'"
    said = f"{name} needs {needed}; install it with {command}."
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said}"


def test_an_unknown_name_raises_an_ordinary_import_error() -> None:
    done = run("from chatledger.langchain import ChatHistory")
    assert "ImportError: cannot import name 'ChatHistory'" in done.stderr
