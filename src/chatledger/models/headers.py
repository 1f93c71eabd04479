"""What the headers of a model's service say."""

import re


def retry_after(header: object) -> float | None:
    """Seconds, where a ``Retry-After`` says them (RFC 9110); None where it says a date, or none."""
    if not isinstance(header, str) or not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", header):
        return None
    return float(header)
