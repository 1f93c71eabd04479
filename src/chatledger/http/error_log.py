"""Error logging that leaves out texts that may quote messages, tokens or other secrets."""

import logging
import traceback

from chatledger.errors import AccessRefused, ModelError, TableMissing
from chatledger.http.errors import ApiError, api_error_for

logger = logging.getLogger("chatledger.http")


def log_error(error: Exception, where: str) -> None:
    """Log the type and traceback of an unexpected error, but not its text, which may quote users.

    The texts of ``ModelError``, ``AccessRefused`` and ``TableMissing`` are logged: they quote no
    message and tell the operator what to do. Errors that the client caused are not logged.

    Args:
        error: The error.
        where: The request or the part of the server in which it occurred.
    """
    if isinstance(error, ModelError | AccessRefused | TableMissing):
        logger.warning("%s: %s: %s", where, type(error).__name__, error)
        return
    if isinstance(error, ApiError) or api_error_for(error).status < 500:
        return
    cause: BaseException | None = error
    kinds = []
    while cause is not None:
        kinds.append(type(cause).__name__)
        cause = cause.__cause__
    frames = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    logger.error("%s failed: %s\n  %s", where, " from ".join(kinds), "\n  ".join(frames))
