"""The second way to AWS Lambda: the FastAPI server behind a function URL, with streams.

All but AWS and its Lambda Web Adapter is run here: what the adapter would start, from the package
alone, asked over HTTP as the adapter would ask it.
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
from tests.http.client import connected, events, refused, streamed, whole
from tests.http.tokens import headers, key_server
from tests.serverless.gateway import SERVERLESS
from tests.serverless.packages import clean, lint, new_project
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
    project = new_project(tmp_path_factory.mktemp("project"), "streaming")
    return project / "streaming" / "package"


# The template -------------------------------------------------------------------------------------


def test_cfn_lint_finds_nothing_in_the_template() -> None:
    lint(TEMPLATE)


def test_replies_are_streamed_from_end_to_end(function: dict[str, Any]) -> None:
    assert function["FunctionUrlConfig"]["InvokeMode"] == "RESPONSE_STREAM"
    variables = function["Environment"]["Variables"]
    assert variables["AWS_LWA_INVOKE_MODE"] == "response_stream"
    assert variables["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"
    assert variables["AWS_LWA_PORT"] == variables["CHATLEDGER_PORT"]
    assert function["Handler"] == "run.sh"


def test_nobody_is_served_who_has_not_signed_in(function: dict[str, Any]) -> None:
    """The URL is open to all the world."""
    assert function["Environment"]["Variables"]["CHATLEDGER_AUTH"] == "jwt"


def test_its_policy_is_what_the_store_and_bedrock_say(function: dict[str, Any]) -> None:
    (policy,) = function["Policies"]
    place = "${AWS::Region}:${AWS::AccountId}"
    table = dynamodb_policy(f"arn:${{AWS::Partition}}:dynamodb:{place}:table/${{Table}}")
    model = "arn:${AWS::Partition}:bedrock:${AWS::Region}::foundation-model/${Model}"
    wanted = table["Statement"] + bedrock_policy([model])["Statement"]
    wanted = [each for each in wanted if each["Sid"] != "ChatledgerCreates"]
    assert substituted(policy["Statement"]) == wanted


def substituted(value: Any) -> Any:
    """Without CloudFormation's word for it."""
    if isinstance(value, list):
        return [substituted(each) for each in value]
    if isinstance(value, dict):
        if value.keys() == {"Fn::Sub"}:
            return value["Fn::Sub"]
        return {name: substituted(each) for name, each in value.items()}
    return value


# The package --------------------------------------------------------------------------------------


def test_the_package_is_small(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [file for file in package.rglob("*") if file.is_file()]
    with ZipFile(tmp_path / "package.zip", "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            archive.write(file)
    zipped = (tmp_path / "package.zip").stat().st_size
    whole = sum(file.stat().st_size for file in files)
    with capsys.disabled():
        megabytes = f"{zipped / MEGABYTE:.1f} MB, {whole / MEGABYTE:.1f} MB unpacked"
        print(f"\nThe package for streams: {megabytes}.")
    assert zipped < 50 * MEGABYTE
    assert whole < 250 * MEGABYTE
    assert os.access(package / "run.sh", os.X_OK)


class Streaming(Server):
    """What the adapter starts, on a Python that has nothing but its standard library."""

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
                env=clean() | self._given | port | {"PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@pytest.fixture(scope="module")
def client(
    package: Path, function: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("streaming")
    given = {
        name: value
        for name, value in function["Environment"]["Variables"].items()
        if isinstance(value, str)
    }
    given |= {
        "CHATLEDGER_HOST": "127.0.0.1",
        "CHATLEDGER_STORE": f"sqlite:///{folder / 'chatledger.db'}",
        "CHATLEDGER_MODEL": "offline",
        "CHATLEDGER_OFFLINE_PACE": "0",
    }
    with key_server() as keys:
        server = Streaming(package, folder, **given | keys.settings)
        server.start()
        with connected(server.url) as client:
            yield client
        server.kill()


def test_the_package_streams_replies_to_who_signed_in(client: httpx.Client) -> None:
    client.headers = headers("bob")
    with streamed(client, message="Hi, I am Bob") as response:
        place, _ = whole(events(response))
    with streamed(client, message="What is my name?", conversation_id=place) as response:
        assert "Bob" in whole(events(response))[1]


def test_the_package_serves_nobody_else(client: httpx.Client) -> None:
    client.headers = {}
    refused(client.post("/chat/stream", json={"message": "Hi"}), 401)
    assert client.get("/").status_code == 200  # by which the adapter sees that it is ready
