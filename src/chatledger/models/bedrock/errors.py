"""Translating failed calls to Bedrock into Chatledger's errors.

The service's own text is used only to choose the error. It is never repeated, because it may quote
the conversation.
"""

import re
from dataclasses import dataclass

from chatledger.errors import ModelError, ModelRefused, ModelThrottled
from chatledger.models.bedrock.error_messages import (
    KNOWN_REFUSALS,
    MESSAGES_BY_CODE,
    MESSAGES_BY_STATUS,
    UNAVAILABLE,
    ErrorMessage,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call.

    ``code`` is Bedrock's (such as ``ThrottlingException``) or one of those in ``error_messages``.
    ``service_text`` is the service's own description, ``status`` the HTTP status (0 without a
    response) and ``retry_after`` the seconds that the service asks to wait.
    """

    code: str
    service_text: str = ""
    status: int = 0
    retry_after: float | None = None


def error_from_failure(failure: Failure, model_id: str) -> ModelError:
    """Return the error to raise for a failed call to the model ``model_id``."""
    code = _printable_code(failure)
    error_class, template = _message(failure, code)
    text = template.format(code=code, model=model_id)
    if error_class is ModelThrottled:
        return ModelThrottled(text, retry_after=failure.retry_after)
    return error_class(text)


def _printable_code(failure: Failure) -> str:
    """Return the code if it looks like one, else the status: a proxy may send any text."""
    if re.fullmatch("[A-Za-z][A-Za-z0-9]{0,63}", failure.code):
        return failure.code[0].upper() + failure.code[1:]  # in events it starts in lower case
    return f"HTTP {failure.status}"


def _message(failure: Failure, code: str) -> ErrorMessage:
    base_code = code.removesuffix("Exception")
    service_text = failure.service_text.lower()
    for refusal in KNOWN_REFUSALS:
        if refusal.code == base_code and any(each in service_text for each in refusal.phrases):
            return ErrorMessage(ModelRefused, refusal.text)
    if base_code in MESSAGES_BY_CODE:
        return MESSAGES_BY_CODE[base_code]
    matching = (message for matches, message in MESSAGES_BY_STATUS if matches(failure.status))
    return next(matching, UNAVAILABLE)
