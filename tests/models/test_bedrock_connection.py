"""Where Bedrock is called and as whom: as botocore finds both, over either transport."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials

from chatledger.errors import ModelError, ModelRefused, ModelUnavailable
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel
from chatledger.testing.bedrock_server import ACCESS_KEY, API_KEY, SECRET_KEY, BedrockServer
from tests.models.bedrock_client import MODEL, Transport, ask, aws, running, transport, with_tls

__all__ = ["aws", "running", "transport"]


def opened(**options: object) -> BedrockModel:
    return BedrockModel(MODEL, patience=0, **options)  # type: ignore[arg-type]


def test_address_region_and_key_come_from_the_environment(
    aws: BedrockServer, transport: Transport
) -> None:
    assert ask(transport, opened())[0]
    authorization = aws.requests[0].headers["authorization"]
    assert f"Credential={ACCESS_KEY}/" in authorization
    assert "/us-east-1/bedrock/aws4_request" in authorization


def test_the_address_of_all_services_counts_too(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
    assert ask(transport, opened())[0]


def test_what_is_given_counts_before_the_environment(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:1")
    assert ask(transport, opened(endpoint=aws.endpoint, region="eu-west-1"))[0]
    assert "/eu-west-1/bedrock/" in aws.requests[0].headers["authorization"]


def test_a_profile_is_read(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile chat]\nregion = eu-north-1\naws_access_key_id = {ACCESS_KEY}\n"
        f"aws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "chat")
    assert ask(transport, opened())[0]
    assert "/eu-north-1/bedrock/" in aws.requests[0].headers["authorization"]


def test_a_session_token_is_sent_and_signed(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert ask(transport, opened())[0]
    assert aws.requests[0].headers["x-amz-security-token"] == "token"


def test_a_botocore_session_will_do(aws: BedrockServer, transport: Transport) -> None:
    assert ask(transport, opened(session=botocore.session.Session()))[0]


# Bearer tokens -----------------------------------------------------------------------------------


def test_a_bearer_token_goes_before_other_credentials(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with with_tls(aws.endpoint, tmp_path) as (endpoint, certificate):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
        assert ask(transport, opened(endpoint=endpoint))[0]
        assert aws.requests[0].headers["authorization"] == f"Bearer {API_KEY}"
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "wrong")
        with pytest.raises(ModelRefused, match="AWS_BEARER_TOKEN_BEDROCK"):
            ask(transport, opened(endpoint=endpoint))


def test_a_bearer_token_is_enough(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with with_tls(aws.endpoint, tmp_path) as (endpoint, certificate):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
        assert ask(transport, opened(endpoint=endpoint))[0]


def test_a_bearer_token_is_not_sent_where_others_can_read_it(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
    with pytest.raises(ModelRefused, match="over https only") as raised:
        ask(transport, opened())
    assert API_KEY not in str(raised.value)
    assert not aws.requests


def test_a_certificate_that_nobody_trusts_is_not_accepted(
    aws: BedrockServer, transport: Transport, tmp_path: Path
) -> None:
    with with_tls(aws.endpoint, tmp_path) as (endpoint, _), pytest.raises(ModelUnavailable):
        ask(transport, opened(endpoint=endpoint))
    assert not aws.requests


# What is missing ---------------------------------------------------------------------------------


def test_without_credentials_it_says_how_to_give_some(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ModelRefused, match="AWS_PROFILE"):
        ask(transport, opened())


def test_a_wrong_key_is_told_and_not_repeated(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(ModelRefused, match="InvalidSignatureException") as raised:
        ask(transport, opened())
    assert "not-the-secret" not in str(raised.value)


def test_a_profile_that_is_not_there_is_told(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    with pytest.raises(ModelRefused, match="AWS_PROFILE"):
        ask(transport, opened())


def test_without_a_region_it_says_how_to_name_one(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ModelRefused, match="AWS_DEFAULT_REGION"):
        ask(transport, opened())


def test_an_address_that_is_none_is_told(aws: BedrockServer, transport: Transport) -> None:
    with pytest.raises(ModelRefused, match="https://host"):
        ask(transport, opened(endpoint="bedrock"))


def test_where_nobody_listens_bedrock_cannot_be_reached(
    aws: BedrockServer, transport: Transport
) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        ask(transport, opened(endpoint="http://127.0.0.1:1"))


def test_what_was_missing_may_be_there_the_next_time(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = opened()
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ModelRefused, match="region"):
        ask(transport, asked)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(ModelRefused, match="credentials"):
        ask(transport, asked)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    assert ask(transport, asked)[0]


# Renewing ----------------------------------------------------------------------------------------


def test_credentials_are_renewed_once_for_all_who_wait_and_not_in_the_event_loop(
    aws: BedrockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[str] = []

    def renew() -> dict[str, str]:
        renewed.append(threading.current_thread().name)
        lasts = timedelta(hours=1) if len(renewed) > 1 else timedelta(minutes=1)
        return {
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "token": f"token-{len(renewed)}",
            "expiry_time": (datetime.now(UTC) + lasts).isoformat(),
        }

    session = botocore.session.Session()
    credentials = RefreshableCredentials.create_from_metadata(
        renew(), refresh_using=renew, method="test"
    )
    monkeypatch.setattr(session, "_credentials", credentials)
    asked = opened(session=session)

    async def hello() -> None:
        assert [piece async for piece in asked.stream([Message.user("Hello")])]

    async def everyone() -> None:
        await asyncio.gather(*[hello() for _ in range(20)])
        await asked.close()

    asyncio.run(everyone())
    tokens = {request.headers["x-amz-security-token"] for request in aws.requests}
    assert tokens == {"token-2"}
    assert len(renewed) == 2
    assert renewed[1] != threading.current_thread().name


def test_credentials_that_cannot_be_renewed_are_told(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ModelRefused, match="credentials"):
        ask(transport, opened())


# What stands between -----------------------------------------------------------------------------


@contextmanager
def answering(status: int, page: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that answers each request with that page; its address, and what was asked for."""
    asked: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}", asked
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "retryable"), [(200, True), (302, False), (403, False), (502, True), (503, True)]
)
@pytest.mark.parametrize("page", [b"", b"<html><body>Sign in to the network!</body></html>"])
def test_a_page_of_something_between_is_no_reply(
    aws: BedrockServer, transport: Transport, status: int, retryable: bool, page: bytes
) -> None:
    with answering(status, page) as (endpoint, _), pytest.raises(ModelError) as raised:
        ask(transport, opened(endpoint=endpoint))
    assert raised.value.retryable is retryable
    assert "Sign in" not in str(raised.value)


