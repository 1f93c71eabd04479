"""Authentication: only a request signed with a known key, or with a known API key, is accepted."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from botocore.config import Config

from chatledger.testing.bedrock_server import ACCESS_KEY, API_KEY, BedrockServer
from tests.testing.bedrock_server.client import HAIKU, HELLO, ONCE, http_post, send, signed_headers

JSON = {"Content-Type": "application/json"}


def url(server: BedrockServer) -> str:
    return f"{server.endpoint}/model/{quote(HAIKU, safe='')}/converse"


@pytest.mark.parametrize(
    ("headers", "status", "code", "message"),
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
    ids=[
        "no header",
        "an empty API key",
        "an unknown API key",
        "a password",
        "no parameters",
        "no scope",
    ],
)
def test_a_request_without_valid_credentials_is_rejected(
    shared: BedrockServer, headers: Mapping[str, str], status: int, code: str, message: str
) -> None:
    response = send(shared, headers={**JSON, **headers})
    assert (response.status, response.code) == (status, code)
    assert message in response.body["message"]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"key": "AKIASOMEBODYELSE"}, "UnrecognizedClientException"),
        ({"secret": "another"}, "InvalidSignatureException"),
        ({"service": "bedrock-runtime"}, "InvalidSignatureException"),
    ],
    ids=["an unknown key", "a wrong secret", "another service"],
)
def test_a_signature_with_the_wrong_key_or_service_is_rejected(
    shared: BedrockServer, wrong: dict[str, str], code: str
) -> None:
    headers = signed_headers(url(shared), b"{}", **wrong)
    response = http_post(url(shared), b"{}", headers)
    assert (response.status, response.code) == (403, code)


def test_a_signature_is_valid_only_for_the_signed_body(shared: BedrockServer) -> None:
    response = http_post(url(shared), b'{"messages": []}', signed_headers(url(shared), b"{}"))
    assert response.code == "InvalidSignatureException"


def test_a_signature_expires_after_five_minutes(
    shared: BedrockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = datetime.now(UTC) - timedelta(minutes=6)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: earlier.replace(tzinfo=None))
    response = send(shared)
    assert response.code == "InvalidSignatureException"
    assert "Signature expired" in response.body["message"]


def test_an_api_key_is_accepted(shared: BedrockServer) -> None:
    response = send(shared, headers={**JSON, "Authorization": f"Bearer {API_KEY}"})
    assert response.status == 200


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


def test_a_test_may_set_its_own_keys() -> None:
    with BedrockServer(secret_keys={"me": "mine"}, api_keys=["k1"]) as server:
        assert server.client(ONCE).converse(modelId=HAIKU, **HELLO)["stopReason"] == "end_turn"
        assert send(server).code == "UnrecognizedClientException"
        assert send(server, headers={**JSON, "Authorization": "Bearer k1"}).status == 200


def test_an_unknown_operation_is_not_found(shared: BedrockServer) -> None:
    for method, path in [
        ("POST", "/model/a/invoke"),
        ("GET", "/model/a/converse"),
        ("POST", "/model/arn:aws:bedrock:us-east-1::foundation-model/a/converse"),
        ("POST", "/"),
    ]:
        response = http_post(shared.endpoint + path, b"{}", {}, method)
        assert (response.status, response.code) == (404, "UnknownOperationException")


def test_the_content_type_must_be_json(shared: BedrockServer) -> None:
    response = send(shared, headers={"Authorization": f"Bearer {API_KEY}"})
    assert (response.status, response.code) == (415, "UnsupportedMediaTypeException")


def test_the_error_code_is_followed_by_a_uri_as_the_service_sends_it(shared: BedrockServer) -> None:
    header = send(shared, {}).headers["x-amzn-errortype"]
    assert header == "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/"
