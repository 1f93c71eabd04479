"""Progress of a table copy, saved in a file so that an interrupted copy can continue."""

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
    """A history that was not copied.

    Attributes:
        key: Key of its item, such as ``{"SessionId": "1"}``.
        why: The reason, as a sentence.
    """

    key: dict[str, Any]
    why: str


@dataclass(slots=True)
class CopyReport:
    """Result of ``copy_langchain_table``.

    Attributes:
        conversations: Conversations that are now the same in the store as in the source.
        messages: Messages that were written to the store.
        expired: Histories that were left out because they have expired.
        others: Items without a history.
        problems: Histories that were not copied and need attention.
    """

    conversations: int = 0
    messages: int = 0
    expired: int = 0
    others: int = 0
    problems: list[Problem] = field(default_factory=list)

    def plus(self, other: "CopyReport") -> "CopyReport":
        """Return the sum of both reports."""
        sums = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(CopyReport)
        }
        return CopyReport(**sums)


class Checkpoint:
    """Progress of each segment of a parallel scan, and the report so far. Thread-safe."""

    def __init__(
        self,
        path: Path | None,
        copy: dict[str, Any],
        last_keys: list[Item | None],
        done: list[bool],
        report: CopyReport,
    ) -> None:
        self._path = path
        self._copy = copy
        self._last_keys = last_keys
        self._done = done
        self._report = report
        self._lock = Lock()

    @classmethod
    def load(cls, path: Path | str | None, table: str, segments: int) -> "Checkpoint":
        """Return the checkpoint saved in the file ``path``, or a new one if there is none.

        Raises:
            InvalidArgument: The file is not a checkpoint, or is one of a different copy.
        """
        copy = {"table": table, "segments": segments}
        file = None if path is None else Path(path)
        if file is None or not file.exists():
            return cls(file, copy, [None] * segments, [False] * segments, CopyReport())
        try:
            saved = json.loads(file.read_text("utf-8"))
            if saved["about"] != copy:
                raise InvalidArgument(
                    f"{file} is the checkpoint of another copy, {saved['about']}; name another "
                    "file, or call with the same table and segments."
                )
            problems = [Problem(**each) for each in saved["report"].pop("problems")]
            report = CopyReport(**saved["report"], problems=problems)
            return cls(file, copy, saved["places"], saved["done"], report)
        except (LookupError, TypeError, AttributeError, json.JSONDecodeError) as failed:
            raise InvalidArgument(
                f"{file} is not a checkpoint of a copy; name another file, or delete it."
            ) from failed

    def is_done(self, segment: int) -> bool:
        return self._done[segment]

    def last_key(self, segment: int) -> Item | None:
        """Return the key after which the scan of ``segment`` continues, or None for its start."""
        return self._last_keys[segment]

    def advance(self, segment: int, last_key: Item | None, report: CopyReport) -> CopyReport:
        """Save the progress of one segment and return the report of the whole copy so far.

        Args:
            last_key: Key of the last item that was copied, or None if the segment is done.
            report: What was copied since the previous call.
        """
        with self._lock:
            self._last_keys[segment] = last_key
            self._done[segment] = last_key is None
            self._report = self._report.plus(report)
            if self._path is not None:
                self._save(self._path)
            return self._report

    def finish(self) -> CopyReport:
        """Delete the file, so that the next copy starts anew, and return the whole report."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        return self._report

    def _save(self, path: Path) -> None:
        saved = {
            "about": self._copy,
            "places": self._last_keys,
            "done": self._done,
            "report": asdict(self._report),
        }
        # Replace the file atomically, so that a crash leaves a complete one.
        new = path.with_name(f"{path.name}.new")
        new.write_text(json.dumps(saved), "utf-8")
        os.replace(new, path)
