"""The limits among the settings, and the tables of settings in the docs."""

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import fields

from chatledger.settings import PREFIX, Settings, read_settings

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "settings_table.py"
PAGE = ROOT / "docs" / "running.md"


def rows(page: Path) -> dict[str, str]:
    """Return the default that the table of the page shows, by the variable."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(CHATLEDGER_\w+)` \| (.+?) \|", text, re.MULTILINE))


LIMITS = {
    "window_tokens": 32_000,
    "max_tokens": 4_096,
    "time_limit": timedelta(minutes=2),
    "turns_at_once": 3,
    "all_turns_at_once": 200,
    "turns_a_minute": 20,
    "tokens_a_day": 500_000,
    "bytes_a_day": 5_000_000,
    "conversations": 1_000,
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_has_a_default_and_can_be_changed_and_turned_off(name: str) -> None:
    variable = f"{PREFIX}{name}".upper()
    changed: tuple[str, object] = ("7", 7) if name != "time_limit" else ("7s", timedelta(seconds=7))
    assert getattr(read_settings({}), name) == LIMITS[name]
    assert getattr(read_settings({variable: changed[0]}), name) == changed[1]
    assert getattr(read_settings({variable: "off"}), name) is None


def test_the_committed_table_is_what_the_script_writes(tmp_path: Path) -> None:
    page = tmp_path / "running.md"
    page.write_bytes(PAGE.read_bytes())
    subprocess.run([sys.executable, str(SCRIPT), str(page)], check=True, timeout=60)
    is_current = page.read_bytes() == PAGE.read_bytes()
    assert is_current, "Run python scripts/settings_table.py and commit docs/running.md."


def test_the_table_has_every_setting_in_one_row() -> None:
    assert list(rows(PAGE)) == [f"{PREFIX}{field.name}".upper() for field in fields(Settings)]


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"], ids=lambda page: page.name)
def test_each_default_that_a_page_shows_is_the_default(page: Path) -> None:
    defaults = read_settings({})
    shown = {
        name: default.strip("`")
        for name, default in rows(page).items()
        if default.startswith("`") and "<" not in default
    }
    assert len(shown) >= 4
    for name, default in shown.items():
        field = name.removeprefix(PREFIX).lower()
        assert getattr(read_settings({name: default}), field) == getattr(defaults, field), name
