"""Opening a language model by name."""

import re
from typing import Final

from chatledger.errors import UnknownModel
from chatledger.extras import missing_package_error
from chatledger.models.offline import OfflineModel
from chatledger.models.protocol import OpenedModel

NAME_FORMS: Final = (
    "offline; bedrock:<model>, where <model> is the id or ARN of an Amazon Bedrock model or "
    "inference profile; or <provider>:<model>, where <provider> is one of LangChain's, such as "
    "openai:gpt-5"
)
"""The forms of a model name, for error messages and help texts."""

_PROVIDER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODEL: Final = re.compile(r"[^\s\x00-\x1f\x7f]+")
_EXTRAS: Final = {"boto3": "bedrock", "botocore": "bedrock", "langchain_core": "langchain"}


def open_model(name: str, *, offline_pace: float = 0.0) -> OpenedModel:
    """Open the model called ``name`` with its default settings; the caller closes it.

    Args:
        name: ``offline`` for the demonstration model; ``bedrock:amazon.nova-lite-v1:0`` for an
            Amazon Bedrock model, by the id or ARN of a model or inference profile; any other
            ``provider:model``, such as ``openai:gpt-5``, for a LangChain chat model.
        offline_pace: The seconds before each piece of the offline model's reply.

    Raises:
        UnknownModel: The name has none of these forms, or the model needs a package that is not
            installed.
        ModelRefused: The model cannot be opened, often because its API key is missing.
    """
    provider, model = _split_name(name)
    if provider == "offline":
        return OfflineModel(pace=offline_pace)
    try:
        if provider == "bedrock":
            from chatledger.models.bedrock import BedrockModel

            return BedrockModel(model)
        from chatledger.models.langchain import open_langchain_model
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise UnknownModel(missing_package_error(name, missing, _EXTRAS[package])) from missing
    return open_langchain_model(name)


def check_model(name: str) -> None:
    """Raise ``UnknownModel`` unless ``name`` has the form of a model name."""
    _split_name(name)


def _split_name(name: str) -> tuple[str, str]:
    """Split a model name into its provider and its model."""
    provider, colon, model = name.partition(":")
    if name == "offline":
        return name, ""
    if provider == "arn":
        raise UnknownModel(f"{name!r} is an ARN; name the model bedrock:{name}.")
    if (
        provider == "offline"
        or not colon
        or not _PROVIDER.fullmatch(provider)
        or not _MODEL.fullmatch(model)
    ):
        raise UnknownModel(f"{name!r} is not the name of a model; use one of these: {NAME_FORMS}.")
    return provider, model
