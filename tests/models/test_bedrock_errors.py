"""The error for a failed call, and whether and when the call is retried."""

from random import Random
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ReadTimeoutError,
)

from chatledger.backoff import parse_retry_after
from chatledger.errors import (
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from chatledger.models.bedrock.errors import model_error
from chatledger.models.retries import MAX_ATTEMPTS, Retries

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
SECRET = "my PIN is 1234"


def failed_call(
    code: str = "",
    service_text: str = "",
    status: int = 0,
    retry_after: str | None = None,
    *,
    operation: str = "ConverseStream",
) -> ModelError:
    """Return the error for a call that Bedrock, or the service ``operation`` is of, refused."""
    response: Any = {
        "Error": {"Code": code, "Message": service_text},
        "ResponseMetadata": {
            "HTTPStatusCode": status,
            "HTTPHeaders": {"retry-after": retry_after} if retry_after else {},
        },
    }
    return model_error(ClientError(response, operation), MODEL)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ThrottlingException", ModelThrottled),
        ("throttlingException", ModelThrottled),
        ("ServiceQuotaExceededException", ModelThrottled),
        ("ServiceUnavailableException", ModelUnavailable),
        ("InternalServerException", ModelUnavailable),
        ("internalServerException", ModelUnavailable),
        ("ModelNotReadyException", ModelUnavailable),
        ("ModelErrorException", ModelUnavailable),
        ("modelStreamErrorException", ModelUnavailable),
        ("ModelTimeoutException", ModelTimeout),
        ("AccessDeniedException", ModelRefused),
        ("ExpiredTokenException", ModelRefused),
        ("UnrecognizedClientException", ModelRefused),
        ("InvalidSignatureException", ModelRefused),
        ("ValidationException", ModelRefused),
        ("ResourceNotFoundException", ModelRefused),
    ],
)
def test_each_code_has_its_error_which_names_the_code(code: str, kind: type[ModelError]) -> None:
    error = failed_call(code, SECRET, 400)
    assert type(error) is kind
    assert code[1:] in str(error)
    assert SECRET not in str(error)
    assert "again" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, ModelRefused),
        (400, ModelRefused),
        (403, ModelRefused),
        (404, ModelRefused),
        (408, ModelTimeout),
        (424, ModelUnavailable),
        (429, ModelThrottled),
        (500, ModelUnavailable),
        (502, ModelUnavailable),
        (504, ModelTimeout),
    ],
)
def test_without_a_known_code_the_status_decides(status: int, kind: type[ModelError]) -> None:
    assert type(failed_call(status=status)) is kind
    unheard_of = failed_call("UnheardOfException", SECRET, status)
    assert type(unheard_of) is kind
    assert "UnheardOfException" in str(unheard_of)


def test_text_in_place_of_a_code_is_not_repeated() -> None:
    error = failed_call(f"<p>{SECRET}</p>", status=502)
    assert SECRET not in str(error)
    assert "HTTP 502" in str(error)


@pytest.mark.parametrize(
    ("code", "service_text", "advice"),
    [
        (
            "AccessDeniedException",
            "User: arn:aws:sts::1:x is not authorized",
            "bedrock:InvokeModelWithResponseStream",
        ),
        ("AccessDeniedException", "Please make sure your API Key is valid.", "AWS_BEARER_TOKEN"),
        (
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn’t supported. Retry.",
            f"us.{MODEL}",
        ),
        ("ValidationException", "The provided model identifier is invalid.", "id and the region"),
        (
            "ResourceNotFoundException",
            "Model use case details have not been submitted.",
            "use case",
        ),
        ("ExpiredTokenException", "The security token has expired.", "AWS_PROFILE"),
    ],
)
def test_the_refusals_that_everybody_meets_say_what_to_change(
    code: str, service_text: str, advice: str
) -> None:
    error = failed_call(code, f"{service_text} {SECRET}", 400)
    assert type(error) is ModelRefused
    assert advice in str(error)
    assert code in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "service_text",
    [
        "Input is too long for requested model.",
        "The model returned the following errors: `temperature` is deprecated for this model.",
        "This model doesn't support tool use.",
    ],
)
def test_any_other_refusal_says_its_code_and_where_the_explanation_is(service_text: str) -> None:
    error = failed_call("ValidationException", service_text, 400)
    assert type(error) is ModelRefused
    assert "(ValidationException)" in str(error)
    assert "The cause of this error has Bedrock's explanation" in str(error)
    assert service_text not in str(error)


