"""Tests that run once more with the oldest supported version of an optional package.

All other tests run with the newest versions. ``scripts/test-programs`` installs the oldest ones in
``.cache``, each with what it needs.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent


class Oldest(NamedTuple):
    """An oldest supported version, the tests that run with it and pytest's options for them."""

    folder: str
    package: str
    version: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


# Its pydantic models emit warnings, and its langsmith has a plugin for another pytest version.
LANGCHAIN_OPTIONS = ("-p", "no:langsmith_plugin", "-W", "ignore::DeprecationWarning")
OLDEST = {
    "histories": Oldest(
        "langchain-oldest",
        "langchain-core",
        "0.3.0",
        (
            "langchain/test_messages.py",
            "langchain/test_plain_messages.py",
            "langchain/test_history.py",
            "langchain/test_history_async.py",
            "langchain/test_chaining.py",
            "langchain/test_offline.py",
            "langchain/test_tracing.py",
            "langchain/test_dropin_old_items.py",
            "langchain/test_dropin_values.py",
        ),
        (*LANGCHAIN_OPTIONS, "-k", "not dynamodb"),
    ),
    "models": Oldest(
        "langchain-oldest",
        "langchain-core",
        "0.3.0",
        ("models/test_langchain.py", "models/test_langchain_factory.py"),
        LANGCHAIN_OPTIONS,
    ),
    # Those that need no runtime: LangGraph's newest one needs a newer langgraph-checkpoint.
    "checkpoints": Oldest(
        "langgraph-oldest",
        "langgraph-checkpoint",
        "4.1.0",
        ("langgraph/test_conformance.py", "langgraph/test_store_query.py"),
        ("-k", "not dynamodb"),
    ),
}


@pytest.mark.parametrize("oldest", OLDEST.values(), ids=OLDEST)
def test_the_oldest_supported_version_passes(oldest: Oldest) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT / ".cache" / oldest.folder)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    program = f"from importlib.metadata import version; print(version({oldest.package!r}))"
    assert run("-c", program).stdout.strip() == oldest.version, (
        "run scripts/test-programs, which installs it in .cache"
    )
    files = [str(TESTS / test) for test in oldest.tests]
    tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *oldest.options, *files)
    assert tested.returncode == 0, tested.stdout[-5_000:] + tested.stderr[-2_000:]
