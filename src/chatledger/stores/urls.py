"""One URL names a store."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from chatledger.conversations import check_lifetime
from chatledger.errors import InvalidArgument
from chatledger.messages import now
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.locations import DynamoDBPlace, Place, SQLitePlace

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def open_store(
    url: str, *, expire_after: timedelta | None = None, clock: Callable[[], datetime] = now
) -> Store:
    """The store that ``url`` names, for use in a ``with`` block.

    ``sqlite:///chatledger.db`` is a file in the working directory, ``sqlite:////var/lib/r.db`` one
    with an absolute path, ``sqlite:///:memory:`` none at all.

    ``dynamodb://conversations`` is a table of that name. ``?region=eu-west-1`` and
    ``?endpoint=http://127.0.0.1:8000`` say where; credentials, and a region that is not said, come
    from the usual AWS chain. ``?consistent=false`` halves the price of reads. ``?patience=3s`` is
    how long a call is tried again for, instead of 20 seconds.

    ``?expire_after=30d`` (s, m, h, d or w) is how long a conversation lives after its last
    activity; the argument ``expire_after`` is for URLs that do not say. Raises
    ``InvalidArgument``, ``StoreMismatch``, ``StoreUnavailable`` and ``AccessRefused``.
    """
    return _place(url).open(expire_after=expire_after, clock=clock)


def open_async_store(
    url: str, *, expire_after: timedelta | None = None, clock: Callable[[], datetime] = now
) -> AsyncStore:
    """As ``open_store``, for use in an ``async with`` block."""
    return _place(url).open_async(expire_after=expire_after, clock=clock)


def check_url(url: str) -> None:
    """Raise ``InvalidArgument`` unless ``url`` can name a store; nothing is opened."""
    _place(url)


def duration(text: str) -> timedelta:
    """The time that a text such as ``30d``, ``12h`` or ``90s`` says. Raises ``InvalidArgument``."""
    match = re.fullmatch(r"(\d{1,8})([smhdw])", text.strip(), re.ASCII)
    if match is None:
        raise InvalidArgument(f"{text!r} is no time; write a number and s, m, h, d or w: 30d.")
    time = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    check_lifetime(time, f"The time {text!r}")
    return time


def _place(url: str) -> Place:
    try:
        parts = urlsplit(url)
    except ValueError as failed:
        raise InvalidArgument(f"The store {url!r} is no URL: {failed}.") from failed
    match parts.scheme:
        case "sqlite":
            path = _path(url, parts)
            return SQLitePlace(path, **_options(url, parts, expire_after=duration))
        case "dynamodb":
            table = _table(url, parts)
            options = _options(
                url,
                parts,
                region=_region,
                endpoint=_endpoint,
                expire_after=duration,
                consistent=_true_or_false,
                patience=duration,
            )
            return DynamoDBPlace(table, **options)
    raise InvalidArgument(
        f"The store {url!r} is of no known kind; write sqlite:///PATH, such as "
        "sqlite:///chatledger.db, or dynamodb://TABLE."
    )


def _path(url: str, parts: SplitResult) -> str:
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or "\0" in path or parts.fragment:
        raise InvalidArgument(
            f"The store {url!r} names no file; write sqlite:///chatledger.db (three slashes) for "
            "one in the working directory, sqlite:////var/lib/chatledger.db (four) for any other."
        )
    return path


def _table(url: str, parts: SplitResult) -> str:
    table = parts.netloc
    is_name = re.fullmatch(r"[\w.-]{3,255}", table, re.ASCII)
    if not is_name or parts.path not in ("", "/") or parts.fragment:
        raise InvalidArgument(
            f"The store {url!r} names no table; write dynamodb://TABLE with 3 to 255 letters, "
            "digits, dots, dashes and underscores."
        )
    return table


def _options(url: str, parts: SplitResult, **known: Callable[[str], Any]) -> dict[str, Any]:
    options = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            *others, last = known
            names = f"{', '.join(others)} and {last} are" if others else f"only {last} is"
            raise InvalidArgument(f"The store {url!r} has {name!r}; {names} known.")
        options[name] = known[name](value)
    return options


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]+", text):
        raise InvalidArgument(f"{text!r} is no AWS region; write one such as eu-west-1.")
    return text


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, say
        named = False
    if not named:
        raise InvalidArgument(
            f"The endpoint {text!r} is no address; write one such as http://127.0.0.1:8000."
        )
    return text


def _true_or_false(text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidArgument(f"{text!r} is neither true nor false.")
    return text == "true"
