"""What a model's name means."""

import re
from collections.abc import Collection
from typing import Final

from chatledger.errors import UnknownModel
from chatledger.models.offline import OfflineModel
from chatledger.models.protocol import OpenedModel

FORMS: Final = (
    "offline; bedrock:<model>, the model being Amazon Bedrock's id of one or of an inference "
    "profile, or an ARN; or <provider>:<model>, the provider being one of LangChain's, such as "
    "openai:gpt-5"
)
"""The forms that a model's name has."""

_PROVIDER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODEL: Final = re.compile(r"[^\s\x00-\x1f\x7f]+")
_EXTRAS: Final = {"boto3": "bedrock", "botocore": "bedrock", "langchain_core": "langchain"}


def open_model(
    name: str, *, offline_pace: float = 0.0, allowed: Collection[str] | None = None
) -> OpenedModel:
    """The model that ``name`` names; close it when you are done.

    ``offline`` is the demonstration, a piece each ``offline_pace`` seconds;
    ``bedrock:amazon.nova-lite-v1:0`` is Amazon Bedrock's, by the id or ARN of a model or inference
    profile; any other ``provider:model``, such as ``openai:gpt-5``, is a chat model of LangChain's.

    Raises ``UnknownModel`` for a name in another form or not among ``allowed``, and where what it
    needs is not installed; ``ModelRefused`` where it cannot be opened, often for want of a key.
    """
    if allowed is not None and name not in allowed:
        raise not_allowed(allowed)
    provider, model = _parts(name)
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
        raise UnknownModel(
            f"{name} needs {package}; install it with pip install 'chatledger[{_EXTRAS[package]}]'."
        ) from missing
    return open_langchain_model(name)


def check_model(name: str) -> None:
    """Raise ``UnknownModel`` unless ``name`` has one of the forms; nothing is opened."""
    _parts(name)


def not_allowed(allowed: Collection[str]) -> UnknownModel:
    # Without the name: a server answers with this, and repeats nothing that it was sent.
    return UnknownModel(f"There is no such model here; there is: {', '.join(allowed)}.")


def _parts(name: str) -> tuple[str, str]:
    """Provider and model."""
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
        raise UnknownModel(f"There is no model {name!r}; name one of these: {FORMS}.")
    return provider, model