@pytest.mark.parametrize(
    ("exception", "kind", "word"),
    [
        (EndpointConnectionError(endpoint_url=SECRET), ModelUnavailable, "cannot be reached"),
        (ReadTimeoutError(endpoint_url=SECRET), ModelTimeout, "NoResponse"),
        (ConnectionClosedError(endpoint_url=SECRET), ModelUnavailable, "ConnectionLost"),
        (ConnectionResetError(SECRET), ModelUnavailable, "ConnectionLost"),
        (ValueError(SECRET), ModelUnavailable, "MalformedReply"),
        (NoRegionError(), ModelRefused, "AWS_DEFAULT_REGION"),
        (NoCredentialsError(), ModelRefused, "AWS_PROFILE"),
        (CredentialRetrievalError(provider="sso", error_msg=SECRET), ModelRefused, "AWS_PROFILE"),
        (BotoCoreError(), ModelRefused, "AWS_PROFILE"),
    ],
)
def test_each_exception_without_a_response_has_its_error(
    exception: Exception, kind: type[ModelError], word: str
) -> None:
    error = model_error(exception, MODEL)
    assert type(error) is kind
    assert word in str(error)
    assert SECRET not in str(error)
    assert "gain" in str(error)


def test_a_refusal_by_the_service_that_issues_credentials_is_about_the_credentials() -> None:
    refused = failed_call("AccessDenied", SECRET, 403, operation="AssumeRole")
    assert type(refused) is ModelRefused
    assert "AWS_PROFILE" in str(refused)
    assert type(failed_call("Internal", SECRET, 500, operation="AssumeRole")) is ModelUnavailable


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("3", 3.0), ("0.5", 0.5), ("soon", None), ("-1", None)]
)
def test_a_wait_that_the_service_asks_for_is_in_the_error(
    header: str | None, seconds: float | None
) -> None:
    error = failed_call("ThrottlingException", retry_after=header)
    assert isinstance(error, ModelThrottled)
    assert error.retry_after == seconds
    assert parse_retry_after(header) == seconds


# Retries -----------------------------------------------------------------------------------------


class NoJitter(Random):
    """Always draws the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


def retries_without_jitter(patience: float, *, now: list[float] | None = None) -> Retries:
    """Return retries that each wait for the longest allowed time."""
    clock = now or [0.0]
    return Retries(patience, monotonic=lambda: clock[0], random=NoJitter())


def test_waits_double_until_the_last_attempt() -> None:
    retries = retries_without_jitter(1000)
    waits = [retries.next_wait(ModelUnavailable()) for _ in range(MAX_ATTEMPTS - 1)]
    assert waits == [0.25, 0.5, 1, 2, 4]
    with pytest.raises(ModelUnavailable):
        retries.next_wait(ModelUnavailable())


def test_retries_end_when_patience_is_over() -> None:
    now = [0.0]
    retries = retries_without_jitter(1.0, now=now)
    assert retries.next_wait(ModelTimeout()) == 0.25
    now[0] = 0.8
    with pytest.raises(ModelTimeout):
        retries.next_wait(ModelTimeout())


def test_a_refused_call_is_not_retried() -> None:
    with pytest.raises(ModelRefused):
        retries_without_jitter(1000).next_wait(ModelRefused())


def test_a_throttled_call_waits_as_long_as_the_service_asks() -> None:
    retries = retries_without_jitter(10)
    assert retries.next_wait(ModelThrottled("", retry_after=3)) == 3
    with pytest.raises(ModelThrottled):
        retries.next_wait(ModelThrottled("", retry_after=60))
