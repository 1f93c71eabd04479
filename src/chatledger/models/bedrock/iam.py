"""Who may call Bedrock's models."""

import re
from collections.abc import Sequence
from typing import Any, Final

from chatledger.errors import InvalidArgument

# Of the inference profiles that Bedrock defines itself: where it may send a request.
_GEOGRAPHIES: Final = "apac|au|ca|eu|global|jp|sa|us|us-gov"
_PROFILE: Final = re.compile(rf"(?:{_GEOGRAPHIES})\.(?P<model>.+)")
_PROFILE_ARN: Final = re.compile(
    rf"arn:[^:]*:bedrock:[^:]*:[^:]*:inference-profile/{_PROFILE.pattern}"
)


def policy(model_arns: Sequence[str]) -> dict[str, Any]:
    """The least that IAM must allow to call these models and inference profiles, streamed or not.

    ``arns`` says which these are. A guardrail needs ``bedrock:ApplyGuardrail`` for itself besides.
    """
    if isinstance(model_arns, str) or not model_arns:
        raise InvalidArgument("model_arns must list the ARN of one model or more.")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ChatledgerAsks",
                "Effect": "Allow",
                "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
                "Resource": list(dict.fromkeys(model_arns)),
            }
        ],
    }


def arns(model_id: str, *, region: str = "*", account: str = "*") -> list[str]:
    """What ``policy`` must name for ``BedrockModel(model_id)``.

    A profile that Bedrock defines, such as ``eu.amazon.nova-lite-v1:0``, is called with the rights
    to its model in every region that it may choose. Of a profile of your own, or a provisioned or
    imported model, which are ARNs, there is that ARN alone: add those of the models behind it.
    """
    if found := _PROFILE_ARN.fullmatch(model_id):
        return [model_id, _model_arn(found["model"])]
    if model_id.startswith("arn:"):
        return [model_id]
    if found := _PROFILE.fullmatch(model_id):
        profile = f"arn:aws:bedrock:{region}:{account}:inference-profile/{model_id}"
        return [profile, _model_arn(found["model"])]
    return [_model_arn(model_id, region)]


def _model_arn(model: str, region: str = "*") -> str:
    return f"arn:aws:bedrock:{region}::foundation-model/{model}"
