"""The error messages for failed calls: each says what to do, and whether trying again helps.

``{model}`` stands for the model's id and ``{code}`` for the failure's code.
"""

from collections.abc import Callable
from typing import NamedTuple

from chatledger.errors import (
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)

# Codes for failures that no response of the service describes.
BEARER_WITHOUT_TLS = "BearerWithoutTLS"
CONNECTION_LOST = "ConnectionLost"
INVALID_ENDPOINT = "InvalidEndpoint"
INVALID_PARAMETERS = "ParamValidation"
MALFORMED_REPLY = "MalformedReply"
NO_CREDENTIALS = "NoCredentials"
NO_REGION = "NoRegion"
NO_RESPONSE = "NoResponse"
UNREACHABLE = "Unreachable"


class ErrorMessage(NamedTuple):
    """A kind of error and the template of its text."""

    error_class: type[ModelError]
    template: str


class KnownRefusal(NamedTuple):
    """A refusal that is recognised by phrases, in lower case, in the service's text."""

    code: str
    phrases: tuple[str, ...]
    text: str


_DO_NOT_RETRY = "; trying again does not help."
_TOO_LONG = "The window is longer than {model} accepts; use a smaller window" + _DO_NOT_RETRY

UNAVAILABLE = ErrorMessage(
    ModelUnavailable, "Bedrock could not serve {model} ({code}); try again later."
)
INCOMPLETE = ErrorMessage(
    ModelUnavailable, "The reply of {model} was cut off or malformed ({code}); try again."
)
THROTTLED = ErrorMessage(
    ModelThrottled,
    "This account sent too many requests or tokens to {model} ({code}); try again later, request a "
    "higher quota, or use an inference profile that covers more regions.",
)
TIMED_OUT = ErrorMessage(
    ModelTimeout,
    "{model} took too long ({code}); try again, or use a smaller window or a longer timeout.",
)
BAD_CREDENTIALS = ErrorMessage(
    ModelRefused,
    "AWS did not accept the credentials ({code}): they are missing, wrong or expired. Set "
    "AWS_PROFILE, AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, sign "
    "in again (aws sso login), or run with a role, and check that the clock is right; trying again "
    "without a change does not help.",
)
ACCESS_DENIED = ErrorMessage(
    ModelRefused,
    "AWS does not allow this caller to use {model} ({code}): allow "
    "bedrock:InvokeModelWithResponseStream on the model (and on its inference profile, if you use "
    "one) for this role, and enable the model in this account and region; trying again without a "
    "change does not help.",
)
MODEL_NOT_FOUND = ErrorMessage(
    ModelRefused,
    "There is no {model} in this region, or it has been retired ({code}); check the model's id "
    "and the region. Trying again does not help.",
)
INVALID_REQUEST = ErrorMessage(
    ModelRefused,
    "Bedrock refused the request for {model} ({code}): this model may not accept one of the "
    "settings, the tools, or something in the conversation; trying again does not help.",
)

MESSAGES_BY_CODE: dict[str, ErrorMessage] = {
    **dict.fromkeys(
        ("InternalServer", "InternalFailure", "ModelError", "ModelNotReady", "ServiceUnavailable"),
        UNAVAILABLE,
    ),
    **dict.fromkeys(("ModelStreamError", CONNECTION_LOST, MALFORMED_REPLY), INCOMPLETE),
    **dict.fromkeys(
        ("RequestLimitExceeded", "ServiceQuotaExceeded", "Throttling", "TooManyRequests"), THROTTLED
    ),
    **dict.fromkeys(("ModelTimeout", NO_RESPONSE), TIMED_OUT),
    **dict.fromkeys(("AccessDenied", "NotAuthorized"), ACCESS_DENIED),
    **dict.fromkeys(
        (
            *("ExpiredToken", "IncompleteSignature", "InvalidClientTokenId", "InvalidSignature"),
            *("MissingAuthenticationToken", "RequestExpired", "SignatureDoesNotMatch"),
            *("UnrecognizedClient", NO_CREDENTIALS),
        ),
        BAD_CREDENTIALS,
    ),
    "RequestEntityTooLarge": ErrorMessage(ModelRefused, _TOO_LONG),
    "ResourceNotFound": MODEL_NOT_FOUND,
    **dict.fromkeys(("Validation", INVALID_PARAMETERS), INVALID_REQUEST),
    UNREACHABLE: ErrorMessage(
        ModelUnavailable,
        "Bedrock cannot be reached to call {model}; try again. If the error persists, check the "
        "network, the proxy and the region.",
    ),
    NO_REGION: ErrorMessage(
        ModelRefused,
        "No AWS region is configured to call {model} in; pass region, or set AWS_DEFAULT_REGION.",
    ),
    BEARER_WITHOUT_TLS: ErrorMessage(
        ModelRefused,
        "AWS_BEARER_TOKEN_BEDROCK is sent over https only; call {model} at an https endpoint, or "
        "unset the variable to use other credentials.",
    ),
    INVALID_ENDPOINT: ErrorMessage(
        ModelRefused,
        "The endpoint to call {model} at is not a URL; write one such as https://host.",
    ),
}

