"""Limits so small that short schedules reach them."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from chatledger.stores.dynamodb import bodies, reading

SMALL: tuple[tuple[ModuleType, str, int], ...] = (
    (bodies, "INLINE_BYTES", 320),
    (bodies, "CHUNK_CHARACTERS", 320),
    (bodies, "PART_BYTES", 60),
    (bodies, "PAGE", 2),
    (bodies, "BATCH_ITEMS", 2),
    (reading, "MOST_RECORDS", 3),
    (import_module("chatledger.stores.dynamodb.plans.delete"), "PAGE", 1),
)


@contextmanager
def small_limits() -> Generator[None]:
    """Within, bodies of some hundred characters are long ones, and pages hold a few items."""
    before = [(module, name, getattr(module, name)) for module, name, _ in SMALL]
    for module, name, value in SMALL:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
