"""The values of which messages and conversations consist: JSON, ids and times.

Every store keeps them in the same form and returns them exactly as they were written.
"""

import json
import math
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, uuid5

from chatledger.errors import InvalidArgument

# JSON ---------------------------------------------------------------------------------------------

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 100
"""The most levels of lists and dicts within one another."""

MAX_INTEGER_BITS = 2_000
# About 600 digits. A process can be told to parse no integer of more than 640 digits (the lowest
# value that sys.set_int_max_str_digits takes), and every process must be able to read what
# another one wrote.


MAX_QUOTED_CHARACTERS = 50
"""The characters of a key that an error quotes."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

# raw_decode, because decode also skips white space, which doubles the time for short texts.
_decode = json.JSONDecoder().raw_decode


def dumps(value: object) -> str:
    """Return ``value`` as compact JSON text."""
    return _encode(value)


def loads(text: str) -> Any:
    """Return the value that ``dumps`` encoded as ``text``.

    Raises:
        ValueError: ``text`` is not JSON, or continues after the JSON value.
    """
    value, end = _decode(text)
    if end != len(text):
        raise ValueError(f"The text continues after the JSON value, at character {end}.")
    return value


Part: TypeAlias = "str | tuple[Part, int | str | None]"
"""The name of a value; within another value, that one's name with an index or a key.

None instead stands for a key itself. The name is written out only for an error, because the keys of
all values around a value can be long.
"""


def _name(part: Part) -> str:
    if isinstance(part, str):
        return part
    outer, step = part
    if step is None:
        return f"a key of {_name(outer)}"
    if isinstance(step, int):
        return f"{_name(outer)}[{step}]"
    cut = "…" if len(step) > MAX_QUOTED_CHARACTERS else ""
    return f"{_name(outer)}.{step[:MAX_QUOTED_CHARACTERS]}{cut}"


def checked_text(value: object, part: Part, *, error: type[InvalidArgument]) -> str:
    """Return ``value`` as a plain ``str``; raise ``error`` unless UTF-8 can encode it.

    Args:
        value: The value to check; a subclass of ``str``, such as an enum's member, becomes a
            plain ``str``.
        part: The name of the value for the error message, such as ``"content[0].text"``.
        error: The class of error to raise.
    """
    if not isinstance(value, str):
        raise error(f"{_name(part)} is {_type_name(value)}; it must be a str.")
    # str.__str__, because a subclass may override __str__.
    text = value if type(value) is str else str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as failed:
            raise error(
                f"{_name(part)} contains a lone surrogate at character {failed.start}, "
                "which UTF-8 cannot encode; decode the text correctly where it comes from."
            ) from None
    return text


def without_lone_surrogates(text: str) -> str:
    """Return ``text`` with � in place of lone surrogates, which UTF-8 cannot encode."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def checked_json(
    value: object, part: Part, *, error: type[InvalidArgument], depth: int = MAX_DEPTH
) -> Json:
    """Return a copy of ``value`` that is pure JSON, equal to it and of the same types.

    Args:
        value: The value to check.
        part: The name of the value for the error message.
        error: The class of error to raise, with a sentence that names the part at fault, such as
            ``content[0].data is of type bytes; encode it as text, for example with base64.``
        depth: The levels of nesting still allowed.
    """
    match value:
        case None | bool():
            return value
        case str():
            return checked_text(value, part, error=error)
        case int():
            if value.bit_length() > MAX_INTEGER_BITS:
                raise error(
                    f"{_name(part)} is an integer of more than 600 digits; store it as text."
                )
            return int(value)
        case float():
            if not math.isfinite(value):
                raise error(
                    f"{_name(part)} is {float(value)}, which JSON cannot hold; use None or text."
                )
            return float(value)
        case list() | dict() if depth == 0:
            raise error(
                f"{_name(part)} is nested more than {MAX_DEPTH} levels deep; flatten it or store "
                "it as text."
            )
        case list():
            return [
                checked_json(item, (part, n), error=error, depth=depth - 1)
                for n, item in enumerate(value)
            ]
        case dict():
            copy: dict[str, Json] = {}
            for key, item in value.items():
                if not isinstance(key, str):
                    raise error(f"{_name(part)} has the key {key!r}; keys must be str.")
                name = checked_text(key, (part, None), error=error)
                copy[name] = checked_json(item, (part, name), error=error, depth=depth - 1)
            return copy
        case bytes() | bytearray() | memoryview():
            raise error(
                f"{_name(part)} is {_type_name(value)}; encode it as text, for example with base64."
            )
        case tuple():
            raise error(f"{_name(part)} is a tuple, which would come back as a list; pass a list.")
    raise error(
        f"{_name(part)} is {_type_name(value)}; "
        "only None, bool, int, float, str, list and dict can be stored and come back equal."
    )


