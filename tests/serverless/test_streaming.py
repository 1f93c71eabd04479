"""The FastAPI server on AWS Lambda, behind a function URL with streaming.

Everything but AWS and its Lambda Web Adapter runs here: the server that the adapter would start,
from the package alone, called over HTTP as the adapter would call it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from chatledger.models.bedrock import policy as bedrock_policy
from chatledger.stores.dynamodb import policy as dynamodb_policy
from tests.http.client import expect_error, open_client, open_stream, read_events, read_reply
from tests.http.tokens import auth_headers, key_server
from tests.serverless.gateway import SERVERLESS
from tests.serverless.packages import build_project, clean_environment, lint_templates
from tests.serving import Server

TEMPLATE = SERVERLESS / "streaming" / "template.yaml"
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text())
    return found


@pytest.fixture(scope="module")
def function(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template["Resources"]["Chatbot"]["Properties"]
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = build_project(tmp_path_factory.mktemp("project"), "streaming")
    return project / "streaming" / "package"


# The template -------------------------------------------------------------------------------------


def test_cfn_lint_finds_nothing_in_the_template() -> None:
    lint_templates(TEMPLATE)


def test_replies_are_streamed_from_end_to_end(function: dict[str, Any]) -> None:
    assert function["FunctionUrlConfig"]["InvokeMode"] == "RESPONSE_STREAM"
    variables = function["Environment"]["Variables"]
    assert variables["AWS_LWA_INVOKE_MODE"] == "response_stream"
    assert variables["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"
    assert variables["AWS_LWA_PORT"] == variables["CHATLEDGER_PORT"]
    assert function["Handler"] == "run.sh"


def test_users_must_sign_in(function: dict[str, Any]) -> None:
    """The function URL is public."""
    assert function["Environment"]["Variables"]["CHATLEDGER_AUTH"] == "jwt"


def test_its_policy_is_that_of_the_store_and_bedrock(function: dict[str, Any]) -> None:
    (policy,) = function["Policies"]
    conversation_id = "${AWS::Region}:${AWS::AccountId}"
    table = dynamodb_policy(f"arn:${{AWS::Partition}}:dynamodb:{conversation_id}:table/${{Table}}")
    *on_the_table, invokes = without_sub(policy["Statement"])
    assert on_the_table == [
        statement
        for statement in table["Statement"]
        if statement["Sid"] in ("ChatledgerRuns", "ChatledgerLists")
    ]
    model = "arn:${AWS::Partition}:bedrock:${AWS::Region}::foundation-model/${Model}"
    (streamed_or_not,) = bedrock_policy([model])["Statement"]
    # Models are streamed, even if the response is not.
    assert invokes == streamed_or_not | {"Action": ["bedrock:InvokeModelWithResponseStream"]}


def without_sub(value: Any) -> Any:
    """Return the value with each ``Fn::Sub`` replaced by its string."""
    if isinstance(value, list):
        return [without_sub(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"Fn::Sub"}:
            return value["Fn::Sub"]
        return {name: without_sub(item) for name, item in value.items()}
    return value


# The package --------------------------------------------------------------------------------------


def test_the_package_is_within_lambdas_size_limits(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [file for file in package.rglob("*") if file.is_file()]
    with ZipFile(tmp_path / "package.zip", "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            archive.write(file)
    zipped = (tmp_path / "package.zip").stat().st_size
    unpacked = sum(file.stat().st_size for file in files)
    with capsys.disabled():
        megabytes = f"{zipped / MEGABYTE:.1f} MB, {unpacked / MEGABYTE:.1f} MB unpacked"
        print(f"\nThe package for streams: {megabytes}.")
    assert zipped < 50 * MEGABYTE
    assert unpacked < 250 * MEGABYTE
    assert os.access(package / "run.sh", os.X_OK)


class PackagedServer(Server):
    """The server that the adapter starts, on a Python with only its standard library."""

    def __init__(self, package: Path, folder: Path, **environment: str) -> None:
        super().__init__(folder, **environment)
        self._package = package
        python = folder / "python3"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        python.chmod(0o755)

    def _launch(self) -> None:
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        port = {"CHATLEDGER_PORT": str(self.port)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._package / "run.sh")],
                cwd=self.folder,
                env=clean_environment() | self._variables | port | {"PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@pytest.fixture(scope="module")
def client(
    package: Path, function: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("streaming")
    variables = {
        name: value
        for name, value in function["Environment"]["Variables"].items()
        if isinstance(value, str)
    }
    variables |= {
        "CHATLEDGER_HOST": "127.0.0.1",
        "CHATLEDGER_STORE": f"sqlite:///{folder / 'chatledger.db'}",
        "CHATLEDGER_MODEL": "offline",
        "CHATLEDGER_OFFLINE_PACE": "0",
    }
    with key_server() as keys:
        server = PackagedServer(package, folder, **variables | keys.settings)
        server.start()
        with open_client(server.url) as client:
            yield client
        server.kill()


def test_the_package_streams_replies_to_signed_in_users(client: httpx.Client) -> None:
    client.headers = auth_headers("bob")
    with open_stream(client, message="Hi, I am Bob") as response:
        conversation_id, _ = read_reply(read_events(response))
    with open_stream(
        client, message="What is my name?", conversation_id=conversation_id
    ) as response:
        assert "Bob" in read_reply(read_events(response))[1]


def test_the_package_rejects_other_requests(client: httpx.Client) -> None:
    client.headers = {}
    expect_error(client.post("/chat/stream", json={"message": "Hi"}), 401)
    assert client.get("/").status_code == 200  # the adapter's readiness check
