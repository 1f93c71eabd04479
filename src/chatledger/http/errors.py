"""Errors as clients see them: a status, a code, a sentence for people, and nothing else."""

import math
from dataclasses import dataclass

from chatledger.errors import (
    AlreadyExists,
    ChatledgerError,
    Conflict,
    InvalidArgument,
    KeyReused,
    MessageTooLarge,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    StoreUnavailable,
    TurnInProgress,
    UnknownModel,
)

RETRY_SECONDS = 5.0
"""When to try again, where nothing says how long it will take."""


class Refused(Exception):
    """A request that is answered with an error: a status, a code, and a sentence for people."""

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
        """``Retry-After`` where trying again later helps, and ``WWW-Authenticate`` where signing in
        does (RFC 9110)."""
        headers = {} if self._challenge is None else {"WWW-Authenticate": self._challenge}
        seconds = self._retry_after
        if seconds is None and self.status in (429, 503, 504):
            seconds = RETRY_SECONDS
        if seconds is not None:
            headers["Retry-After"] = str(max(math.ceil(seconds), 1))
        return headers


@dataclass(frozen=True, slots=True)
class _Rule:
    status: int
    code: str
    sentence: str | None = None


# The first that fits. Without a sentence the error's own is shown, which holds nothing secret.
_RULES: dict[type[ChatledgerError], _Rule] = {
    NotFound: _Rule(404, "not_found", "There is no such conversation."),
    AlreadyExists: _Rule(409, "already_exists", "There is such a conversation already."),
    Conflict: _Rule(409, "conflict", "Somebody else was first; look again and retry."),
    MessageTooLarge: _Rule(413, "too_large", "The message is too large."),
    UnknownModel: _Rule(400, "unknown_model"),
    KeyReused: _Rule(422, "idempotency_key_reused"),
    InvalidArgument: _Rule(422, "invalid_request"),
    StoreUnavailable: _Rule(
        503, "store_unavailable", "The conversations cannot be reached; try again later."
    ),
    TurnInProgress: _Rule(
        409, "turn_in_progress", "A reply in this conversation is still being written."
    ),
    ModelThrottled: _Rule(
        429, "model_throttled", "The model has too much to do; try again in a moment."
    ),
    ModelTimeout: _Rule(504, "model_timeout", "The model took too long; try again."),
    ModelRefused: _Rule(
        502,
        "model_refused",
        "The model does not take this conversation as it stands; whoever runs this server must "
        "look at how the model is set up.",
    ),
    ModelUnavailable: _Rule(
        503, "model_unavailable", "The model does not answer; try again later."
    ),
}
UNKNOWN = Refused(500, "internal_error", "Something went wrong here; try again later.")


def refusal(error: Exception) -> Refused:
    """What a client is told of ``error``; of one that we do not know, nothing."""
    if isinstance(error, Refused):
        return error
    for kind, rule in _RULES.items():
        if isinstance(error, kind):
            return Refused(
                rule.status,
                rule.code,
                rule.sentence or str(error),
                retry_after=getattr(error, "retry_after", None),
            )
    return UNKNOWN
