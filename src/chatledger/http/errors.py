"""Errors as clients see them, and as they are logged.

A client gets only a status, a code and a sentence for people.
"""

import logging
import math
import traceback

from chatledger.errors import (
    AccessRefused,
    AlreadyExists,
    ChatledgerError,
    Conflict,
    InvalidArgument,
    KeyReused,
    MessageTooLarge,
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    StoreUnavailable,
    TableMissing,
    TurnInProgress,
    UnknownModel,
)

logger = logging.getLogger("chatledger.http")

RETRY_SECONDS = 5.0
"""The value of ``Retry-After`` if the error does not say how long to wait."""


class ApiError(Exception):
    """An error response.

    Args:
        status: The HTTP status.
        code: A snake_case code for programs.
        sentence: A sentence for people that says what is wrong and what to do. It must not contain
            secrets.
        retry_after: The seconds after which the client should try again.
        challenge: The ``WWW-Authenticate`` header of a 401 response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        sentence: str,
        *,
        retry_after: float | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self._retry_after = retry_after
        self._challenge = challenge

    @property
    def body(self) -> dict[str, str]:
        return {"error": str(self), "code": self.code}

    @property
    def headers(self) -> dict[str, str]:
        """``WWW-Authenticate`` and ``Retry-After``, each only if it applies (RFC 9110)."""
        headers = {} if self._challenge is None else {"WWW-Authenticate": self._challenge}
        seconds = self._retry_after
        if seconds is None and self.status in (429, 503, 504):
            seconds = RETRY_SECONDS
        if seconds is not None:
            headers["Retry-After"] = str(max(math.ceil(seconds), 1))
        return headers


# The status, code and sentence for each kind of error; the first kind that matches applies. Without
# a sentence here, the error's own text is shown, which is safe.
_RESPONSES: dict[type[ChatledgerError], tuple[int, str, str | None]] = {
    NotFound: (404, "not_found", "There is no such conversation."),
    AlreadyExists: (409, "already_exists", "A conversation with this id already exists."),
    Conflict: (409, "conflict", "The conversation changed meanwhile; read it again and retry."),
    MessageTooLarge: (413, "too_large", "The message is too large; shorten it."),
    UnknownModel: (400, "unknown_model", None),
    KeyReused: (422, "idempotency_key_reused", None),
    InvalidArgument: (422, "invalid_request", None),
    StoreUnavailable: (
        503,
        "store_unavailable",
        "The conversation store is not available; try again later.",
    ),
    TurnInProgress: (
        409,
        "turn_in_progress",
        "A reply in this conversation is still being written; try again when it is complete.",
    ),
    ModelThrottled: (429, "model_throttled", "The model is overloaded; try again in a moment."),
    ModelTimeout: (504, "model_timeout", "The model took too long; try again."),
    ModelRefused: (
        502,
        "model_refused",
        (
            "The model does not accept this conversation; ask the operator of this server to check "
            "how the model is configured."
        ),
    ),
    ModelUnavailable: (503, "model_unavailable", "The model is not available; try again later."),
}


def internal_error() -> ApiError:
    return ApiError(500, "internal_error", "Something went wrong on the server; try again later.")


def no_such_route() -> ApiError:
    return ApiError(404, "no_such_route", "There is nothing at this address.")


def method_not_allowed() -> ApiError:
    return ApiError(
        405,
        "method_not_allowed",
        "This address does not support this method; see the header Allow.",
    )


def handle_error(error: Exception, where: str) -> ApiError:
    """Log the error, unless the client caused it, and return the error response for it.

    An unexpected error gives ``internal_error``. Its type and traceback are logged, but not its
    text, which may quote messages, tokens or other secrets. The texts of ``ModelError``,
    ``AccessRefused`` and ``TableMissing`` are logged: they quote no message and tell the operator
    what to do.

    Args:
        error: The error.
        where: The request or the part of the server in which it occurred.
    """
    api_error = _api_error_for(error)
    if isinstance(error, ModelError | AccessRefused | TableMissing):
        logger.warning("%s: %s: %s", where, type(error).__name__, error)
    elif api_error.status >= 500 and api_error is not error:
        kinds, cause = [type(error).__name__], error.__cause__
        while cause is not None:
            kinds.append(type(cause).__name__)
            cause = cause.__cause__
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s failed: %s\n%s", where, " from ".join(kinds), frames.rstrip())
    return api_error


def _api_error_for(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    for kind, (status, code, sentence) in _RESPONSES.items():
        if isinstance(error, kind):
            retry_after = getattr(error, "retry_after", None)
            return ApiError(status, code, sentence or str(error), retry_after=retry_after)
    return internal_error()
