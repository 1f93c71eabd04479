"""Amazon Bedrock's models, over its Converse API; boto3 is imported when a model is made."""

from recollect.models.bedrock.model import BedrockModel
from recollect.models.bedrock.settings import Guardrail

__all__ = ["BedrockModel", "Guardrail"]
