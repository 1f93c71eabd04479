"""Who may ask: whoever signs with a known key, or has a known API key."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from botocore.config import Config

from chatledger.testing.bedrock_server import ACCESS_KEY, API_KEY, BedrockServer
from tests.testing.bedrock_server.requests_for_tests import HAIKU, HELLO, ONCE, asks, sends, signed

JSON = {"Content-Type": "application/json"}


def url(server: BedrockServer) -> str:
    return f"{server.endpoint}/model/{quote(HAIKU, safe='')}/converse"


@pytest.mark.parametrize(
    ("headers", "status", "code", "says"),
    [
        ({}, 403, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ({"Authorization": "Bearer"}, 403, "AccessDeniedException", "make sure your API Key is va"),
        ({"Authorization": "Bearer no"}, 403, "AccessDeniedException", "make sure your API Key is"),
        ({"Authorization": "Basic YTpi"}, 400, "IncompleteSignatureException", "AWS4-HMAC-SHA256"),
        (
            {"Authorization": "AWS4-HMAC-SHA256 a"},
            400,
            "IncompleteSignatureException",
            "Credential",
        ),
        (
            {"Authorization": "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0"},
            400,
            "IncompleteSignatureException",
            "5 slash-delimited elements",
        ),
    ],
    ids=["nothing", "no key", "another key", "a password", "a stub", "no scope"],
)
def test_who_does_not_authorize_properly_is_not_served(
    shared: BedrockServer, headers: Mapping[str, str], status: int, code: str, says: str
) -> None:
    answer = asks(shared, headers={**JSON, **headers})
    assert (answer.status, answer.code) == (status, code)
    assert says in answer.body["message"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"key": "AKIASOMEBODYELSE"}, "UnrecognizedClientException"),
        ({"secret": "another"}, "InvalidSignatureException"),
        ({"service": "bedrock-runtime"}, "InvalidSignatureException"),
    ],
    ids=["an unknown key", "a wrong secret", "another service"],
)
def test_a_signature_counts_only_with_the_right_key(
    shared: BedrockServer, changed: dict[str, str], code: str
) -> None:
    headers = signed(url(shared), b"{}", **changed)
    answer = sends(url(shared), b"{}", headers)
    assert (answer.status, answer.code) == (403, code)


def test_a_signature_holds_for_what_was_signed_alone(shared: BedrockServer) -> None:
    answer = sends(url(shared), b'{"messages": []}', signed(url(shared), b"{}"))
    assert answer.code == "InvalidSignatureException"


def test_a_signature_lasts_five_minutes(
    shared: BedrockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = datetime.now(UTC) - timedelta(minutes=6)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: earlier.replace(tzinfo=None))
    answer = asks(shared)
    assert answer.code == "InvalidSignatureException"
    assert "Signature expired" in answer.body["message"]


def test_an_api_key_will_do(shared: BedrockServer) -> None:
    answer = asks(shared, headers={**JSON, "Authorization": f"Bearer {API_KEY}"})
    assert answer.status == 200


def test_boto3_finds_the_server_and_its_keys_in_the_environment(
    bedrock_server: BedrockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    for name, value in bedrock_server.environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("bedrock-runtime", config=Config(proxies={}).merge(ONCE))
    try:
        assert client.converse(modelId=HAIKU, **HELLO)["stopReason"] == "end_turn"
    finally:
        client.close()
    signed_by = bedrock_server.requests[0].headers["authorization"].split(" ")[1]
    assert signed_by.startswith(f"Credential={ACCESS_KEY}/")


def test_keys_may_be_ones_own() -> None:
    with BedrockServer(secrets={"me": "mine"}, api_keys=["k1"]) as server:
        assert server.client(ONCE).converse(modelId=HAIKU, **HELLO)["stopReason"] == "end_turn"
        assert asks(server).code == "UnrecognizedClientException"
        assert asks(server, headers={**JSON, "Authorization": "Bearer k1"}).status == 200


def test_what_is_no_operation_is_not_found(shared: BedrockServer) -> None:
    for method, path in [
        ("POST", "/model/a/invoke"),
        ("GET", "/model/a/converse"),
        ("POST", "/model/arn:aws:bedrock:us-east-1::foundation-model/a/converse"),
        ("POST", "/"),
    ]:
        answer = sends(shared.endpoint + path, b"{}", {}, method)
        assert (answer.status, answer.code) == (404, "UnknownOperationException")


def test_the_body_is_json_and_says_so(shared: BedrockServer) -> None:
    answer = asks(shared, headers={"Authorization": f"Bearer {API_KEY}"})
    assert (answer.status, answer.code) == (415, "UnsupportedMediaTypeException")


def test_the_code_has_an_address_behind_it_as_the_service_sends_it(shared: BedrockServer) -> None:
    header = asks(shared, {}).headers["x-amzn-errortype"]
    assert header == "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/"
