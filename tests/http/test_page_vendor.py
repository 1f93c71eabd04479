"""The libraries of the page and of its tests are those that scripts/vendor.py fetches."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from tests.serving import StartServer

ROOT = Path(__file__).parents[2]
VENDOR = Path("src/chatledger/http/page/vendor")
TEST_VENDOR = Path("tests/http/vendor")


def check(root: Path) -> subprocess.CompletedProcess[str]:
    script = root / "scripts" / "vendor.py"
    return subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )


def test_the_libraries_are_unchanged() -> None:
    done = check(ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_a_missing_and_an_unknown_file_are_found(tmp_path: Path) -> None:
    for folder in (VENDOR, TEST_VENDOR):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "vendor.py", tmp_path / "scripts")
    assert check(tmp_path).returncode == 0
    with (tmp_path / VENDOR / "markdown-it.js").open("a") as file:
        file.write("\n")
    (tmp_path / VENDOR / "highlight.js").unlink()
    (tmp_path / VENDOR / "unknown.js").touch()
    (tmp_path / TEST_VENDOR / "axe.js").unlink()
    done = check(tmp_path)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stderr.splitlines()] == [
        "highlight.js",
        "markdown-it.js",
        "unknown.js",
        "axe.js",
    ]


def test_the_licenses_name_every_library(start_server: StartServer) -> None:
    server = start_server()
    response = httpx.get(f"{server.url}/page/vendor/LICENSES.md", trust_env=False)
    for name in ("markdown-it", "entities", "linkify-it", "@highlightjs/cdn-assets"):
        assert f"## {name}\n\n```text\n" in response.text
    for name in ("markdown-it.js", "highlight.js"):
        response = httpx.get(f"{server.url}/page/vendor/{name}", trust_env=False)
        assert response.headers["Content-Type"].startswith("text/javascript")
        assert response.headers["Cache-Control"] == "no-cache"
