"""The models that the server knows, and how a request may name them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chatledger.testing.bedrock_server.refusing import Refused

GEOGRAPHIES = ("us", "us-gov", "eu", "apac", "jp", "au", "ca", "global")
"""What the id of a cross-region inference profile begins with."""

Sampling = Literal["both", "one", "none"]


@dataclass(frozen=True, slots=True)
class BedrockModel:
    """What of a model decides whether it takes a request.

    ``on_demand`` is whether its bare id may be invoked; ``profiles`` are the geographies of its
    inference profiles. ``sampling`` is how many of temperature and top_p a request may set: both,
    one of them, none.
    """

    id: str
    context_tokens: int
    max_output_tokens: int
    on_demand: bool = False
    profiles: Sequence[str] = ("us", "eu", "apac", "global")
    sampling: Sampling = "both"
    prompt_caching: bool = False
    cache_minimum: int = 1024
    """Tokens that a prefix needs to be cached; a shorter one is not, and that is no error."""
    tools: bool = True
    system_prompts: bool = True
    prefill: bool = True
    stop_sequences: int = 2500


KNOWN_MODELS = (
    BedrockModel(
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        context_tokens=200_000,
        max_output_tokens=64_000,
        profiles=("us", "us-gov", "eu", "jp", "au", "global"),
        sampling="one",
        prompt_caching=True,
    ),
    BedrockModel(
        "anthropic.claude-sonnet-4-20250514-v1:0",
        context_tokens=200_000,
        max_output_tokens=64_000,
        prompt_caching=True,
    ),
    BedrockModel(
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        context_tokens=200_000,
        max_output_tokens=64_000,
        profiles=("us", "eu", "jp", "au", "global"),
        sampling="one",
        prompt_caching=True,
        cache_minimum=4096,
    ),
    BedrockModel(
        "anthropic.claude-opus-4-7",
        context_tokens=1_000_000,
        max_output_tokens=128_000,
        profiles=("us", "eu", "jp", "au", "global"),
        sampling="none",
        prompt_caching=True,
        cache_minimum=4096,
        prefill=False,
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
        prompt_caching=True,
        stop_sequences=4,
    ),
    BedrockModel(
        "amazon.nova-micro-v1:0",
        context_tokens=128_000,
        max_output_tokens=10_000,
        on_demand=True,
        profiles=("us", "us-gov", "eu", "apac"),
        prompt_caching=True,
        stop_sequences=4,
    ),
)
"""A few, with what AWS says of them; pass ``BedrockServer`` your own where these do not do.

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


def named(
    model_id: str, models: Sequence[BedrockModel], *, applications: Mapping[str, str]
) -> BedrockModel:
    """The model that ``model_id`` means: its own id, a profile's, or an ARN of one of them.

    ``applications`` are the models' ids of application inference profiles. One that is not among
    them means the first of ``models``, as nobody but the account knows what it stands for.

    https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-use.html
    """
    arn = _ARN.fullmatch(model_id)
    if arn is None:
        return _profile(model_id, models) or _on_demand(model_id, models, asked=model_id)
    name = arn["name"]
    match arn["kind"]:
        case None:
            return _on_demand(name, models, asked=model_id)
        case "inference-profile":
            return _profile(name, models) or _unknown()
    return _by_id(applications.get(name, models[0].id), models) or _unknown()


def _profile(name: str, models: Sequence[BedrockModel]) -> BedrockModel | None:
    geography, _, model_id = name.partition(".")
    model = _by_id(model_id, models)
    if model and geography in GEOGRAPHIES and geography in model.profiles:
        return model
    return None


def _on_demand(model_id: str, models: Sequence[BedrockModel], *, asked: str) -> BedrockModel:
    model = _by_id(model_id, models) or _unknown()
    if not model.on_demand:
        raise Refused(
            f"Invocation of model ID {asked} with on-demand throughput isn’t supported. Retry "
            "your request with the ID or ARN of an inference profile that contains this model."
        )
    return model


def _by_id(model_id: str, models: Sequence[BedrockModel]) -> BedrockModel | None:
    return next((model for model in models if model.id == model_id), None)


def _unknown() -> BedrockModel:
    raise Refused("The provided model identifier is invalid.")
