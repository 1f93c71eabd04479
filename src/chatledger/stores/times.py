"""Times as stores keep them: whole milliseconds, counted from 1970 for moments."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(duration: timedelta) -> int:
    """Return ``duration`` in milliseconds."""
    return duration // timedelta(milliseconds=1)


def milliseconds_since_epoch(time: datetime) -> int:
    """Return ``time`` in milliseconds since 1970 (UTC)."""
    return milliseconds(time - _EPOCH)


def to_datetime(time: int) -> datetime:
    """Return the time that is ``time`` milliseconds after 1970, in UTC."""
    return _EPOCH + timedelta(milliseconds=time)
