"""Amazon Bedrock models, called through the Converse API; boto3 is imported on first use."""

from typing import TYPE_CHECKING

from chatledger.models.bedrock.model import BedrockModel
from chatledger.models.bedrock.requests import Guardrail

if TYPE_CHECKING:
    from chatledger.models.bedrock.iam import arns, policy

__all__ = ["BedrockModel", "Guardrail", "arns", "policy"]


def __getattr__(name: str) -> object:
    # Imported on first use: few processes write policies.
    if name in ("arns", "policy"):
        from chatledger.models.bedrock import iam

        return getattr(iam, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
