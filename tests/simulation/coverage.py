"""Find the lines of the DynamoDB store that no schedule has reached."""

import dis
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.simulation.schedules import ScheduleFailure, run_schedule

PACKAGE = "chatledger.stores.dynamodb"
MEASURED = (
    *("heads", "log", "bodies", "ttl", "cleanup"),
    *(f"plans.{name}" for name in ("append", "create", "delete", "read", "repair")),
    *(f"plans.{name}" for name in ("restore", "scan", "sweep", "truncate", "update")),
)
"""The modules that are measured, within ``PACKAGE``."""


class Coverage:
    """The lines of the measured modules, and those of them that were reached."""

    def __init__(self) -> None:
        self.reached: set[tuple[str, int]] = set()
        self._files = {
            str(import_module(f"{PACKAGE}.{name}").__file__): name.replace(".", "/")
            for name in MEASURED
        }

    @contextmanager
    def measure(self) -> Generator[None]:
        """Note the lines that this thread reaches within the block; it becomes many times slower.

        ``sys.settrace`` is used, which every supported version of Python has.
        """
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._note if frame.f_code.co_filename in self._files else None

    def _note(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.reached.add((frame.f_code.co_filename, frame.f_lineno))
        return self._note

    def run(self, first: int, schedules: int) -> ScheduleFailure | None:
        """Run schedules in this process until one fails; return that failure."""
        with self.measure():
            for seed in range(first, first + schedules):
                failure = run_schedule(seed)
                if failure is not None:
                    return failure
        return None

    def missed(self) -> Iterator[str]:
        """Yield the lines in functions that were not reached."""
        for file, name in self._files.items():
            text = Path(file).read_text(encoding="utf-8").splitlines()
            for line in sorted(_lines_in_functions(file)):
                if (file, line) not in self.reached:
                    yield f"{name}.py:{line}: {text[line - 1].strip()}"

    def share(self) -> float:
        """Return which share of the lines in functions was reached, from 0 to 1."""
        lines = sum(len(_lines_in_functions(file)) for file in self._files)
        return 1 - sum(1 for _ in self.missed()) / lines


def _lines_in_functions(file: str) -> set[int]:
    module = compile(Path(file).read_text(encoding="utf-8"), file, "exec")
    return {line for code in _functions(module) for line in _lines(code)}


def _functions(code: CodeType, *, is_function: bool = False) -> Iterable[CodeType]:
    """Yield the code of every function, but not that of modules and classes."""
    if is_function:
        yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            # Code of classes has no fast locals.
            yield from _functions(constant, is_function=bool(constant.co_flags & OPTIMIZED))


OPTIMIZED = 0x1  # the flag CO_OPTIMIZED (the module inspect)


def _lines(code: CodeType) -> Iterable[int]:
    """Yield the lines of the function's body that can be traced."""
    lines = {line for _, line in dis.findlinestarts(code) if line is not None}
    return lines - {code.co_firstlineno}
