"""Translating the errors of the packages that call models: OpenAI's, and those below LangChain.

Every package has its own error classes. None of them is imported here: errors are recognised by
their HTTP status and by words in their class names.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from chatledger.backoff import parse_retry_after
from chatledger.errors import (
    ChatledgerError,
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)

_ADVICE = {
    401: "check that its key is set and valid",
    402: "check the account's billing",
    403: "check that its key may use the model",
    404: "check that the model's name is spelled as its provider spells it",
    413: "the request is too large; use a smaller window",
}
_INVALID = "the request is not valid; read the provider's error, which is the cause of this one"
_TIMEOUT_STATUSES = (408, 504)
_RETRYABLE_STATUSES = (409, 425)  # although they are 4xx
_QUOTA_WORDS = ("throttl", "ratelimit", "toomanyrequests", "resourceexhausted")
_MAX_CAUSES = 10
_OUT_OF_CREDIT = "insufficientquota"
"""OpenAI's code for an account without credit, which it also sends with the status 429."""
NO_ADVICE: Final[Mapping[int, str]] = {}


@contextmanager
def translate_errors(model_id: str, advice: Mapping[int, str] = NO_ADVICE) -> Iterator[None]:
    """Replace an exception of a provider's code by a ``ModelError`` with it as the cause.

    Args:
        model_id: The name of the model.
        advice: What to do about a refusal, by HTTP status, where that is known better than here.
    """
    try:
        yield
    except ChatledgerError:
        raise
    except Exception as exception:
        raise error_from_exception(model_id, exception, advice) from exception


def error_from_exception(
    model_id: str, exception: Exception, advice: Mapping[int, str] = NO_ADVICE
) -> ModelError:
    """Return the ``ModelError`` for an exception, without the exception's text.

    That text may repeat the prompt or contain a key.
    """
    for error in _with_causes(exception):
        status, names = _status(error), _names(error)
        facts = f"{type(error).__name__}" + (f", HTTP status {status}" if status else "")
        if _contains(names, _OUT_OF_CREDIT):
            return ModelRefused(f"{model_id} refused the request ({facts}): {_ADVICE[402]}.")
        if status == 429 or (status is None and _contains(names, *_QUOTA_WORDS)):
            return ModelThrottled(
                f"{model_id} received more requests or tokens than its quota allows ({facts}); "
                "try again later.",
                retry_after=_retry_after(error),
            )
        if status in _TIMEOUT_STATUSES or (
            status is None and _contains(names, "timeout", "deadline")
        ):
            return ModelTimeout(f"{model_id} took too long ({facts}); try again.")
        if status and 400 <= status < 500 and status not in _RETRYABLE_STATUSES:
            remedy = advice.get(status) or _ADVICE.get(status, _INVALID)
            return ModelRefused(f"{model_id} refused the request ({facts}): {remedy}.")
        if status and status >= 500:
            return ModelUnavailable(f"{model_id} is not available ({facts}); try again later.")
        if _contains(names, "connect"):
            return ModelUnavailable(
                f"{model_id} cannot be reached, or its connection broke ({facts}); try again, or "
                "check that its server is running."
            )
    return ModelUnavailable(
        f"{model_id} sent no reply, or only part of it ({type(exception).__name__}); "
        "try again later."
    )


def _with_causes(exception: BaseException) -> Iterator[BaseException]:
    """Yield the exception and its causes: some LangChain errors wrap a provider's error."""
    error: BaseException | None = exception
    for _ in range(_MAX_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status in a provider's error, whichever attribute contains it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        found = [_as_dict(response.get("ResponseMetadata")).get("HTTPStatusCode")]
    else:
        names = ("status_code", "http_status", "status", "code")
        attributes = (getattr(error, name, None) for name in names)
        found = [getattr(response, "status_code", None), *attributes]
    for status in found:
        # OpenAI's package makes a str of the code of an error within a stream.
        if isinstance(status, str) and re.fullmatch("[45][0-9]{2}", status):
            status = int(status)
        if isinstance(status, int) and 400 <= status < 600:
            return int(status)
    return None


def _names(error: BaseException) -> str:
    """Return the names of the error's classes, and its code if that is a string, in lower case."""
    names = [each.__name__ for each in type(error).__mro__]
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's, which has no status if a stream was cut off
        names.append(str(_as_dict(response.get("Error")).get("Code")))
    if isinstance(code := getattr(error, "code", None), str):
        names.append(code)
    return " ".join(names).lower().replace("_", "")


def _contains(names: str, *words: str) -> bool:
    return any(word in names for word in words)


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return parse_retry_after(headers.get("retry-after")) if isinstance(headers, Mapping) else None


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
