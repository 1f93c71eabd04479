"""The server is as strict as the service: each rule is broken on purpose, and kept."""

import inspect
import re

import pytest
from botocore.config import Config

from chatledger.testing.bedrock_server import BedrockModel, BedrockServer
from chatledger.testing.bedrock_server.rules import RULES
from tests.testing.bedrock_server.broken_rules import (
    EVERY,
    TEXT,
    TOOLS,
    Broken,
    assistant,
    hello,
    said,
    user,
)
from tests.testing.bedrock_server.requests_for_tests import HAIKU, HELLO, ONCE, asks

each = pytest.mark.parametrize("broken", EVERY, ids=lambda broken: broken.sentence)


@each
@pytest.mark.parametrize("operation", ["converse", "converse-stream"])
def test_what_breaks_a_rule_is_refused(
    shared: BedrockServer, broken: Broken, operation: str
) -> None:
    answer = asks(shared, broken.body, model=broken.model, operation=operation)
    assert answer.code == broken.code, answer.content
    assert answer.status == (403 if broken.code == "AccessDeniedException" else 400)
    assert broken.says in answer.body["message"]
    assert shared.requests[-1].error == broken.code


@each
def test_what_keeps_it_is_answered(shared: BedrockServer, broken: Broken) -> None:
    answer = asks(shared, broken.kept, model=broken.kept_by or broken.model)
    assert answer.status == 200, answer.content
    assert answer.body["output"]["message"]["content"]
    assert shared.requests[-1].error is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_says_where_it_is_documented_or_that_it_is_not(rule: object) -> None:
    doc = inspect.getdoc(rule) or ""
    assert re.search(r"https://docs\.aws\.amazon\.com/\S+\.html|[Oo]bserved|not documented", doc)


def test_a_model_of_ones_own_may_take_no_tools_and_no_system_prompt() -> None:
    plain = BedrockModel(
        "acme.plain-v1:0", 1_000, 100, on_demand=True, tools=False, system_prompts=False
    )
    with BedrockServer(models=[plain]) as server:
        assert asks(server, HELLO, model=plain.id).status == 200
        with_tools = asks(server, hello(toolConfig=TOOLS), model=plain.id)
        assert with_tools.body["message"] == "This model doesn't support tool use."
        with_prompt = asks(server, hello(system=[TEXT]), model=plain.id)
        assert "This model doesn't support system messages." in with_prompt.body["message"]
        assert "identifier is invalid" in asks(server, HELLO, model=HAIKU).body["message"]


def test_an_application_profile_stands_for_the_model_that_the_test_names() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/mine"
    with BedrockServer(applications={"mine": HAIKU}) as server:
        answer = asks(server, hello(inferenceConfig={"maxTokens": 5000}), model=arn)
        assert "exceeds the model limit of 4096" in answer.body["message"]


def test_boto3_tells_what_is_refused(bedrock_server: BedrockServer) -> None:
    client = bedrock_server.client(ONCE.merge(Config(parameter_validation=False)))
    with pytest.raises(client.exceptions.ValidationException, match="with a user") as caught:
        client.converse(modelId=HAIKU, **said(assistant(TEXT)))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert client.converse(modelId=HAIKU, **said(user(TEXT)))["stopReason"] == "end_turn"