def checked_object(
    value: object, part: str, *, limit: int, error: type[InvalidArgument]
) -> dict[str, Json]:
    """Return a checked copy of the dict ``value``, as ``checked_json`` does.

    Args:
        value: The value to check.
        part: The name of the value for the error message.
        limit: The largest size allowed, in bytes of JSON.
        error: The class of error to raise.
    """
    if not isinstance(value, dict):
        raise error(f"{part} is {_type_name(value)}; it must be a dict.")
    copy = checked_json(value, part, error=error)
    assert isinstance(copy, dict)
    if copy and (size := len(dumps(copy).encode())) > limit:
        raise error(f"{part} is {size:,} bytes as JSON, over the limit of {limit:,}.")
    return copy


def _type_name(value: object) -> str:
    return f"of type {type(value).__name__}" if value is not None else "None"


# Ids: they sort by time, and are unique even across copies of a process's memory ------------------


def new_id(at: int | None = None) -> str:
    """Return a new UUIDv7 (RFC 9562): unique, and sorting after the ids made before it.

    Its random bits come from the operating system with every call. State kept in the process would
    be copied with it: by ``fork()``, and by restored images such as AWS Lambda SnapStart, whose
    copies would then make the same ids.

    Args:
        at: The time that the id carries, in milliseconds since 1970; by default now. The default
            also fills the 12 bits after the milliseconds with the fraction of the millisecond
            (RFC 9562, section 6.2, method 3), so that ids of one process sort in order.
    """
    random = int.from_bytes(os.urandom(10), "big")
    if at is None:
        ms, nanoseconds = divmod(time.time_ns(), 1_000_000)
        fraction = nanoseconds * 4096 // 1_000_000
    else:
        ms, fraction = at, random >> 64 & 0xFFF
    value = ms << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def time_of_id(id: str) -> int:
    """Return when a UUIDv7 was made, in milliseconds since 1970."""
    return int(id.replace("-", "")[:12], 16)


def uuid_from_key(*parts: str) -> str:
    """Return a UUID derived from an idempotency key; the same parts always give the same one."""
    return str(uuid5(NAMESPACE_URL, ":".join(("chatledger", *parts))))


# Times: in UTC to the millisecond; as numbers, milliseconds since 1970 ----------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """Return the current time in UTC, to the millisecond, the precision that stores keep."""
    return normalize_time(datetime.now(UTC))


def normalize_time(moment: datetime) -> datetime:
    """Return ``moment`` in UTC, truncated to the millisecond, the precision that stores keep."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def milliseconds(duration: timedelta) -> int:
    """Return ``duration`` in milliseconds."""
    return duration // timedelta(milliseconds=1)


def milliseconds_since_epoch(moment: datetime) -> int:
    """Return ``moment`` in milliseconds since 1970 (UTC)."""
    return milliseconds(moment - _EPOCH)


def to_datetime(ms: int) -> datetime:
    """Return the time that is ``ms`` milliseconds after 1970, in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)
