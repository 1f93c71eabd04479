"""docs/architecture.md: its diagrams, the files it names and its glossary match the code."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "chatledger"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "scripts" / "diagrams.py"
GLOSSARY = re.findall(r"^\| \*\*(.+?)\*\* \|", PAGE, re.MULTILINE)


def test_the_committed_diagrams_are_what_the_script_draws(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, timeout=60)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {
        path.name: path.read_text(encoding="utf-8")
        for path in (ROOT / "docs" / "diagrams").iterdir()
    }
    assert committed == drawn, "Run python scripts/diagrams.py and commit docs/diagrams."


def test_the_page_shows_every_diagram() -> None:
    shown = re.findall(r"\]\(diagrams/(.+?)\.svg\)", PAGE)
    assert sorted(shown) == sorted(runpy.run_path(str(SCRIPT))["DIAGRAMS"])


def test_a_job_is_given_for_each_package_and_top_level_module_and_nothing_else() -> None:
    script = runpy.run_path(str(SCRIPT))
    in_layers = [name for row in script["layers"]() for name in row]
    existing = [
        path.stem
        for path in SOURCE.iterdir()
        if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py")
    ]
    assert sorted(script["JOBS"]) == sorted(in_layers) == sorted(existing)


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*(?:\.py|/))`", PAGE))
    assert "chat/turn.py" in named
    missing = {name for name in named if not (SOURCE / name).exists()}
    assert missing == set()


@pytest.mark.parametrize("word", GLOSSARY)
def test_the_code_uses_each_word_of_the_glossary(word: str) -> None:
    pattern = re.compile(r"\b" + r"[\s_]+".join(word.split()), re.IGNORECASE)
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py"))


def test_the_glossary_has_each_word_once() -> None:
    assert len(GLOSSARY) == len(set(GLOSSARY)) > 30
