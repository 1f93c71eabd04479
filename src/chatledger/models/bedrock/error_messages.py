"""What is told of a failure: each says what to do, and whether trying again helps.

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

# Codes of ours, for what no service answers.
BROKEN_OFF = "BrokenOff"
GARBLED = "Garbled"
NO_BEARER = "BearerWithoutTLS"
NO_CREDENTIALS = "NoCredentials"
NO_REGION = "NoRegion"
NOT_SENT = "ParamValidation"
SILENT = "Silent"
UNREACHABLE = "Unreachable"
WRONG_ADDRESS = "WrongAddress"


class Sentence(NamedTuple):
    kind: type[ModelError]
    text: str


class Known(NamedTuple):
    """A refusal that is known by fixed pieces, in lower case, of what Bedrock or a model says."""

    code: str
    pieces: tuple[str, ...]
    text: str


_REFUSED = "; trying again does not help."
_TOO_LONG = "The window is longer than {model} takes; use a smaller window" + _REFUSED

DOWN = Sentence(
    ModelUnavailable,
    "Bedrock could not serve {model} just now ({code}); trying again later may help.",
)
BROKE_OFF = Sentence(
    ModelUnavailable,
    "The reply of {model} broke off or came garbled on its way ({code}); trying again may help.",
)
THROTTLED = Sentence(
    ModelThrottled,
    "Bedrock has had too many requests or tokens for {model} from this account ({code}); trying "
    "again after a while helps, and so does a higher quota, or an inference profile over more "
    "regions.",
)
SLOW = Sentence(
    ModelTimeout,
    "{model} took too long ({code}); trying again may help, and so may a shorter window or a "
    "longer timeout.",
)
CREDENTIALS = Sentence(
    ModelRefused,
    "AWS does not know who is calling ({code}): the credentials are missing, wrong, or have "
    "expired. Set AWS_PROFILE, AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, sign in again (aws sso login), or run where a role gives them, and "
    "see that the clock is right; trying again alone does not help.",
)
ACCESS = Sentence(
    ModelRefused,
    "AWS may not let this caller use {model} ({code}): grant "
    "bedrock:InvokeModelWithResponseStream on the model (and on its inference profile, if it is "
    "called by one) to this role, and enable the model in this account and region; trying again "
    "alone does not help.",
)
NOT_FOUND = Sentence(
    ModelRefused,
    "There is no {model} in this region, or it has been retired ({code}); check the model's id "
    "and the region. Trying again does not help.",
)
INVALID = Sentence(
    ModelRefused,
    "Bedrock refuses the request for {model} ({code}): this model may not take one of the "
    "settings, the tools, or something in the conversation; trying again does not help.",
)

BY_CODE: dict[str, Sentence] = {
    **dict.fromkeys(
        ("InternalServer", "InternalFailure", "ModelError", "ModelNotReady", "ServiceUnavailable"),
        DOWN,
    ),
    **dict.fromkeys(("ModelStreamError", BROKEN_OFF, GARBLED), BROKE_OFF),
    **dict.fromkeys(
        ("RequestLimitExceeded", "ServiceQuotaExceeded", "Throttling", "TooManyRequests"), THROTTLED
    ),
    **dict.fromkeys(("ModelTimeout", SILENT), SLOW),
    **dict.fromkeys(("AccessDenied", "NotAuthorized"), ACCESS),
    **dict.fromkeys(
        (
            *("ExpiredToken", "IncompleteSignature", "InvalidClientTokenId", "InvalidSignature"),
            *("MissingAuthenticationToken", "RequestExpired", "SignatureDoesNotMatch"),
            *("UnrecognizedClient", NO_CREDENTIALS),
        ),
        CREDENTIALS,
    ),
    "RequestEntityTooLarge": Sentence(ModelRefused, _TOO_LONG),
    "ResourceNotFound": NOT_FOUND,
    **dict.fromkeys(("Validation", NOT_SENT), INVALID),
    UNREACHABLE: Sentence(
        ModelUnavailable,
        "Bedrock cannot be reached to call {model}; trying again may help. If it goes on, check "
        "the network, the proxy and the region.",
    ),
    NO_REGION: Sentence(
        ModelRefused,
        "No AWS region is named to call {model} in; give region, or set AWS_DEFAULT_REGION.",
    ),
    NO_BEARER: Sentence(
        ModelRefused,
        "AWS_BEARER_TOKEN_BEDROCK is sent over https only; call {model} at an https endpoint, or "
        "unset the variable to use other credentials.",
    ),
    WRONG_ADDRESS: Sentence(
        ModelRefused,
        "The endpoint to call {model} at is no address; write it as https://host, say.",
    ),
}

# The first that has its code and one of its pieces counts.
KNOWN: tuple[Known, ...] = (
    Known(
        "Validation",
        ("on-demand throughput",),
        "{model} is only served through an inference profile: call it by the profile's id, such "
        "as us.{model}, eu.{model} or global.{model}, or by its ARN" + _REFUSED,
    ),
    Known(
        "Validation",
        (
            *("input is too long", "prompt is too long", "exceed context limit"),
            *("too many total text bytes", "too many input tokens", "maximum context length"),
            *("input tokens exceeded", "exceeds the maximum number of tokens"),
        ),
        _TOO_LONG,
    ),
    Known(
        "Validation",
        (
            *("is deprecated for this model", "`temperature` and `top_p` cannot both"),
            *("the temperature field", "the topp field", "the top_p field"),
        ),
        "{model} does not take temperature and top_p, or not both; leave them out" + _REFUSED,
    ),
    Known(
        "Validation",
        ("maximum tokens you requested", "max_tokens: ", "maxtokens"),
        "{model} does not write as many tokens as max_tokens says; lower it" + _REFUSED,
    ),
    *(
        Known(
            code,
            ("prompt caching", "cachepoint"),
            "{model} knows no prompt caching; make it with cache=False" + _REFUSED,
        )
        for code in ("AccessDenied", "Validation")
    ),
    Known(
        "Validation",
        ("stop_sequences: ", "stopsequences"),
        "{model} takes fewer stop sequences, or none of white space alone; give others" + _REFUSED,
    ),
    Known(
        "Validation",
        ("support tool use", "toolconfig", "toolchoice"),
        "{model} does not take these tools, or none, or no tool_choice; leave them out" + _REFUSED,
    ),
    Known(
        "Validation",
        ("support system messages", "support system prompts"),
        "{model} takes no system prompt; leave it out" + _REFUSED,
    ),
    Known(
        "Validation",
        ("guardrail identifier", "guardrailidentifier", "guardrail version"),
        "The guardrail is not there in this account and region; check its id and version"
        + _REFUSED,
    ),
    Known(
        "Validation",
        ("model identifier is invalid",),
        "There is no model with the id {model} in this region; check both" + _REFUSED,
    ),
    Known(
        "ResourceNotFound",
        ("use case details",),
        "The account has yet to tell Anthropic what it uses {model} for: fill in the form in the "
        "Bedrock console, and try again after a quarter of an hour.",
    ),
    Known(
        "AccessDenied",
        ("api key", "bearer token"),
        "AWS does not accept the token in AWS_BEARER_TOKEN_BEDROCK to call {model}; make a new "
        "one, or unset the variable to use other credentials. Trying again does not help.",
    ),
)

BY_STATUS: tuple[tuple[Callable[[int], bool], Sentence], ...] = (
    (lambda status: status in {408, 504}, SLOW),
    (lambda status: status == 429, THROTTLED),
    (lambda status: status == 424 or status >= 500, DOWN),
    (lambda status: status in {401, 403}, ACCESS),
    (lambda status: status == 404, NOT_FOUND),
    (lambda status: status >= 300, INVALID),
)
