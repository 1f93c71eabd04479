"""The error that a failed call to Bedrock becomes.

Bedrock's code, or else the HTTP status, decides. Bedrock's own text is never repeated, because it
may quote the conversation; it is in the error's cause.
"""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from botocore.exceptions import ClientError

from chatledger.aws.errors import Problem, problem_of
from chatledger.backoff import parse_retry_after
from chatledger.errors import (
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)

OPERATIONS = ("Converse", "ConverseStream")

ErrorKind: TypeAlias = tuple[type[ModelError], str]
"""An error class and the template of its text."""


def _refusal(text: str) -> ErrorKind:
    return ModelRefused, f"{text}; trying again without a change does not help."


_UNAVAILABLE: ErrorKind = (
    ModelUnavailable,
    "Bedrock could not serve {model} ({code}); try again later.",
)
_INCOMPLETE: ErrorKind = (
    ModelUnavailable,
    "The reply of {model} was cut off or malformed ({code}); try again.",
)
_TIMED_OUT: ErrorKind = (
    ModelTimeout,
    "{model} took too long ({code}); try again, with a smaller window or a longer timeout.",
)
_THROTTLED: ErrorKind = (
    ModelThrottled,
    "This account sent too much to {model} ({code}); try again later, or request a higher quota.",
)
_UNREACHABLE: ErrorKind = (
    ModelUnavailable,
    "Bedrock cannot be reached ({code}); try again, or check the network, proxy and region.",
)
_NO_REGION = _refusal("No AWS region is configured ({code}); pass region or set AWS_DEFAULT_REGION")
_BEARER_WITHOUT_TLS = _refusal(
    "AWS_BEARER_TOKEN_BEDROCK is sent over https only ({code}); call {model} at an https endpoint, "
    "or unset the variable to use other credentials"
)
_NO_CREDENTIALS = _refusal(
    "AWS did not accept the credentials ({code}): they are missing, wrong or expired. Set "
    "AWS_PROFILE, AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, sign "
    "in again (aws sso login), or run with a role, and check that the clock is right"
)
_NO_ACCESS = _refusal(
    "AWS does not allow this caller to use {model} ({code}): allow "
    "bedrock:InvokeModelWithResponseStream on the model (and on its inference profile, if you use "
    "one) for this role, enable the model in this account and region, and renew "
    "AWS_BEARER_TOKEN_BEDROCK if it is set"
)
_NO_SUCH_MODEL = _refusal(
    "There is no {model} to call in this region ({code}): check the id and the region. Many models "
    "are called by the id or ARN of an inference profile, such as us.{model}, eu.{model} or "
    "global.{model}, and Anthropic's only after the account has described its use case in the "
    "Bedrock console"
)
_REFUSED = _refusal(
    "Bedrock refused the request for {model} ({code}): the window may be too long, or the model "
    "may not accept one of the settings, the tools, or something in the conversation. The cause "
    "of this error has Bedrock's explanation"
)

_BY_CODE: dict[str, ErrorKind] = {
    **dict.fromkeys(
        ("InternalServer", "InternalFailure", "ModelError", "ModelNotReady", "ServiceUnavailable"),
        _UNAVAILABLE,
    ),
    **dict.fromkeys(
        ("ModelStreamError", Problem.CONNECTION_LOST, Problem.MALFORMED_REPLY), _INCOMPLETE
    ),
    Problem.UNREACHABLE: _UNREACHABLE,
    **dict.fromkeys(
        ("RequestLimitExceeded", "ServiceQuotaExceeded", "Throttling", "TooManyRequests"),
        _THROTTLED,
    ),
    **dict.fromkeys(("ModelTimeout", Problem.NO_RESPONSE), _TIMED_OUT),
    **dict.fromkeys(
        (
            *("ExpiredToken", "IncompleteSignature", "InvalidClientTokenId", "InvalidSignature"),
            *("MissingAuthenticationToken", "RequestExpired", "SignatureDoesNotMatch"),
            *("UnrecognizedClient", Problem.NO_CREDENTIALS),
        ),
        _NO_CREDENTIALS,
    ),
    Problem.NO_REGION: _NO_REGION,
    Problem.BEARER_WITHOUT_TLS: _BEARER_WITHOUT_TLS,
    **dict.fromkeys(("AccessDenied", "NotAuthorized"), _NO_ACCESS),
    "ResourceNotFound": _NO_SUCH_MODEL,
    **dict.fromkeys(("Validation", "RequestEntityTooLarge", Problem.INVALID_PARAMETERS), _REFUSED),
}
_NO_SUCH_MODEL_PHRASES = ("model identifier is invalid", "on-demand throughput")
"""Parts of Bedrock's text, in lower case, when a ValidationException is about the model's id."""

# The first entry whose condition holds applies.
_BY_STATUS: tuple[tuple[Callable[[int], bool], ErrorKind], ...] = (
    (lambda status: status in {408, 504}, _TIMED_OUT),
    (lambda status: status == 429, _THROTTLED),
    (lambda status: status == 424 or status >= 500, _UNAVAILABLE),
    (lambda status: status in {401, 403}, _NO_ACCESS),
    (lambda status: status == 404, _NO_SUCH_MODEL),
    (lambda status: status >= 300, _REFUSED),
    (lambda status: True, _UNAVAILABLE),
)


def model_error(error: Exception, model_id: str) -> ModelError:
    """Return the error to raise for a call that raised one of ``STREAM_ERRORS``."""
    if not isinstance(error, ClientError) or error.operation_name not in OPERATIONS:
        return _make_error(problem_of(error), "", 0, model_id)
    response: Any = error.response
    details, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    made = _make_error(
        str(details.get("Code")),
        str(details.get("Message")),
        metadata.get("HTTPStatusCode", 0),
        model_id,
    )
    if isinstance(made, ModelThrottled):
        made.retry_after = parse_retry_after(metadata.get("HTTPHeaders", {}).get("retry-after"))
    return made


def _make_error(code: str, service_text: str, status: int, model_id: str) -> ModelError:
    if re.fullmatch("[A-Za-z][A-Za-z0-9]{0,63}", code):
        code = code[0].upper() + code[1:]  # in events it starts in lower case
    else:
        code = f"HTTP {status}"  # a proxy may send any text
    base_code = code.removesuffix("Exception")
    by_status = next(kind for holds, kind in _BY_STATUS if holds(status))
    error_class, template = _BY_CODE.get(base_code, by_status)
    if base_code == "Validation" and any(
        phrase in service_text.lower() for phrase in _NO_SUCH_MODEL_PHRASES
    ):
        error_class, template = _NO_SUCH_MODEL
    return error_class(template.format(code=code, model=model_id))
