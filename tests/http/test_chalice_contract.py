"""The Chalice server fulfils the HTTP contract: ``chalice local`` and API Gateway's events."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from chalice.app import Chalice

from chatledger.testing.bedrock_server import BedrockServer
from tests.http.change_contract import ChangeContract
from tests.http.client import (
    check_responses,
    conversation_path,
    expect_error,
    new_user,
    open_client,
    read_description,
)
from tests.http.contract import AddressContract, CommonContract
from tests.http.cors_contract import SITE, CORSContract, NoCORSContract
from tests.http.description import Description
from tests.http.export_contract import FILE, HI, ExportContract, import_file, with_messages
from tests.http.failure_contract import MODEL, FailureContract
from tests.http.invalid_input_contract import BytesContract
from tests.http.key_contract import TwoKeysContract
from tests.serverless.chalice_local import ChaliceLocal
from tests.serverless.gateway import Gateway, app_factory


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaliceLocal]:
    server = ChaliceLocal(tmp_path_factory.mktemp("chalice"), CHATLEDGER_OFFLINE_PACE="0")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def of_a_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaliceLocal]:
    variables = {"CHATLEDGER_OFFLINE_PACE": "0", "CHATLEDGER_ALLOW_ORIGIN": SITE}
    server = ChaliceLocal(tmp_path_factory.mktemp("cors"), **variables)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Chalice]]:
    store = f"sqlite:///{tmp_path_factory.mktemp('events') / 'chatledger.db'}"
    with app_factory(CHATLEDGER_STORE=store, CHATLEDGER_OFFLINE_PACE="0") as make:
        yield make


@pytest.fixture(scope="module")
def plain(make: Callable[[], Chalice]) -> Gateway:
    return Gateway(make)


@pytest.fixture(scope="module")
def plain_description(plain: Gateway) -> Description:
    with plain.client() as client:
        return read_description(client)


@pytest.fixture(scope="module")
def in_base64(make: Callable[[], Chalice]) -> Gateway:
    return Gateway(make, in_base64=True)


@pytest.fixture(scope="module")
def of_a_stage(make: Callable[[], Chalice]) -> Gateway:
    return Gateway(make, stage="prod")


class TestChaliceLocal(CommonContract, BytesContract, ChangeContract):
    """``chalice local`` rejects paths below a route and passes on one header of each name."""

    @pytest.fixture
    def client(
        self, local: ChaliceLocal, description_of: Callable[[str], Description]
    ) -> Iterator[httpx.Client]:
        with open_client(local.url) as client:
            check_responses(client, description_of(local.url))
            yield client


class TestPlainEvents(CommonContract, AddressContract, TwoKeysContract, ChangeContract):
    """API Gateway replaces invalid UTF-8 in bodies that it passes on as text."""

    @pytest.fixture
    def client(self, plain: Gateway, plain_description: Description) -> Iterator[httpx.Client]:
        with plain.client() as client:
            check_responses(client, plain_description)
            yield client


class TestEventsInBase64(CommonContract, AddressContract, TwoKeysContract, BytesContract):
    @pytest.fixture
    def client(self, in_base64: Gateway) -> Iterator[httpx.Client]:
        with in_base64.client() as client:
            yield client


class TestEventsOfAStage(CommonContract, AddressContract, TwoKeysContract):
    @pytest.fixture
    def client(self, of_a_stage: Gateway) -> Iterator[httpx.Client]:
        with of_a_stage.client() as client:
            yield client


class TestExportContract(ExportContract):
    @pytest.fixture
    def client(self, plain: Gateway) -> Iterator[httpx.Client]:
        with plain.client() as client:
            yield client

    def test_an_export_that_lambda_would_not_return_is_refused(self, client: httpx.Client) -> None:
        text = '"' * 12_000  # each is four characters in JSON in a string of JSON
        file = FILE | with_messages(*[HI | {"content": text}] * 120)
        path = f"{conversation_path(import_file(client, file, new_user()))}/export"
        assert expect_error(client.get(path), 413)["code"] == "too_large"
        markdown = client.get(path, params={"format": "markdown"})
        assert markdown.text.count(text) == 120


class TestNoCORS(NoCORSContract):
    @pytest.fixture
    def url(self, local: ChaliceLocal) -> str:
        return local.url


class TestCORS(CORSContract):
    @pytest.fixture
    def url(self, of_a_site: ChaliceLocal) -> str:
        return of_a_site.url


@pytest.fixture(scope="module")
def failing_server(
    tmp_path_factory: pytest.TempPathFactory, bedrock: BedrockServer
) -> Iterator[ChaliceLocal]:
    variables = {"CHATLEDGER_MODEL": MODEL, **bedrock.environment}
    server = ChaliceLocal(tmp_path_factory.mktemp("failing"), **variables)
    server.start()
    yield server
    server.kill()


class TestFailureContract(FailureContract):
    @pytest.fixture
    def url(self, failing_server: ChaliceLocal) -> str:
        return failing_server.url
