"""Skipped tests count as failed in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.skip(reason="no such program")
def test_skipped(): ...

@pytest.mark.xfail
def test_expected_to_fail(): assert False

def test_passes(): ...
"""
MODULE = "import pytest; pytest.importorskip('no_such_module')"


@pytest.mark.parametrize(
    ("ci", "summary", "status"),
    [("", "1 passed, 2 skipped, 1 xfailed", 0), ("true", "1 passed, 1 xfailed, 2 errors", 1)],
)
def test_skipped_tests_fail_only_in_ci(tmp_path: Path, ci: str, summary: str, status: int) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_others.py").write_text(MODULE)
    pytest_command = [sys.executable, "-m", "pytest", "-p", "tests.no_skips"]
    done = subprocess.run(
        [*pytest_command, "--continue-on-collection-errors", str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert summary in done.stdout
    assert done.returncode == status
