"""The log of the server: one line a record on stderr, as text or as JSON."""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

from chatledger.http.errors import trace_without_text
from chatledger.http.requests import current_request

_CONTROL_CHARACTERS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_ESCAPES = {code: f"\\u{code:04x}" for code in _CONTROL_CHARACTERS} | {
    ord("\t"): "\t",
    # A line that begins at the margin is always a record of its own.
    ord("\n"): "\n    ",
}


def configure_logging(*, form: Literal["text", "json"], level: str) -> None:
    """Send the records of the program to stderr.

    Args:
        form: The form of the lines.
        level: The lowest level of Chatledger's own records. Those of other packages are written
            from the level ``warning``: below it, some quote what they send and receive.
    """
    own_level = logging.getLevelNamesMapping()[level.upper()]
    own, others = logging.getLogger("chatledger"), logging.getLogger()
    for logger, lowest in ((own, own_level), (others, max(own_level, logging.WARNING))):
        handler = logging.StreamHandler()
        handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter())
        handler.setLevel(lowest)  # some packages set the levels of their loggers
        logger.handlers = [handler]
        logger.setLevel(lowest)
    own.propagate = False
    # If a line cannot be written, the logging module would print the values that it quotes.
    logging.raiseExceptions = False


class TextFormatter(logging.Formatter):
    """Formats a record as ``TIME LEVEL LOGGER [REQUEST-ID] MESSAGE``."""

    def format(self, record: logging.LogRecord) -> str:
        time, request_id = _time(record), _request_id() or "-"
        message = _message(record).translate(_ESCAPES)
        return f"{time} {record.levelname} {record.name} [{request_id}] {message}"


class JSONFormatter(logging.Formatter):
    """Formats a record as a JSON object, which includes the attribute ``fields`` of the record."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        request_id = _request_id()
        if request_id is not None:
            line["request_id"] = request_id
        return json.dumps(line | getattr(record, "fields", {}))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _request_id() -> str | None:
    request = current_request.get()
    return None if request is None else request.id


def _message(record: logging.LogRecord) -> str:
    """Return the message, with the error of the record, if any, but not the text of that error."""
    message = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        message += f": {trace_without_text(record.exc_info[1])}"
    return message
