"""Limits of the DynamoDB store, made so small that short schedules reach them."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType

from chatledger.stores.dynamodb import bodies, cleanup, entries, ttl
from chatledger.stores.dynamodb.plans import create, delete, read, update

SMALL_LIMITS: tuple[tuple[ModuleType, str, int], ...] = (
    (bodies, "INLINE_BYTES", 320),
    (bodies, "CHUNK_CHARACTERS", 320),
    (bodies, "PART_BYTES", 60),
    (bodies, "BATCH_ITEMS", 2),
    (bodies, "PARTS_AT_ONCE", 5),
    (cleanup, "BATCH_ITEMS", 2),
    (cleanup, "PAGE", 3),
    (entries, "PAGE", 2),
    (read, "MIN_RECORDS", 2),
    (read, "MAX_RECORDS", 3),
    (ttl, "RENEWED_ITEMS", 3),
    (ttl, "READ_RECORDS", 3),
    (create, "COPIED_AT_ONCE", 3),
    (delete, "PAGE", 1),
    (read, "MIN_HEADS", 2),
    (update, "MAX_REPLACED_CHUNKS", 2),
)


_logger = logging.getLogger("chatledger.stores")


@contextmanager
def simulation_settings() -> Generator[None]:
    """Apply ``SMALL_LIMITS`` within the block, and silence the store's warnings.

    With these limits, bodies of a few hundred characters are stored in parts, and pages hold a few
    items.
    """
    was_disabled, _logger.disabled = _logger.disabled, True
    before = [(module, name, getattr(module, name)) for module, name, _ in SMALL_LIMITS]
    for module, name, value in SMALL_LIMITS:
        setattr(module, name, value)
    try:
        yield
    finally:
        _logger.disabled = was_disabled
        for module, name, value in before:
            setattr(module, name, value)