def test_a_proxy_is_used_where_the_environment_names_one(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(503, b"") as (proxy, asked):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(ModelUnavailable):
            ask(transport, opened(endpoint="http://bedrock.example"))
        assert asked == ["http://bedrock.example/model/amazon.nova-lite-v1%3A0/converse-stream"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert ask(transport, opened())[0]


# What an import brings along ---------------------------------------------------------------------


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_importing_it_imports_nothing_of_others(tmp_path: Path) -> None:
    code = "import sys, chatledger.models.bedrock; print(*{'boto3', 'aiohttp'} & {*sys.modules})"
    assert run(code, tmp_path) == "\n"


def test_without_an_event_loop_aiohttp_is_not_imported(aws: BedrockServer, tmp_path: Path) -> None:
    code = """
import sys
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel
print(len(list(BedrockModel("amazon.nova-lite-v1:0").stream_sync([Message.user("Hi")]))) > 1)
print("aiohttp" in sys.modules)
"""
    assert run(code, tmp_path) == "True\nFalse\n"


USE = """
import asyncio, sys
from chatledger.errors import UnknownModel
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel

async def use():
    await anext(BedrockModel("amazon.nova-lite-v1:0").stream([Message.user("Hi")]))

sys.modules["{missing}"] = None
try:
    asyncio.run(use())
except UnknownModel as failed:
    print(failed)
"""


@pytest.mark.parametrize("missing", ["boto3", "botocore", "aiohttp"])
def test_what_is_not_installed_is_named(tmp_path: Path, missing: str) -> None:
    assert run(USE.format(missing=missing), tmp_path) == (
        f"A model of Bedrock's needs {missing}; install it with pip install 'chatledger[bedrock]'.\n"
    )
