"""Errors as clients see them, and as they are logged.

A client gets only a status, a code and a sentence for people.
"""

import logging
import math
import traceback
from typing import NotRequired, TypedDict

from chatledger.errors import (
    AccessRefused,
    AlreadyExists,
    ChatledgerError,
    Conflict,
    DiskFull,
    InvalidArgument,
    KeyReused,
    MessageTooLarge,
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    ReplyNotStored,
    StoreMismatch,
    StoreUnavailable,
    TurnInProgress,
    UnknownModel,
)

logger = logging.getLogger("chatledger.http")

CLIENT_LEFT = 499
"""The status of a request whose client did not wait for the response; only the log has it."""

RETRY_SECONDS = 5.0
"""The value of ``Retry-After`` if the error does not say how long to wait."""
RETRY_STATUSES = (429, 503, 504)
"""The statuses of the responses that always have ``Retry-After``."""


class ErrorBody(TypedDict):
    """The body of an error response: a sentence for people, and a code for programs.

    It names the conversation if the message of the request is stored in it.
    """

    error: str
    code: str
    conversation_id: NotRequired[str]


class ApiError(Exception):
    """An error response.

    Args:
        status: The HTTP status.
        code: A snake_case code for programs.
        sentence: A sentence for people that says what is wrong and what to do. It must not contain
            secrets.
        retry_after: The seconds after which the client should try again.
        challenge: The ``WWW-Authenticate`` header of a 401 response.
        limit: The name of the limit that the request exceeds, for the metrics; a constant.
    """

    def __init__(
        self,
        status: int,
        code: str,
        sentence: str,
        *,
        retry_after: float | None = None,
        challenge: str | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.limit = limit
        self._retry_after = retry_after
        self._challenge = challenge

    def body(self, *, conversation_id: str | None) -> ErrorBody:
        """Return the body of the response.

        Args:
            conversation_id: The conversation in which the request's message is stored, if it is. A
                client that did not know it needs it to send the message again.
        """
        body: ErrorBody = {"error": str(self), "code": self.code}
        if conversation_id is not None:
            body["conversation_id"] = conversation_id
        return body

    @property
    def headers(self) -> dict[str, str]:
        """``WWW-Authenticate`` and ``Retry-After``, each only if it applies (RFC 9110)."""
        headers = {} if self._challenge is None else {"WWW-Authenticate": self._challenge}
        seconds = self._retry_after
        if seconds is None and self.status in RETRY_STATUSES:
            seconds = RETRY_SECONDS
        if seconds is not None:
            headers["Retry-After"] = str(max(math.ceil(seconds), 1))
        return headers


# The status, code and sentence for each kind of error; the first kind that matches applies. Without
# a sentence here, the error's own text is shown, which is safe.
_RESPONSES: dict[type[ChatledgerError], tuple[int, str, str | None]] = {
    NotFound: (404, "not_found", "There is no such conversation."),
    AlreadyExists: (
        409,
        "already_exists",
        "The conversation of the idempotency key was deleted and begun anew; send another key.",
    ),
    Conflict: (409, "conflict", "The conversation changed meanwhile; read it again and retry."),
    MessageTooLarge: (413, "too_large", "The message is too large; shorten it."),
    UnknownModel: (400, "unknown_model", None),
    KeyReused: (422, "idempotency_key_reused", None),
    InvalidArgument: (422, "invalid_request", None),
    DiskFull: (
        503,
        "disk_full",
        "The conversation could not be stored, because the server's disk is full; try again later.",
    ),
    StoreUnavailable: (
        503,
        "store_unavailable",
        "The conversation store is not available; try again later.",
    ),
    TurnInProgress: (
        409,
        "turn_in_progress",
        "An earlier reply is still being written, or was interrupted; try again in a moment.",
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
    ReplyNotStored: (
        502,
        "reply_not_stored",
        "The model's reply could not be stored; send the message again, or ask for a shorter one.",
    ),
    ModelUnavailable: (503, "model_unavailable", "The model is not available; try again later."),
}


def status_and_code(kind: type[ChatledgerError]) -> tuple[int, str]:
    """Return the status and the code of the response to errors of this kind."""
    status, code, _ = _RESPONSES[kind]
    return status, code


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


def server_ending() -> ApiError:
    return ApiError(503, "server_ending", "The server is shutting down; try again in a moment.")


def handle_error(error: Exception, where: str) -> ApiError:
    """Log the error, unless the client caused it, and return the error response for it.

    An unexpected error gives ``internal_error``. Its type and traceback are logged, but not its
    text, which may quote messages, tokens or other secrets. The texts of ``ModelError``,
    ``AccessRefused``, ``StoreMismatch`` and ``StoreUnavailable`` are logged: they quote no message
    and tell the operator what to do.

    Args:
        error: The error.
        where: The request or the part of the server in which it occurred.
    """
    api_error = _api_error_for(error)
    if isinstance(error, ModelError | AccessRefused | StoreMismatch):
        logger.warning("%s: %s: %s", where, type(error).__name__, error)
    elif isinstance(error, StoreUnavailable):
        logger.error("%s failed: %s: %s", where, type(error).__name__, error)
    elif api_error.status >= 500 and api_error is not error:
        logger.error("%s failed: %s", where, trace_without_text(error))
    return api_error


def trace_without_text(error: BaseException) -> str:
    """Return the types of ``error`` and its causes, and the traceback, but no text of an error."""
    kinds, cause = [type(error).__name__], error.__cause__
    while cause is not None:
        kinds.append(type(cause).__name__)
        cause = cause.__cause__
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{' from '.join(kinds)}\n{frames}".rstrip()


def _api_error_for(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    for kind, (status, code, sentence) in _RESPONSES.items():
        if isinstance(error, kind):
            if isinstance(error, NotFound) and error.seq is not None:
                sentence = "There is no such message; read the conversation again."
            retry_after = getattr(error, "retry_after", None)
            return ApiError(status, code, sentence or str(error), retry_after=retry_after)
    return internal_error()