# The first entry applies whose code matches and whose phrases include one in the service's text.
KNOWN_REFUSALS: tuple[KnownRefusal, ...] = (
    KnownRefusal(
        "Validation",
        ("on-demand throughput",),
        "{model} is only available through an inference profile; use the profile's id, such as "
        "us.{model}, eu.{model} or global.{model}, or its ARN" + _DO_NOT_RETRY,
    ),
    KnownRefusal(
        "Validation",
        (
            *("input is too long", "prompt is too long", "exceed context limit"),
            *("too many total text bytes", "too many input tokens", "maximum context length"),
            *("input tokens exceeded", "exceeds the maximum number of tokens"),
        ),
        _TOO_LONG,
    ),
    KnownRefusal(
        "Validation",
        (
            *("is deprecated for this model", "`temperature` and `top_p` cannot both"),
            *("the temperature field", "the topp field", "the top_p field"),
        ),
        "{model} does not accept temperature or top_p, or not both of them; leave them out"
        + _DO_NOT_RETRY,
    ),
    KnownRefusal(
        "Validation",
        ("maximum tokens you requested", "max_tokens: ", "maxtokens"),
        "{model} cannot write as many tokens as max_tokens says; lower it" + _DO_NOT_RETRY,
    ),
    *(
        KnownRefusal(
            code,
            ("prompt caching", "cachepoint"),
            "{model} does not support prompt caching; pass cache=False" + _DO_NOT_RETRY,
        )
        for code in ("AccessDenied", "Validation")
    ),
    KnownRefusal(
        "Validation",
        ("stop_sequences: ", "stopsequences"),
        "{model} accepts fewer stop sequences, or none that are only whitespace; change "
        "stop_sequences" + _DO_NOT_RETRY,
    ),
    KnownRefusal(
        "Validation",
        ("support tool use", "toolconfig", "toolchoice"),
        "{model} does not accept these tools, any tools, or tool_choice; leave them out"
        + _DO_NOT_RETRY,
    ),
    KnownRefusal(
        "Validation",
        ("support system messages", "support system prompts"),
        "{model} does not accept a system prompt; leave it out" + _DO_NOT_RETRY,
    ),
    KnownRefusal(
        "Validation",
        ("guardrail identifier", "guardrailidentifier", "guardrail version"),
        "The guardrail does not exist in this account and region; check its id and version"
        + _DO_NOT_RETRY,
    ),
    KnownRefusal(
        "Validation",
        ("model identifier is invalid",),
        "There is no model with the id {model} in this region; check both" + _DO_NOT_RETRY,
    ),
    KnownRefusal(
        "ResourceNotFound",
        ("use case details",),
        "Anthropic requires this account to describe its use case before it may use {model}: fill "
        "in the form in the Bedrock console, and try again 15 minutes later.",
    ),
    KnownRefusal(
        "AccessDenied",
        ("api key", "bearer token"),
        "AWS did not accept the token in AWS_BEARER_TOKEN_BEDROCK to call {model}; create a new "
        "one, or unset the variable to use other credentials. Trying again does not help.",
    ),
)

# The first entry whose condition holds applies.
MESSAGES_BY_STATUS: tuple[tuple[Callable[[int], bool], ErrorMessage], ...] = (
    (lambda status: status in {408, 504}, TIMED_OUT),
    (lambda status: status == 429, THROTTLED),
    (lambda status: status == 424 or status >= 500, UNAVAILABLE),
    (lambda status: status in {401, 403}, ACCESS_DENIED),
    (lambda status: status == 404, MODEL_NOT_FOUND),
    (lambda status: status >= 300, INVALID_REQUEST),
)
