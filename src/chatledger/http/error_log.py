"""What any server says of an error, and what it says to all."""

import logging
import traceback

from chatledger.errors import AccessRefused, ModelError, TableMissing
from chatledger.http.errors import Refused, refusal

logger = logging.getLogger("chatledger.http")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def log_unknown(error: Exception, where: str) -> None:
    """Log what kind of error it was and where, without its text: that may hold a message.

    A model's error, and those of a table that is missing and of rights, have a text of ours, which
    holds none, and says what to do.
    """
    if isinstance(error, ModelError | AccessRefused | TableMissing):
        logger.warning("%s: %s: %s", where, type(error).__name__, error)
        return
    if isinstance(error, Refused) or refusal(error).status < 500:
        return
    chain: BaseException | None = error
    kinds = []
    while chain is not None:
        kinds.append(type(chain).__name__)
        chain = chain.__cause__
    frames = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    logger.error("%s failed: %s\n  %s", where, " from ".join(kinds), "\n  ".join(frames))
