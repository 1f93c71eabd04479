"""Both transports find endpoint, credentials, proxy and CA bundle where botocore finds them."""

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
from tests.models.bedrock_client import MODEL, Transport, ask, aws, running, transport
from tests.tls_proxy import tls_proxy

__all__ = ["aws", "running", "transport"]


def model_with(**options: object) -> BedrockModel:
    return BedrockModel(MODEL, patience=0, **options)  # type: ignore[arg-type]


def test_endpoint_region_and_key_come_from_the_environment(
    aws: BedrockServer, transport: Transport
) -> None:
    assert ask(transport, model_with())[0]
    authorization = aws.requests[0].headers["authorization"]
    assert f"Credential={ACCESS_KEY}/" in authorization
    assert "/us-east-1/bedrock/aws4_request" in authorization


def test_the_endpoint_of_all_services_is_used(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
    assert ask(transport, model_with())[0]


def test_arguments_count_before_the_environment(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:1")
    assert ask(transport, model_with(endpoint=aws.endpoint, region="eu-west-1"))[0]
    assert "/eu-west-1/bedrock/" in aws.requests[0].headers["authorization"]


def test_a_profile_is_used(
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
    assert ask(transport, model_with())[0]
    assert "/eu-north-1/bedrock/" in aws.requests[0].headers["authorization"]


def test_a_session_token_is_sent_and_signed(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert ask(transport, model_with())[0]
    assert aws.requests[0].headers["x-amz-security-token"] == "token"


def test_a_botocore_session_can_be_passed(aws: BedrockServer, transport: Transport) -> None:
    assert ask(transport, model_with(session=botocore.session.Session()))[0]


# Bearer tokens and TLS ---------------------------------------------------------------------------


def test_a_bearer_token_counts_before_other_credentials(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tls_proxy(aws.endpoint, tmp_path) as (endpoint, certificate):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
        assert ask(transport, model_with(endpoint=endpoint))[0]
        assert aws.requests[0].headers["authorization"] == f"Bearer {API_KEY}"
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "wrong")
        with pytest.raises(ModelRefused, match="AWS_BEARER_TOKEN_BEDROCK"):
            ask(transport, model_with(endpoint=endpoint))


def test_a_bearer_token_is_sufficient(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with tls_proxy(aws.endpoint, tmp_path) as (endpoint, certificate):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
        assert ask(transport, model_with(endpoint=endpoint))[0]


def test_a_bearer_token_is_not_sent_without_tls(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
    with pytest.raises(ModelRefused, match="over https only") as raised:
        ask(transport, model_with())
    assert API_KEY not in str(raised.value)
    assert not aws.requests


@pytest.mark.parametrize("setting", ["AWS_CA_BUNDLE", "ca_bundle", "REQUESTS_CA_BUNDLE"])
def test_a_configured_ca_bundle_is_trusted(
    aws: BedrockServer,
    transport: Transport,
    setting: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with tls_proxy(aws.endpoint, tmp_path) as (endpoint, certificate):
        if setting == "ca_bundle":
            (tmp_path / "config").write_text(f"[default]\nca_bundle = {certificate}\n")
            monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        else:
            monkeypatch.setenv(setting, str(certificate))
        assert ask(transport, model_with(endpoint=endpoint))[0]


def test_a_certificate_that_no_bundle_vouches_for_is_not_trusted(
    aws: BedrockServer, transport: Transport, tmp_path: Path
) -> None:
    with tls_proxy(aws.endpoint, tmp_path) as (endpoint, _), pytest.raises(ModelUnavailable):
        ask(transport, model_with(endpoint=endpoint))
    assert not aws.requests


# Missing or wrong configuration ------------------------------------------------------------------


def test_the_async_transport_reports_a_missing_ca_bundle_with_its_path(
    aws: BedrockServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(missing))

    async def ask_model() -> None:
        model = model_with()
        try:
            async for _ in model.stream([Message.user("Hello")]):
                pass
        finally:
            await model.close()

    with pytest.raises(ModelRefused) as raised:
        asyncio.run(ask_model())
    assert f"The CA bundle '{missing}' cannot be used" in str(raised.value)


def test_the_error_without_credentials_says_how_to_configure_them(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ModelRefused, match="AWS_PROFILE"):
        ask(transport, model_with())


def test_the_error_for_a_wrong_key_does_not_repeat_it(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(ModelRefused, match="InvalidSignatureException") as raised:
        ask(transport, model_with())
    assert "not-the-secret" not in str(raised.value)


def test_a_missing_profile_is_an_error(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    with pytest.raises(ModelRefused, match="AWS_PROFILE"):
        ask(transport, model_with())


def test_the_error_without_a_region_says_how_to_configure_one(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ModelRefused, match="AWS_DEFAULT_REGION"):
        ask(transport, model_with())


@pytest.mark.parametrize("options", [{"endpoint": "bedrock"}, {"region": "not a region"}])
def test_an_invalid_endpoint_or_region_is_an_error(
    aws: BedrockServer, transport: Transport, options: dict[str, str]
) -> None:
    with pytest.raises(ModelRefused, match=r"region or the endpoint .* such as https://host"):
        ask(transport, model_with(**options))


def test_an_endpoint_where_no_server_listens_cannot_be_reached(
    aws: BedrockServer, transport: Transport
) -> None:
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        ask(transport, model_with(endpoint="http://127.0.0.1:1"))


def test_configuration_that_was_missing_is_looked_for_again(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with()
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ModelRefused, match="region"):
        ask(transport, model)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(ModelRefused, match="credentials"):
        ask(transport, model)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    assert ask(transport, model)[0]


# Renewing credentials ----------------------------------------------------------------------------


def test_credentials_are_renewed_once_for_all_waiting_requests_in_a_thread(
    aws: BedrockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewing_threads: list[str] = []

    def renew() -> dict[str, str]:
        renewing_threads.append(threading.current_thread().name)
        lifetime = timedelta(hours=1) if len(renewing_threads) > 1 else timedelta(minutes=1)
        return {
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "token": f"token-{len(renewing_threads)}",
            "expiry_time": (datetime.now(UTC) + lifetime).isoformat(),
        }

    session = botocore.session.Session()
    credentials = RefreshableCredentials.create_from_metadata(
        renew(), refresh_using=renew, method="test"
    )
    monkeypatch.setattr(session, "_credentials", credentials)
    model = model_with(session=session)

    async def hello() -> None:
        assert [piece async for piece in model.stream([Message.user("Hello")])]

    async def ask_at_once() -> None:
        await asyncio.gather(*[hello() for _ in range(20)])
        await model.close()

    asyncio.run(ask_at_once())
    tokens = {request.headers["x-amz-security-token"] for request in aws.requests}
    assert tokens == {"token-2"}
    assert len(renewing_threads) == 2
    assert renewing_threads[1] != threading.current_thread().name


def test_credentials_that_cannot_be_obtained_are_an_error(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ModelRefused, match="credentials"):
        ask(transport, model_with())


# Proxies -----------------------------------------------------------------------------------------


@contextmanager
def page_server(status: int, page: bytes) -> Iterator[tuple[str, list[str]]]:
    """Answer each request with ``page``; yield the server's address and the paths requested."""
    paths: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}", paths
        finally:
            listener.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "retryable"), [(200, True), (302, False), (403, False), (502, True), (503, True)]
)
@pytest.mark.parametrize("page", [b"", b"<html><body>Sign in to the network!</body></html>"])
def test_the_page_of_a_proxy_is_not_a_reply(
    aws: BedrockServer, transport: Transport, status: int, retryable: bool, page: bytes
) -> None:
    with page_server(status, page) as (endpoint, _), pytest.raises(ModelError) as raised:
        ask(transport, model_with(endpoint=endpoint))
    assert raised.value.retryable is retryable
    assert "Sign in" not in str(raised.value)


def test_the_proxy_of_the_environment_is_used(
    aws: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with page_server(503, b"") as (proxy, paths):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(ModelUnavailable):
            ask(transport, model_with(endpoint="http://bedrock.example"))
        assert paths == ["http://bedrock.example/model/amazon.nova-lite-v1%3A0/converse-stream"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert ask(transport, model_with())[0]


# Imports -----------------------------------------------------------------------------------------


def run(code: str, folder: Path) -> str:
    completed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.stderr == ""
    return completed.stdout


def test_importing_the_package_imports_neither_boto3_nor_aiohttp(tmp_path: Path) -> None:
    code = "import sys, chatledger.models.bedrock; print(*{'boto3', 'aiohttp'} & {*sys.modules})"
    assert run(code, tmp_path) == "\n"


def test_a_sync_call_does_not_import_aiohttp(aws: BedrockServer, tmp_path: Path) -> None:
    code = """
import sys
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel
print(len(list(BedrockModel("amazon.nova-lite-v1:0").stream_sync([Message.user("Hi")]))) > 1)
print("aiohttp" in sys.modules)
"""
    assert run(code, tmp_path) == "True\nFalse\n"


USE_MODEL = """
import asyncio, sys
from chatledger.errors import UnknownModel
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel

async def use():
    await anext(BedrockModel("amazon.nova-lite-v1:0").stream([Message.user("Hi")]))

sys.modules["{missing}"] = None
try:
    asyncio.run(use())
except UnknownModel as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["boto3", "botocore", "aiohttp"])
def test_a_package_that_is_not_installed_is_named(tmp_path: Path, missing: str) -> None:
    assert run(USE_MODEL.format(missing=missing), tmp_path) == (
        f"A Bedrock model needs {missing}; "
        f"install it with {sys.executable} -m pip install 'boto3>=1.40' 'aiohttp>=3.11'.\n"
    )
