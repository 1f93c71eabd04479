"""The README's first steps, as a new user takes them: install from a clone, run the first example.

The tests install with pip and uv, which download the build backend and packages if they are not
in the caches of this machine.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


SECTION = re.split(r"^## ", README, flags=re.MULTILINE)[1]
INSTALL_LINES = re.findall(
    r"^\$ (pip install .*)$", code_blocks("console", SECTION)[0], re.MULTILINE
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree without the files that git ignores."""
    folder = tmp_path_factory.mktemp("clone")
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in listed.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():  # or it is deleted and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    return folder


def run(command: list[str], folder: Path, environment: Path | None = None) -> str:
    """Run ``command`` in ``folder``, with ``environment`` active, and return what it prints."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHATLEDGER_", "PYTHON", "VIRTUAL_ENV"))
    }
    if environment is not None:
        variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_begins_with_how_to_install() -> None:
    assert SECTION.startswith("Install\n")
    assert INSTALL_LINES[0].split("#")[0].strip() == "pip install ."


def test_the_first_example_prints_the_same_each_time_it_runs_after_the_install_line(
    clone: Path, environment: Path, tmp_path: Path
) -> None:
    run(["bash", "-c", INSTALL_LINES[0]], clone, environment)
    example = code_blocks("python")[0]
    output = code_blocks("text")[0]
    assert run(["python", "-W", "error", "-c", example], tmp_path, environment) == output
    assert run(["python", "-W", "error", "-c", example], tmp_path, environment) == output
    installed = run(["python", "-m", "pip", "list", "--format=freeze"], tmp_path, environment)
    names = {line.partition("==")[0].partition(" @ ")[0] for line in installed.splitlines()}
    assert names - {"pip", "setuptools"} == {"chatledger"}


@pytest.mark.parametrize("line", INSTALL_LINES)
def test_each_install_line_finds_its_packages(line: str, clone: Path, environment: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    arguments = line.removeprefix("pip install ")
    constraints = clone / "constraints.txt"
    command = (
        f"'{uv}' pip install --dry-run --python '{environment}' -c '{constraints}' {arguments}"
    )
    run(["bash", "-c", command], clone)
