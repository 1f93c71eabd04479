"""A provider's error is classified by its status and names; its text is never repeated."""

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
from chatledger.models.provider_errors import error_from_exception, translate_errors

SECRET = "sk-secret, and what Bob told me"


class APIStatusError(Exception):
    """The error of the clients of OpenAI, Anthropic and Groq."""

    def __init__(self, status_code: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(SECRET)
        self.status_code = status_code
        self.response = httpx.Response(status_code, headers=headers, text=SECRET)


class RateLimitError(Exception):
    """An error whose name alone says what happened."""


class APITimeoutError(Exception): ...


class APIConnectionError(Exception): ...


class DeadlineExceeded(Exception): ...


class ResourceExhausted(Exception):
    """Google's error: the status is an enum member called ``code``."""

    code = HTTPStatus.TOO_MANY_REQUESTS


class WithCode(Exception):
    """OpenAI's error in the middle of a stream: it has a code and no status."""

    def __init__(self, code: Any) -> None:
        super().__init__(SECRET)
        self.code = code


def error_with(**attributes: Any) -> Exception:
    error = Exception(SECRET)
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def client_error(code: str, status: int) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": SECRET},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "Converse")


def caused_by(cause: BaseException) -> Exception:
    error = Exception(SECRET)
    error.__cause__ = cause
    return error


def http_status_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://localhost/")
    return httpx.HTTPStatusError(SECRET, request=request, response=httpx.Response(status))


CASES: list[tuple[Exception, type[ModelError]]] = [
    *[(APIStatusError(status), ModelRefused) for status in (400, 401, 402, 403, 404, 413, 422)],
    *[(APIStatusError(status), ModelTimeout) for status in (408, 504)],
    *[(APIStatusError(status), ModelUnavailable) for status in (200, 302, 409, 500, 503, 529)],
    (APIStatusError(429), ModelThrottled),
    (http_status_error(429), ModelThrottled),
    (http_status_error(401), ModelRefused),
    (http_status_error(502), ModelUnavailable),
    (error_with(http_status=429), ModelThrottled),
    (error_with(status=403), ModelRefused),
    (error_with(status="failed"), ModelUnavailable),
    (error_with(code=-32600), ModelUnavailable),
    (error_with(status_code=None), ModelUnavailable),
    (error_with(code=lambda: 429), ModelUnavailable),
    (ResourceExhausted(SECRET), ModelThrottled),
    (WithCode("rate_limit_exceeded"), ModelThrottled),
    (WithCode("server_error"), ModelUnavailable),
    (RateLimitError(SECRET), ModelThrottled),
    (client_error("ThrottlingException", 429), ModelThrottled),
    (client_error("ValidationException", 400), ModelRefused),
    (client_error("ModelTimeoutException", 408), ModelTimeout),
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
    # LangChain's error for Google says nothing itself, but has a cause that does.
    (caused_by(ResourceExhausted(SECRET)), ModelThrottled),
    (caused_by(caused_by(httpx.ReadTimeout(SECRET))), ModelTimeout),
    (caused_by(KeyboardInterrupt()), ModelUnavailable),
]


@pytest.mark.parametrize(("error", "kind"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_an_error_is_classified_by_its_status_and_names(
    error: Exception, kind: type[ModelError]
) -> None:
    translated = error_from_exception("acme:one", error)
    assert type(translated) is kind


@pytest.mark.parametrize("error", [error for error, _ in CASES], ids=lambda _: "")
def test_the_error_names_the_original_and_repeats_none_of_its_text(error: Exception) -> None:
    sentence = str(error_from_exception("acme:one", error))
    assert sentence.startswith("acme:one ")
    assert sentence.endswith(".")
    assert "secret" not in sentence
    assert "Bob" not in sentence
    assert type(error).__name__ in sentence or error.__cause__


def test_the_error_gives_the_status_and_says_what_to_do() -> None:
    assert str(error_from_exception("acme:one", APIStatusError(401))) == (
        "acme:one refused the request (APIStatusError, HTTP status 401): "
        "check that its key is set and valid."
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
def test_a_wait_that_the_provider_asks_for_is_passed_on(
    headers: dict[str, str], seconds: float | None
) -> None:
    translated = error_from_exception("acme:one", APIStatusError(429, headers))
    assert isinstance(translated, ModelThrottled)
    assert translated.retry_after == seconds


def test_errors_that_cause_each_other_do_not_loop_forever() -> None:
    one, other = Exception(SECRET), Exception(SECRET)
    one.__cause__, other.__cause__ = other, one
    assert type(error_from_exception("acme:one", one)) is ModelUnavailable


def test_the_original_is_the_cause() -> None:
    error = APIStatusError(500)
    with pytest.raises(ModelUnavailable) as raised, translate_errors("acme:one"):
        raise error
    assert raised.value.__cause__ is error


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
def test_an_error_that_is_not_the_providers_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, translate_errors("acme:one"):
        raise error
    assert raised.value is error
