"""Store URLs: one URL names a store and its options."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from chatledger.errors import InvalidArgument
from chatledger.extras import missing_package_error
from chatledger.stores.arguments import checked_lifetime
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.operations import OnCall
from chatledger.values import now

Clock = Callable[[], datetime]

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def open_store(
    url: str,
    *,
    expire_after: timedelta | None = None,
    clock: Clock = now,
    on_call: OnCall | None = None,
) -> Store:
    """Open the store that ``url`` names, for use in a ``with`` block.

    SQLite:

    - ``sqlite:///chatledger.db`` is a file in the working directory;
    - ``sqlite:////var/lib/chatledger.db`` (four slashes) is a file with an absolute path;
    - ``sqlite:///:memory:`` keeps everything in this store object.

    DynamoDB: ``dynamodb://TABLE``, with these options:

    - ``region=eu-west-1``: without it, the region comes from the usual AWS configuration, as
      credentials always do;
    - ``endpoint=http://127.0.0.1:8000``: another endpoint than that of AWS;
    - ``consistent=false``: reads cost half as much, but may miss the latest writes;
    - ``patience=3s``: how long a failing call is retried, instead of 20 seconds;
    - ``cleanup=0s``: how long a write may spend on freeing storage that is no longer needed,
      instead of 2 seconds.

    Both take ``expire_after=30d``, the lifetime of conversations: how long they live after their
    last activity. Durations are a number and a unit: ``s``, ``m``, ``h``, ``d`` or ``w``.

    Args:
        url: The URL.
        expire_after: The lifetime of conversations if the URL does not set one; None means that
            they do not expire.
        clock: Returns the current time; tests pass their own.
        on_call: Called with a ``StoreCall`` after each request to DynamoDB, or each transaction in
            SQLite; for metrics, for example.

    Raises:
        InvalidArgument: The URL is invalid, or a package that it needs is not installed.
        StoreMismatch: The file or table is not a Chatledger store.
        StoreUnavailable: The file cannot be opened.
        AccessRefused: The AWS credentials are missing or were rejected.
    """
    scheme, name, options = _parse(url)
    options = {"expire_after": expire_after, "clock": clock, "on_call": on_call, **options}
    # Imported here, because users of DynamoDB need no sqlite3, and other users no boto3.
    if scheme == "sqlite":
        from chatledger.stores.sqlite import SQLiteStore

        return SQLiteStore(name, **options)
    try:
        from chatledger.stores.dynamodb.clients import ClientOwningStore

        return ClientOwningStore(name, **options)
    except ModuleNotFoundError as missing:
        raise _not_installed(missing, "dynamodb") from missing


def open_async_store(
    url: str,
    *,
    expire_after: timedelta | None = None,
    clock: Clock = now,
    on_call: OnCall | None = None,
) -> AsyncStore:
    """Open the store that ``url`` names, for use in an ``async with`` block.

    Takes the same arguments as ``open_store`` and raises the same errors.
    """
    scheme, name, options = _parse(url)
    options = {"expire_after": expire_after, "clock": clock, "on_call": on_call, **options}
    if scheme == "sqlite":
        from chatledger.stores.sqlite import AsyncSQLiteStore

        return AsyncSQLiteStore(name, **options)
    try:
        from chatledger.stores.dynamodb.store import AsyncDynamoDBStore

        return AsyncDynamoDBStore(name, **options)
    except ModuleNotFoundError as missing:
        raise _not_installed(missing, "async") from missing


def check_url(url: str) -> None:
    """Raise ``InvalidArgument`` unless ``url`` is a valid store URL; nothing is opened."""
    _parse(url)


def without_secrets(url: str) -> str:
    """Return a valid store URL without the user name, password and query of its endpoint."""
    start, separator, query = url.partition("?")
    options = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "endpoint":
            endpoint = urlsplit(value)
            address = endpoint.netloc.rpartition("@")[2]
            value = f"{endpoint.scheme}://{address}{endpoint.path}"
        options.append(f"{name}={value}")
    return start + separator + "&".join(options)


def parse_duration(text: str) -> timedelta:
    """Return the duration that is written as ``text``, such as ``90s``, ``12h`` or ``30d``.

    Raises:
        InvalidArgument: ``text`` is not a duration, or not from 1 second to 36,500 days.
    """
    match = re.fullmatch(r"(\d{1,8})([smhdw])", text.strip(), re.ASCII)
    if match is None:
        raise InvalidArgument(
            f"{text!r} is not a duration; write a number and s, m, h, d or w, such as 30d."
        )
    duration = timedelta(seconds=int(match[1]) * _UNIT_SECONDS[match[2]])
    checked_lifetime(duration, f"The duration {text!r}")
    return duration


def format_duration(duration: timedelta) -> str:
    """Return a duration of whole seconds as ``parse_duration`` reads it, such as ``30d``."""
    seconds = int(duration.total_seconds())
    unit = next(unit for unit in "dhms" if seconds % _UNIT_SECONDS[unit] == 0)
    return f"{seconds // _UNIT_SECONDS[unit]}{unit}"


def _not_installed(missing: ModuleNotFoundError, extra: str) -> InvalidArgument:
    return InvalidArgument(missing_package_error("A store in DynamoDB", missing, extra))


def _parse(url: str) -> tuple[str, str, dict[str, Any]]:
    """Return the kind of store, the path or the table, and the options that ``url`` names."""
    if not isinstance(url, str):
        raise InvalidArgument(
            f"The store is of type {type(url).__name__}; pass its URL as text, such as "
            "sqlite:///chatledger.db or dynamodb://TABLE."
        )
    try:
        parts = urlsplit(url)
    except ValueError as failed:
        raise InvalidArgument(f"The store {url!r} is not a valid URL: {failed}.") from failed
    match parts.scheme:
        case "sqlite":
            path = _parse_path(url, parts)
            options = _parse_options(url, parts, expire_after=parse_duration)
            return parts.scheme, path, options
        case "dynamodb":
            table = _parse_table(url, parts)
            options = _parse_options(
                url,
                parts,
                region=_parse_region,
                endpoint=_parse_endpoint,
                expire_after=parse_duration,
                consistent=_parse_bool,
                patience=_parse_seconds,
                cleanup=_parse_seconds_or_zero,
            )
            return parts.scheme, table, options
    raise InvalidArgument(
        f"The store {url!r} is of an unknown kind; write sqlite:///PATH, such as "
        "sqlite:///chatledger.db, or dynamodb://TABLE."
    )


def _parse_path(url: str, parts: SplitResult) -> str:
    path = unquote(parts.path.removeprefix("/"))
    has_three_slashes = url.partition(":")[2].startswith("///")
    if not has_three_slashes or not path or "\0" in path or parts.fragment:
        raise InvalidArgument(
            f"The store {url!r} does not name a file; write sqlite:///chatledger.db (three "
            "slashes) for a file in the working directory, or sqlite:////var/lib/chatledger.db "
            "(four) for any other."
        )
    return path


def _parse_table(url: str, parts: SplitResult) -> str:
    table = parts.netloc
    is_name = re.fullmatch(r"[\w.-]{3,255}", table, re.ASCII)
    if not is_name or parts.path not in ("", "/") or parts.fragment:
        raise InvalidArgument(
            f"The store {url!r} does not name a table; write dynamodb://TABLE with a name of 3 to "
            "255 letters, digits, dots, dashes and underscores."
        )
    return table


def _parse_options(url: str, parts: SplitResult, **known: Callable[[str], Any]) -> dict[str, Any]:
    """Return the options in the query of ``url``, each parsed by its function in ``known``."""
    options = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            *others, last = known
            names = f"{', '.join(others)} and {last} are" if others else f"only {last} is"
            raise InvalidArgument(f"The store {url!r} has the option {name!r}; {names} known.")
        try:
            options[name] = known[name](value)
        except InvalidArgument as invalid:
            raise InvalidArgument(
                f"The option {name} in the store's URL is not valid: {invalid}"
            ) from invalid
    return options


def _parse_region(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]+", text):
        raise InvalidArgument(f"{text!r} is not an AWS region; write one such as eu-west-1.")
    return text


def _parse_endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an invalid port, for example
        is_valid = False
    if not is_valid:
        raise InvalidArgument(f"{text!r} is not a URL; write one such as http://127.0.0.1:8000.")
    return text


def _parse_seconds(text: str) -> float:
    return parse_duration(text).total_seconds()


def _parse_seconds_or_zero(text: str) -> float:
    return 0.0 if text.strip() == "0s" else _parse_seconds(text)


def _parse_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidArgument(f"{text!r} is not a boolean; write true or false.")
    return text == "true"
