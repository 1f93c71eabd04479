"""The least that an IAM policy must allow for calling Bedrock models."""

import pytest

from chatledger.errors import InvalidArgument
from chatledger.models.bedrock import arns, policy

NOVA = "arn:aws:bedrock:*::foundation-model/amazon.nova-lite-v1:0"
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0"
OWN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3"


def test_a_policy_allows_only_these_models_with_and_without_streaming() -> None:
    (statement,) = policy([NOVA, OWN, NOVA])["Statement"]
    assert statement["Effect"] == "Allow"
    assert set(statement["Action"]) == {
        "bedrock:InvokeModel",
        "bedrock:InvokeModelWithResponseStream",
    }
    assert statement["Resource"] == [NOVA, OWN]


@pytest.mark.parametrize("nothing", [[], NOVA], ids=["empty", "a string"])
def test_a_policy_needs_a_list_of_at_least_one_model(nothing: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        policy(nothing)


def test_the_arn_of_a_model_contains_the_region() -> None:
    assert arns("amazon.nova-lite-v1:0") == [NOVA]
    assert arns("amazon.nova-lite-v1:0", region="eu-west-1") == [NOVA.replace("*", "eu-west-1")]
    # A dot in its name does not make a model an inference profile.
    assert arns("deepseek.v3.2") == ["arn:aws:bedrock:*::foundation-model/deepseek.v3.2"]


@pytest.mark.parametrize("geography", ["us", "eu", "apac", "global", "us-gov"])
def test_a_profile_that_bedrock_defines_needs_its_model_in_every_region(geography: str) -> None:
    found = arns(f"{geography}.amazon.nova-lite-v1:0", region="eu-west-1", account="123456789012")
    assert found == [PROFILE.replace("/eu.", f"/{geography}."), NOVA]


def test_an_arn_is_returned_unchanged() -> None:
    assert arns(OWN) == [OWN]
    assert arns(PROFILE) == [PROFILE, NOVA]
