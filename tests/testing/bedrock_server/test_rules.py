"""The server is as strict as the service: a violation of each rule is rejected."""

import inspect
import re

import pytest
from botocore.config import Config

from chatledger.testing.bedrock_server import BedrockModel, BedrockServer
from chatledger.testing.bedrock_server.rules import RULES
from tests.testing.bedrock_server.client import HAIKU, HELLO, ONCE, send
from tests.testing.bedrock_server.rule_violations import (
    TEXT,
    TOOLS,
    VIOLATIONS,
    Violation,
    assistant,
    conversation,
    hello_with,
    user,
)

each_violation = pytest.mark.parametrize(
    "violation", VIOLATIONS, ids=lambda violation: violation.description
)


@each_violation
@pytest.mark.parametrize("operation", ["converse", "converse-stream"])
def test_a_request_that_breaks_a_rule_is_rejected(
    shared: BedrockServer, violation: Violation, operation: str
) -> None:
    response = send(shared, violation.invalid_body, model=violation.model, operation=operation)
    assert response.code == violation.code, response.content
    assert response.status == (403 if violation.code == "AccessDeniedException" else 400)
    assert violation.message in response.body["message"]
    assert shared.requests[-1].error == violation.code


@each_violation
def test_a_request_that_keeps_the_rule_is_accepted(
    shared: BedrockServer, violation: Violation
) -> None:
    response = send(shared, violation.valid_body, model=violation.valid_model or violation.model)
    assert response.status == 200, response.content
    assert response.body["output"]["message"]["content"]
    assert shared.requests[-1].error is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_links_to_its_documentation_or_says_that_there_is_none(rule: object) -> None:
    doc = inspect.getdoc(rule) or ""
    assert re.search(r"https://docs\.aws\.amazon\.com/\S+\.html|[Oo]bserved|not documented", doc)


def test_a_custom_model_may_support_no_tools_and_no_system_prompt() -> None:
    plain = BedrockModel(
        "acme.plain-v1:0",
        1_000,
        100,
        on_demand=True,
        supports_tools=False,
        supports_system_prompts=False,
    )
    with BedrockServer(models=[plain]) as server:
        assert send(server, HELLO, model=plain.id).status == 200
        with_tools = send(server, hello_with(toolConfig=TOOLS), model=plain.id)
        assert with_tools.body["message"] == "This model doesn't support tool use."
        with_prompt = send(server, hello_with(system=[TEXT]), model=plain.id)
        assert "This model doesn't support system messages." in with_prompt.body["message"]
        assert "identifier is invalid" in send(server, HELLO, model=HAIKU).body["message"]


def test_an_application_profile_stands_for_the_model_set_for_it() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/mine"
    with BedrockServer(application_profiles={"mine": HAIKU}) as server:
        response = send(server, hello_with(inferenceConfig={"maxTokens": 5000}), model=arn)
        assert "exceeds the model limit of 4096" in response.body["message"]


def test_boto3_raises_the_error_of_a_rejected_request(bedrock_server: BedrockServer) -> None:
    client = bedrock_server.client(ONCE.merge(Config(parameter_validation=False)))
    with pytest.raises(client.exceptions.ValidationException, match="with a user") as caught:
        client.converse(modelId=HAIKU, **conversation(assistant(TEXT)))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert client.converse(modelId=HAIKU, **conversation(user(TEXT)))["stopReason"] == "end_turn"
