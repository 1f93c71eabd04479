"""The map of folders in CONTRIBUTING.md matches the folders that exist."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "chatledger"


def test_the_map_names_every_package_and_top_level_module_once_and_nothing_else() -> None:
    packages = [init.parent for init in SOURCE.rglob("__init__.py") if init.parent != SOURCE]
    modules = [module for module in SOURCE.glob("*.py") if module.name != "__init__.py"]
    existing = {path.relative_to(SOURCE).as_posix() for path in (*packages, *modules)}
    assert dict.fromkeys(existing, 1) == Counter(mapped_names())


def test_every_link_of_the_contributors_guide_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert "docs/architecture.md" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def mapped_names() -> list[str]:
    """Return the names in the first column of the table under the heading Layout."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layout = text.partition("## Layout\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", layout, flags=re.MULTILINE)
