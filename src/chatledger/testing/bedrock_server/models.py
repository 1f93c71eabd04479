"""The models that the server knows, and the ids by which a request may name them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from chatledger.testing.bedrock_server.errors import BedrockError

GEOGRAPHIES = ("us", "us-gov", "eu", "apac", "jp", "au", "ca", "global")
"""The possible prefixes of a cross-region inference profile's id."""

Sampling = Literal["both", "one", "none"]


@dataclass(frozen=True, slots=True)
class BedrockModel:
    """The properties of a model that decide whether it accepts a request.

    Attributes:
        on_demand: True if the model may be invoked by its own id, without an inference profile.
        profiles: The geographies of its cross-region inference profiles.
        sampling: Whether a request may set temperature and top_p: both, only one of them, or none.
        max_stop_sequences: The number of stop sequences that a request may set.
    """

    id: str
    context_tokens: int
    max_output_tokens: int
    on_demand: bool = False
    profiles: Sequence[str] = ("us", "eu", "apac", "global")
    sampling: Sampling = "both"
    supports_prompt_caching: bool = False
    min_cached_tokens: int = 1024
    """The least tokens of a prefix that is cached; a shorter one is not, without an error."""
    supports_tools: bool = True
    supports_system_prompts: bool = True
    supports_prefill: bool = True
    max_stop_sequences: int = 2500


KNOWN_MODELS = (
    BedrockModel(
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        context_tokens=200_000,
        max_output_tokens=64_000,
        profiles=("us", "us-gov", "eu", "jp", "au", "global"),
        sampling="one",
        supports_prompt_caching=True,
    ),
    BedrockModel(
        "anthropic.claude-sonnet-4-20250514-v1:0",
        context_tokens=200_000,
        max_output_tokens=64_000,
        supports_prompt_caching=True,
    ),
    BedrockModel(
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        context_tokens=200_000,
        max_output_tokens=64_000,
        profiles=("us", "eu", "jp", "au", "global"),
        sampling="one",
        supports_prompt_caching=True,
        min_cached_tokens=4096,
    ),
    BedrockModel(
        "anthropic.claude-opus-4-7",
        context_tokens=1_000_000,
        max_output_tokens=128_000,
        profiles=("us", "eu", "jp", "au", "global"),
        sampling="none",
        supports_prompt_caching=True,
        min_cached_tokens=4096,
        supports_prefill=False,
    ),
    BedrockModel(
        "anthropic.claude-3-haiku-20240307-v1:0",
        context_tokens=200_000,
        max_output_tokens=4_096,
        on_demand=True,
        profiles=("us", "eu", "apac"),
    ),
    BedrockModel(
        "amazon.nova-lite-v1:0",
        context_tokens=300_000,
        max_output_tokens=10_000,
        on_demand=True,
        profiles=("us", "us-gov", "eu", "apac"),
        supports_prompt_caching=True,
        max_stop_sequences=4,
    ),
    BedrockModel(
        "amazon.nova-micro-v1:0",
        context_tokens=128_000,
        max_output_tokens=10_000,
        on_demand=True,
        profiles=("us", "us-gov", "eu", "apac"),
        supports_prompt_caching=True,
        max_stop_sequences=4,
    ),
)
"""A few models with the limits that AWS documents; pass ``BedrockServer`` others if you need them.

https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html
https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-anthropic-claude-opus-4-7.html
"""

_ARN = re.compile(
    r"arn:aws(?:-[^:]+)?:bedrock:[a-z0-9-]{1,20}:"
    r"(?:(?P<account>[0-9]{12}):(?P<kind>inference-profile|application-inference-profile)"
    r"|:foundation-model)/(?P<name>[a-zA-Z0-9:.-]+)"
)


def find_model(
    model_id: str, models: Sequence[BedrockModel], *, application_profiles: Mapping[str, str]
) -> BedrockModel:
    """Return the model that a request names; raise ``BedrockError`` for an invalid id.

    ``model_id`` is the id of a model or of an inference profile, or the ARN of either.
    ``application_profiles`` holds model ids by the ids of application inference profiles. Any other
    application profile stands for the first of ``models``, since only the account that made it
    knows its model.

    https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-use.html
    """
    arn = _ARN.fullmatch(model_id)
    if arn is None:
        return _model_of_profile(model_id, models) or _on_demand_model(
            model_id, models, requested=model_id
        )
    name = arn["name"]
    match arn["kind"]:
        case None:
            return _on_demand_model(name, models, requested=model_id)
        case "inference-profile":
            return _model_of_profile(name, models) or _reject_unknown()
    return _model_by_id(application_profiles.get(name, models[0].id), models) or _reject_unknown()


def _model_of_profile(profile: str, models: Sequence[BedrockModel]) -> BedrockModel | None:
    geography, _, model_id = profile.partition(".")
    model = _model_by_id(model_id, models)
    if model and geography in GEOGRAPHIES and geography in model.profiles:
        return model
    return None


def _on_demand_model(
    model_id: str, models: Sequence[BedrockModel], *, requested: str
) -> BedrockModel:
    model = _model_by_id(model_id, models) or _reject_unknown()
    if not model.on_demand:
        raise BedrockError(
            f"Invocation of model ID {requested} with on-demand throughput isn’t supported. Retry "
            "your request with the ID or ARN of an inference profile that contains this model."
        )
    return model


def _model_by_id(model_id: str, models: Sequence[BedrockModel]) -> BedrockModel | None:
    return next((model for model in models if model.id == model_id), None)


def _reject_unknown() -> NoReturn:
    raise BedrockError("The provided model identifier is invalid.")
