"""The tests once more with the oldest supported langchain-core; all others run with the newest."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
OLDEST = ROOT / ".cache" / "langchain-oldest"
"""Installed by ``scripts/test-programs``."""
TESTS = (
    "test_messages",
    "test_plain_messages",
    "test_history",
    "test_history_async",
    "test_chaining",
    "test_offline",
    "test_tracing",
    "test_dropin_old_items",
    "test_dropin_values",
)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(OLDEST)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_everything_works_with_the_oldest_langchain_core() -> None:
    version = run("-c", "from importlib.metadata import version; print(version('langchain-core'))")
    assert version.stdout.strip() == "0.3.0", (
        "run scripts/test-programs, which installs it in .cache"
    )
    files = [str(FOLDER / f"{name}.py") for name in TESTS]
    # Its pydantic models emit warnings, and its langsmith has a plugin for another pytest version.
    options = ["-p", "no:langsmith_plugin", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::DeprecationWarning", "-k", "not dynamodb", "-q"]
    tested = run("-m", "pytest", *options, *files)
    assert tested.returncode == 0, tested.stdout[-5_000:] + tested.stderr[-2_000:]
