"""The error for a failed call, and whether and when the call is retried."""

from random import Random

import pytest

from chatledger.errors import (
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from chatledger.models.bedrock.error_messages import KNOWN_REFUSALS, MESSAGES_BY_CODE
from chatledger.models.bedrock.errors import Failure, error_from_failure
from chatledger.models.bedrock.retries import MAX_ATTEMPTS, Retries
from chatledger.models.headers import parse_retry_after

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
SECRET = "my PIN is 1234"


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
    error = error_from_failure(Failure(code, SECRET, 400), MODEL)
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
    assert type(error_from_failure(Failure("", status=status), MODEL)) is kind
    assert type(error_from_failure(Failure("UnheardOfException", status=status), MODEL)) is kind


def test_text_in_place_of_a_code_is_not_repeated() -> None:
    error = error_from_failure(Failure(f"<p>{SECRET}</p>", status=502), MODEL)
    assert SECRET not in str(error)
    assert "HTTP 502" in str(error)


@pytest.mark.parametrize(
    ("code", "service_text", "advice"),
    [
        (
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn’t supported. Retry.",
            f"us.{MODEL}",
        ),
        ("ValidationException", "Input is too long for requested model.", "smaller window"),
        (
            "ValidationException",
            "The model returned the following errors: prompt is too long: 212345 tokens > 200000",
            "smaller window",
        ),
        (
            "ValidationException",
            "The model returned the following errors: `temperature` is deprecated for this model.",
            "temperature",
        ),
        (
            "ValidationException",
            "This model doesn't support the temperature field. Remove temperature and try again.",
            "temperature",
        ),
        (
            "ValidationException",
            "The maximum tokens you requested exceeds the model limit of 10.",
            "max_tokens",
        ),
        (
            "AccessDeniedException",
            "You invoked an unsupported model or your request did not allow prompt caching.",
            "cache=False",
        ),
        ("ValidationException", "This model doesn't support tool use.", "tools"),
        ("ValidationException", "The provided model identifier is invalid.", "no model"),
        ("ResourceNotFoundException", "Model use case details have not been submitted.", "form"),
        ("AccessDeniedException", "Please make sure your API Key is valid.", "AWS_BEARER_TOKEN"),
        (
            "AccessDeniedException",
            "User: arn:aws:sts::1:x is not authorized",
            "bedrock:InvokeModelWithResponseStream",
        ),
    ],
)
def test_a_refusal_says_what_to_change(code: str, service_text: str, advice: str) -> None:
    error = error_from_failure(Failure(code, f"{service_text} {SECRET}", 400), MODEL)
    assert type(error) is ModelRefused
    assert advice in str(error)
    assert SECRET not in str(error)


def test_every_message_can_be_formatted_and_says_whether_to_try_again() -> None:
    for code in MESSAGES_BY_CODE:
        assert "{" not in str(error_from_failure(Failure(code), MODEL))
    for known in KNOWN_REFUSALS:
        text = str(error_from_failure(Failure(known.code, known.phrases[0]), MODEL))
        assert "{" not in text
        assert "gain" in text


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("3", 3.0), ("0.5", 0.5), ("soon", None), ("-1", None)]
)
def test_a_wait_that_the_service_asks_for_is_in_the_error(
    header: str | None, seconds: float | None
) -> None:
    failure = Failure("ThrottlingException", retry_after=parse_retry_after(header))
    error = error_from_failure(failure, MODEL)
    assert isinstance(error, ModelThrottled)
    assert error.retry_after == seconds


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
