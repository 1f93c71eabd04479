"""What goes wrong at a provider, told by what its error says of itself, and without its text."""

import asyncio
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError, EventStreamError, ReadTimeoutError

from chatledger.errors import (
    InvalidArgument,
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from chatledger.models.langchain.failures import failure, translated

SECRET = "sk-secret, and what Bob told me"


class APIStatusError(Exception):
    """As the clients of OpenAI, Anthropic and Groq raise it."""

    def __init__(self, status_code: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(SECRET)
        self.status_code = status_code
        self.response = httpx.Response(status_code, headers=headers, text=SECRET)


class RateLimitError(Exception):
    """One that says it by its name alone."""


class APITimeoutError(Exception): ...


class APIConnectionError(Exception): ...


class DeadlineExceeded(Exception): ...


class ResourceExhausted(Exception):
    """As Google's: the status is an enum's member called code."""

    code = HTTPStatus.TOO_MANY_REQUESTS


class WithCode(Exception):
    """As OpenAI's in the middle of a stream: a code, and no status."""

    def __init__(self, code: Any) -> None:
        super().__init__(SECRET)
        self.code = code


def with_(**attributes: Any) -> Exception:
    error = Exception(SECRET)
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def botocores(code: str, status: int) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": SECRET},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "Converse")


def caused_by(cause: BaseException) -> Exception:
    error = Exception(SECRET)
    error.__cause__ = cause
    return error


def httpxs(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://localhost/")
    return httpx.HTTPStatusError(SECRET, request=request, response=httpx.Response(status))


CASES: list[tuple[Exception, type[ModelError]]] = [
    *[(APIStatusError(status), ModelRefused) for status in (400, 401, 402, 403, 404, 413, 422)],
    *[(APIStatusError(status), ModelTimeout) for status in (408, 504)],
    *[(APIStatusError(status), ModelUnavailable) for status in (200, 302, 409, 500, 503, 529)],
    (APIStatusError(429), ModelThrottled),
    (httpxs(429), ModelThrottled),
    (httpxs(401), ModelRefused),
    (httpxs(502), ModelUnavailable),
    (with_(http_status=429), ModelThrottled),
    (with_(status=403), ModelRefused),
    (with_(status="failed"), ModelUnavailable),
    (with_(code=-32600), ModelUnavailable),
    (with_(status_code=None), ModelUnavailable),
    (with_(code=lambda: 429), ModelUnavailable),
    (ResourceExhausted(SECRET), ModelThrottled),
    (WithCode("rate_limit_exceeded"), ModelThrottled),
    (WithCode("server_error"), ModelUnavailable),
    (RateLimitError(SECRET), ModelThrottled),
    (botocores("ThrottlingException", 429), ModelThrottled),
    (botocores("ValidationException", 400), ModelRefused),
    (botocores("ModelTimeoutException", 408), ModelTimeout),
    (EventStreamError({"Error": {"Code": "throttlingException"}}, "Converse"), ModelThrottled),
    (EventStreamError({"Error": {"Code": "modelStreamError"}}, "Converse"), ModelUnavailable),
    (ReadTimeoutError(endpoint_url="http://localhost"), ModelTimeout),
    (TimeoutError(SECRET), ModelTimeout),
    (TimeoutError(SECRET), ModelTimeout),
    (httpx.ReadTimeout(SECRET), ModelTimeout),
    (httpx.ConnectTimeout(SECRET), ModelTimeout),
    (APITimeoutError(SECRET), ModelTimeout),
    (DeadlineExceeded(SECRET), ModelTimeout),
    (APIConnectionError(SECRET), ModelUnavailable),
    (httpx.ConnectError(SECRET), ModelUnavailable),
    (ConnectionResetError(SECRET), ModelUnavailable),
    (KeyError(SECRET), ModelUnavailable),
    # LangChain's own for Google says nothing, and was raised from one that does.
    (caused_by(ResourceExhausted(SECRET)), ModelThrottled),
    (caused_by(caused_by(httpx.ReadTimeout(SECRET))), ModelTimeout),
    (caused_by(KeyboardInterrupt()), ModelUnavailable),
]


@pytest.mark.parametrize(("error", "kind"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_an_error_is_what_it_says_it_is(error: Exception, kind: type[ModelError]) -> None:
    told = failure("acme:one", error)
    assert type(told) is kind


@pytest.mark.parametrize("error", [error for error, _ in CASES], ids=lambda _: "")
def test_our_sentence_holds_the_names_and_nothing_of_the_providers_text(error: Exception) -> None:
    sentence = str(failure("acme:one", error))
    assert sentence.startswith("acme:one ")
    assert sentence.endswith(".")
    assert "secret" not in sentence
    assert "Bob" not in sentence
    assert type(error).__name__ in sentence or error.__cause__


def test_the_status_and_what_to_do_are_told() -> None:
    assert str(failure("acme:one", APIStatusError(401))) == (
        "acme:one refuses the call (APIStatusError, HTTP status 401): "
        "see that its key is there and valid."
    )


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_told_where_the_provider_says(
    headers: dict[str, str], seconds: float | None
) -> None:
    told = failure("acme:one", APIStatusError(429, headers))
    assert isinstance(told, ModelThrottled)
    assert told.retry_after == seconds


def test_errors_that_cause_one_another_come_to_an_end() -> None:
    one, other = Exception(SECRET), Exception(SECRET)
    one.__cause__, other.__cause__ = other, one
    assert type(failure("acme:one", one)) is ModelUnavailable


def test_the_original_is_behind_ours() -> None:
    error = APIStatusError(500)
    with pytest.raises(ModelUnavailable) as failed, translated("acme:one"):
        raise error
    assert failed.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        KeyboardInterrupt(),
        InvalidArgument("ours"),
        ModelRefused("ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_failure_of_a_provider_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as failed, translated("acme:one"):
        raise error
    assert failed.value is error
