"""Limits so small that short schedules reach them."""

from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType

from chatledger.stores.dynamodb import reading, storage
from chatledger.stores.dynamodb.plans import ends

SMALL: tuple[tuple[ModuleType, str, int], ...] = (
    (storage, "INLINE_BYTES", 320),
    (storage, "CHUNK_CHARACTERS", 320),
    (storage, "PART_BYTES", 60),
    (storage, "PAGE", 2),
    (storage, "BATCH_ITEMS", 2),
    (reading, "MOST_RECORDS", 3),
    (ends, "PAGE", 1),
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
