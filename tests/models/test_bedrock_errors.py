"""What is raised for a call that failed, and whether it is tried again."""

import pytest

from chatledger.errors import (
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from chatledger.models.bedrock.error_messages import BY_CODE, KNOWN
from chatledger.models.bedrock.errors import Failure, translated
from chatledger.models.bedrock.retries import TRIES, Tries
from chatledger.models.headers import retry_after

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
def test_each_code_has_its_error_and_names_itself(code: str, kind: type[ModelError]) -> None:
    error = translated(Failure(code, SECRET, 400), MODEL)
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
def test_without_a_code_that_is_known_the_status_decides(
    status: int, kind: type[ModelError]
) -> None:
    assert type(translated(Failure("", status=status), MODEL)) is kind
    assert type(translated(Failure("UnheardOfException", status=status), MODEL)) is kind


def test_a_code_that_is_none_is_not_repeated() -> None:
    error = translated(Failure(f"<p>{SECRET}</p>", status=502), MODEL)
    assert SECRET not in str(error)
    assert "HTTP 502" in str(error)


@pytest.mark.parametrize(
    ("code", "said", "advice"),
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
def test_a_refusal_says_what_to_change(code: str, said: str, advice: str) -> None:
    error = translated(Failure(code, f"{said} {SECRET}", 400), MODEL)
    assert type(error) is ModelRefused
    assert advice in str(error)
    assert SECRET not in str(error)


def test_every_sentence_can_be_said() -> None:
    for code in BY_CODE:
        assert "{" not in str(translated(Failure(code), MODEL))
    for known in KNOWN:
        sentence = str(translated(Failure(known.code, known.pieces[0]), MODEL))
        assert "{" not in sentence
        assert "gain" in sentence


@pytest.mark.parametrize(
    ("header", "waited"), [(None, None), ("3", 3.0), ("0.5", 0.5), ("soon", None), ("-1", None)]
)
def test_a_wait_that_the_service_asks_for_is_told(header: str | None, waited: float | None) -> None:
    error = translated(Failure("ThrottlingException", retry_after=retry_after(header)), MODEL)
    assert isinstance(error, ModelThrottled)
    assert error.retry_after == waited


# Further tries -----------------------------------------------------------------------------------


def tries(patience: float, *, now: list[float] | None = None) -> Tries:
    """Of which each waits as long as it may."""
    clock = now or [0.0]
    return Tries(patience, monotonic=lambda: clock[0], uniform=lambda low, high: high)


def test_waits_grow_up_to_a_longest_one_and_end() -> None:
    made = tries(1000)
    assert [made.pause(ModelUnavailable()) for _ in range(TRIES - 1)] == [0.25, 0.5, 1, 2, 4]
    with pytest.raises(ModelUnavailable):
        made.pause(ModelUnavailable())


def test_patience_ends_tries() -> None:
    now = [0.0]
    made = tries(1.0, now=now)
    assert made.pause(ModelTimeout()) == 0.25
    now[0] = 0.8
    with pytest.raises(ModelTimeout):
        made.pause(ModelTimeout())


def test_what_is_refused_is_not_tried_again() -> None:
    with pytest.raises(ModelRefused):
        tries(1000).pause(ModelRefused())


def test_a_throttled_call_waits_as_long_as_the_service_asks() -> None:
    made = tries(10)
    assert made.pause(ModelThrottled("", retry_after=3)) == 3
    with pytest.raises(ModelThrottled):
        made.pause(ModelThrottled("", retry_after=60))
