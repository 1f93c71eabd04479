"""How far the copy of a table is, kept in a file so that it can go on there."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from threading import Lock
from typing import Any

from chatledger.errors import InvalidArgument
from chatledger.stores.dynamodb.calls import Item


@dataclass(frozen=True, slots=True)
class Problem:
    """A history that was not copied: the key of its item, and why."""

    key: dict[str, Any]
    why: str


@dataclass(slots=True)
class Report:
    """What a copy did.

    ``conversations`` is how many stand in the store as in the source; ``messages`` how many were
    brought over. ``expired`` histories were left out, ``others`` are items without a history. What
    is in ``problems`` needs somebody to look at it.
    """

    conversations: int = 0
    messages: int = 0
    expired: int = 0
    others: int = 0
    problems: list[Problem] = field(default_factory=list)

    def plus(self, other: "Report") -> "Report":
        """Both together."""
        sums = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(Report)
        }
        return Report(**sums)


class Checkpoint:
    """Where each segment of a scan is, and the report so far; safe across threads."""

    def __init__(
        self,
        path: Path | None,
        about: dict[str, Any],
        places: list[Item | None],
        done: list[bool],
        report: Report,
    ) -> None:
        self._path = path
        self._about = about
        self._places = places
        self._done = done
        self._report = report
        self._lock = Lock()

    @classmethod
    def load(cls, path: Path | str | None, table: str, segments: int) -> "Checkpoint":
        """What the file says, or a new one. Raises ``InvalidArgument`` if it is of another copy."""
        about = {"table": table, "segments": segments}
        file = None if path is None else Path(path)
        if file is None or not file.exists():
            return cls(file, about, [None] * segments, [False] * segments, Report())
        try:
            saved = json.loads(file.read_text("utf-8"))
            if saved["about"] != about:
                raise InvalidArgument(
                    f"{file} is the checkpoint of another copy, {saved['about']}; name another "
                    "file, or call with the same table and segments."
                )
            problems = [Problem(**each) for each in saved["report"].pop("problems")]
            report = Report(**saved["report"], problems=problems)
            return cls(file, about, saved["places"], saved["done"], report)
        except (LookupError, TypeError, AttributeError, json.JSONDecodeError) as failed:
            raise InvalidArgument(
                f"{file} is no checkpoint of a copy; name another file, or delete it."
            ) from failed

    def done(self, segment: int) -> bool:
        return self._done[segment]

    def place(self, segment: int) -> Item | None:
        """The key behind which it goes on."""
        return self._places[segment]

    def advance(self, segment: int, place: Item | None, report: Report) -> Report:
        """Keep that the segment is through up to ``place``, or done; the report of all so far."""
        with self._lock:
            self._places[segment] = place
            self._done[segment] = place is None
            self._report = self._report.plus(report)
            if self._path is not None:
                self._save(self._path)
            return self._report

    def finished(self) -> Report:
        """The whole report; the next copy begins anew."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        return self._report

    def _save(self, path: Path) -> None:
        saved = {
            "about": self._about,
            "places": self._places,
            "done": self._done,
            "report": asdict(self._report),
        }
        # At once, so that a crash leaves one that is whole.
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(json.dumps(saved), "utf-8")
        os.replace(beside, path)
