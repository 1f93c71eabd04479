"""One URL names a store."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, unquote, urlsplit

from recollect.conversations import check_lifetime
from recollect.errors import InvalidArgument
from recollect.messages import now
from recollect.stores.contract import AsyncStore, Store
from recollect.stores.sqlite import SQLiteStore
from recollect.stores.threads import ThreadedStore

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def open_store(
    url: str, *, expire_after: timedelta | None = None, clock: Callable[[], datetime] = now
) -> Store:
    """The store that ``url`` names, for use in a ``with`` block.

    ``sqlite:///recollect.db`` is a file in the working directory, ``sqlite:////var/lib/r.db`` one
    with an absolute path, ``sqlite:///:memory:`` none at all. ``?expire_after=30d`` (s, m, h, d or
    w) is how long a conversation lives after its last activity; the argument ``expire_after`` is
    for URLs that do not say. Raises ``InvalidArgument``, ``StoreMismatch``, ``StoreUnavailable``.
    """
    path, options = _parsed(url)
    return SQLiteStore(path, expire_after=options.get("expire_after", expire_after), clock=clock)


def open_async_store(
    url: str, *, expire_after: timedelta | None = None, clock: Callable[[], datetime] = now
) -> AsyncStore:
    """As ``open_store``, for use in an ``async with`` block."""
    # More than one, so that readers need not wait for writers.
    return ThreadedStore(open_store(url, expire_after=expire_after, clock=clock), threads=8)


def check_url(url: str) -> None:
    """Raise ``InvalidArgument`` unless ``url`` can name a store; nothing is opened."""
    _parsed(url)


def duration(text: str) -> timedelta:
    """The time that a text such as ``30d``, ``12h`` or ``90s`` says. Raises ``InvalidArgument``."""
    match = re.fullmatch(r"(\d{1,8})([smhdw])", text.strip(), re.ASCII)
    if match is None:
        raise InvalidArgument(f"{text!r} is no time; write a number and s, m, h, d or w: 30d.")
    time = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    check_lifetime(time, f"The time {text!r}")
    return time


def _parsed(url: str) -> tuple[str, dict[str, timedelta]]:
    try:
        parts = urlsplit(url)
    except ValueError as failed:
        raise InvalidArgument(f"The store {url!r} is no URL: {failed}.") from failed
    if parts.scheme != "sqlite":
        raise InvalidArgument(
            f"The store {url!r} is of no known kind; write sqlite:///PATH, "
            "such as sqlite:///recollect.db."
        )
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or "\0" in path or parts.fragment:
        raise InvalidArgument(
            f"The store {url!r} names no file; write sqlite:///recollect.db (three slashes) for "
            "one in the working directory, sqlite:////var/lib/recollect.db (four) for any other."
        )
    options = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "expire_after":
            raise InvalidArgument(f"The store {url!r} has {name!r}; only expire_after is known.")
        options[name] = duration(value)
    return path, options
