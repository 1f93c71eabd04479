"""The HTTP response headers of model services."""

import re


def parse_retry_after(header: object) -> float | None:
    """Return the seconds of a ``Retry-After`` header (RFC 9110); None for a date or no header."""
    if not isinstance(header, str) or not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", header):
        return None
    return float(header)
