"""Who may call Bedrock's models: the least that IAM must allow."""

import pytest

from chatledger.errors import InvalidArgument
from chatledger.models.bedrock import arns, policy

NOVA = "arn:aws:bedrock:*::foundation-model/amazon.nova-lite-v1:0"
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0"
OWN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3"


def test_a_policy_allows_calls_streamed_or_not_of_these_models_only() -> None:
    (statement,) = policy([NOVA, OWN, NOVA])["Statement"]
    assert statement["Effect"] == "Allow"
    assert set(statement["Action"]) == {
        "bedrock:InvokeModel",
        "bedrock:InvokeModelWithResponseStream",
    }
    assert statement["Resource"] == [NOVA, OWN]


@pytest.mark.parametrize("nothing", [[], NOVA], ids=["none", "a text"])
def test_a_policy_is_for_a_list_of_one_model_or_more(nothing: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        policy(nothing)


def test_a_model_is_named_in_the_region_that_is_asked() -> None:
    assert arns("amazon.nova-lite-v1:0") == [NOVA]
    assert arns("amazon.nova-lite-v1:0", region="eu-west-1") == [NOVA.replace("*", "eu-west-1")]
    # A dot in the name of a model makes no profile of it.
    assert arns("deepseek.v3.2") == ["arn:aws:bedrock:*::foundation-model/deepseek.v3.2"]


@pytest.mark.parametrize("where", ["us", "eu", "apac", "global", "us-gov"])
def test_a_profile_of_bedrocks_needs_its_model_wherever_it_sends_requests(where: str) -> None:
    named = arns(f"{where}.amazon.nova-lite-v1:0", region="eu-west-1", account="123456789012")
    assert named == [PROFILE.replace("/eu.", f"/{where}."), NOVA]


def test_an_arn_is_named_as_it_is() -> None:
    assert arns(OWN) == [OWN]
    assert arns(PROFILE) == [PROFILE, NOVA]
