"""What goes wrong at a model's provider, in our words: by what it says of itself, not by its class.

Each provider has error classes of its own, none of which is imported here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chatledger.errors import (
    ChatledgerError,
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from chatledger.models.headers import retry_after

_ADVICE = {
    401: "see that its key is there and valid",
    402: "see to its account",
    403: "see that its key has the right to it",
    404: "see that the model is named as its provider names it",
    413: "the call is too large for it",
}
_NOT_VALID = "the call is not valid for it; see its provider's error, which this one comes from"
_TIMED_OUT = (408, 504)
_TRY_AGAIN = (409, 425)  # 4xx all the same
_OVER_QUOTA = ("throttl", "ratelimit", "toomanyrequests", "resourceexhausted")
_DEEPEST = 10


@contextmanager
def translated(model_id: str) -> Iterator[None]:
    """Raise what a provider's code raises as a ``ModelError``, from the original."""
    try:
        yield
    except ChatledgerError:
        raise
    except Exception as failed:
        raise failure(model_id, failed) from failed


def failure(model_id: str, failed: Exception) -> ModelError:
    """What ``failed`` is, told without its text: that may repeat the prompt, or hold a key."""
    for error in _with_causes(failed):
        status, names = _status(error), _names(error)
        facts = f"{type(error).__name__}" + (f", HTTP status {status}" if status else "")
        if status == 429 or (status is None and _says(names, *_OVER_QUOTA)):
            return ModelThrottled(
                f"{model_id} is asked for more than its quota allows ({facts}); "
                "try again after a while.",
                retry_after=_retry_after(error),
            )
        if status in _TIMED_OUT or (status is None and _says(names, "timeout", "deadline")):
            return ModelTimeout(f"{model_id} took too long ({facts}); try again.")
        if status and 400 <= status < 500 and status not in _TRY_AGAIN:
            advice = _ADVICE.get(status, _NOT_VALID)
            return ModelRefused(f"{model_id} refuses the call ({facts}): {advice}.")
        if status and status >= 500:
            return ModelUnavailable(f"{model_id} is not available ({facts}); try again later.")
    return ModelUnavailable(
        f"{model_id} gave no reply, or not all of it ({type(failed).__name__}); try again later."
    )


def _with_causes(failed: BaseException) -> Iterator[BaseException]:
    """``failed`` and what it was raised from: some of LangChain's hide the provider's error."""
    error: BaseException | None = failed
    for _ in range(_DEEPEST):
        if error is None:
            return
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status that a provider's error holds, wherever it does."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        found = [_dict(response.get("ResponseMetadata")).get("HTTPStatusCode")]
    else:
        names = ("status_code", "http_status", "status", "code")
        found = [getattr(response, "status_code", None), *(_held(error, name) for name in names)]
    statuses = (int(status) for status in found if isinstance(status, int))
    return next((status for status in statuses if 400 <= status < 600), None)


def _names(error: BaseException) -> str:
    """What the error is called: its classes, and the code where that is text."""
    names = [each.__name__ for each in type(error).__mro__]
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's, which has no status where a stream breaks off
        names.append(str(_dict(response.get("Error")).get("Code")))
    if isinstance(code := _held(error, "code"), str):
        names.append(code)
    return " ".join(names).lower().replace("_", "")


def _says(names: str, *words: str) -> bool:
    return any(word in names for word in words)


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return retry_after(headers.get("retry-after")) if isinstance(headers, Mapping) else None


def _held(error: BaseException, name: str) -> Any:
    return getattr(error, name, None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
