"""IAM policies for calling Bedrock models."""

import re
from collections.abc import Sequence
from typing import Any, Final

from chatledger.errors import InvalidArgument

# The prefixes of the inference profiles that Bedrock defines: each is the geography in which a
# profile may route a request.
_GEOGRAPHIES: Final = "apac|au|ca|eu|global|jp|sa|us|us-gov"
_PROFILE: Final = re.compile(rf"(?:{_GEOGRAPHIES})\.(?P<model>.+)")
_PROFILE_ARN: Final = re.compile(
    rf"arn:[^:]*:bedrock:[^:]*:[^:]*:inference-profile/{_PROFILE.pattern}"
)


def policy(model_arns: Sequence[str]) -> dict[str, Any]:
    """Return the least-privilege IAM policy for calling models, with and without streaming.

    A guardrail also needs ``bedrock:ApplyGuardrail`` on itself.

    Args:
        model_arns: The ARNs of the models and inference profiles, as ``arns`` returns them.

    Raises:
        InvalidArgument: ``model_arns`` is empty or a string.
    """
    if isinstance(model_arns, str) or not model_arns:
        raise InvalidArgument("model_arns must be a list of at least one model's ARN.")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ChatledgerInvokes",
                "Effect": "Allow",
                "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
                "Resource": list(dict.fromkeys(model_arns)),
            }
        ],
    }


def arns(model_id: str, *, region: str = "*", account: str = "*") -> list[str]:
    """Return the ARNs that ``policy`` must allow for ``BedrockModel(model_id)``.

    For an inference profile that Bedrock defines, such as ``eu.amazon.nova-lite-v1:0``, they
    include its model in every region, because the profile may route a request to any of them. An
    application inference profile, or a provisioned or imported model, is named by its ARN, and only
    that ARN is returned: add the ARNs of the underlying models.

    Args:
        model_id: The id or ARN of a model or inference profile.
        region: The AWS region in the ARNs, or ``*`` for any.
        account: The AWS account id in the ARNs, or ``*`` for any.
    """
    if match := _PROFILE_ARN.fullmatch(model_id):
        return [model_id, _model_arn(match["model"])]
    if model_id.startswith("arn:"):
        return [model_id]
    if match := _PROFILE.fullmatch(model_id):
        profile = f"arn:aws:bedrock:{region}:{account}:inference-profile/{model_id}"
        return [profile, _model_arn(match["model"])]
    return [_model_arn(model_id, region)]


def _model_arn(model: str, region: str = "*") -> str:
    return f"arn:aws:bedrock:{region}::foundation-model/{model}"
