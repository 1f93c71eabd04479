"""Extras: the packages that errors name, and the extras that the documentation names."""

import re
import subprocess
import sys
import tomllib
from operator import attrgetter
from pathlib import Path

import pytest

from chatledger.extras import REQUIREMENTS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def requirements_of(extra: str) -> set[str]:
    """Return the requirements of ``extra``, with those of the extras that it includes."""
    requirements = set()
    for requirement in EXTRAS[extra]:
        included = re.fullmatch(r"chatledger\[(.+)\]", requirement)
        if included is None:
            requirements.add(requirement)
        else:
            requirements.update(*map(requirements_of, included[1].split(",")))
    return requirements


@pytest.mark.parametrize("extra", REQUIREMENTS)
def test_errors_name_the_requirements_of_pyproject(extra: str) -> None:
    assert sorted(REQUIREMENTS[extra]) == sorted(requirements_of(extra))


def test_the_core_has_no_dependency() -> None:
    assert PROJECT["dependencies"] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *ROOT.glob("docs/*.md")], ids=attrgetter("name")
)
def test_every_extra_that_the_documentation_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:'\.|\bchatledger)\[([a-z,]+)\]", text)
    assert {extra for names in named for extra in names.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize(
    ("missing", "arguments", "subject"),
    [
        ("typer", ["--version"], "The command"),
        ("uvicorn", ["serve"], "The server"),
        ("msgspec", ["serve"], "The server"),
        ("fastapi", ["serve"], "The server"),
        ("prometheus_client", ["serve"], "The server"),
    ],
)
def test_the_command_says_how_to_install_a_missing_package(
    missing: str, arguments: list[str], subject: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from chatledger.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"{subject} needs {missing.replace('_', '-')}; install it with {sys.executable} -m pip "
        "install 'fastapi>=0.162' 'uvicorn>=0.40' 'msgspec>=0.20' 'typer>=0.29' "
        "'prometheus-client>=0.22'.\n"
    )
