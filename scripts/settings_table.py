"""Writes the table of settings in docs/running.md: ``python scripts/settings_table.py [PAGE]``.

It is generated from ``chatledger.settings``. A test compares the page with what this script writes.
"""

import sys
from datetime import timedelta
from pathlib import Path

from msgspec.structs import FieldInfo, fields

from chatledger.settings import EVERYWHERE, PREFIX, Settings

PAGE = Path(__file__).parents[1] / "docs" / "running.md"
BEGIN = "<!-- The table is written by scripts/settings_table.py. -->"
END = "<!-- The end of the table of settings. -->"
UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def settings_table() -> str:
    """Return the table of all settings, in Markdown."""
    lines = ["| variable | default | meaning | where it applies |", "|---|---|---|---|"]
    for field in fields(Settings):
        meta = field.type.__metadata__[-1]
        place = (meta.extra or {}).get("place", EVERYWHERE)
        name = f"`{PREFIX}{field.name.upper()}`"
        lines.append(f"| {name} | {_shown_default(field)} | {meta.description} | {place} |")
    return "\n".join(lines)


def _shown_default(field: FieldInfo) -> str:
    extra = field.type.__metadata__[-1].extra or {}
    if "default" in extra:
        return str(extra["default"])
    match getattr(Settings(), field.name):
        case None | []:
            return "none"
        case bool() as default:
            return f"`{str(default).lower()}`"
        case timedelta() as default:
            return f"`{_duration(default)}`"
        case default:
            return f"`{default}`"


def _duration(duration: timedelta) -> str:
    for unit, length in UNITS.items():
        if not duration % length:
            return f"{duration // length}{unit}"
    return f"{duration.total_seconds():g}s"


def write_table(page: Path) -> None:
    """Replace the table of the page, which is between two comments."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{page} must have the lines {BEGIN} and {END}, in this order; add them.")
    text = f"{before}{BEGIN}\n\n{settings_table()}\n\n{END}{after}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
