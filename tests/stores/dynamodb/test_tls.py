"""Both DynamoDB stores trust the certificate authorities that the AWS configuration names."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatledger import Message, StoreUnavailable, open_async_store, open_store
from chatledger.errors import AccessRefused
from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from tests.tls_proxy import tls_proxy

pytestmark = pytest.mark.usefixtures("aws_environment")


@pytest.fixture
def https(dynamodb_local: DynamoDBLocal, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """DynamoDB Local over TLS: its URL, and its certificate, which no configuration trusts yet."""
    with tls_proxy(dynamodb_local.endpoint, tmp_path) as served:
        yield served


def append_sync(url: str) -> str:
    with open_store(url) as store:
        store.append("trip", [Message.user("hello")])
        return store.tail("trip", 1).messages[0].text


def append_async(url: str) -> str:
    async def append() -> str:
        async with open_async_store(url) as store:
            await store.append("trip", [Message.user("hello")])
            return (await store.tail("trip", 1)).messages[0].text

    return asyncio.run(append())


@pytest.mark.parametrize("append", [append_sync, append_async])
@pytest.mark.parametrize("setting", ["AWS_CA_BUNDLE", "ca_bundle", "REQUESTS_CA_BUNDLE"])
def test_a_configured_ca_bundle_is_trusted(
    append: Callable[[str], str],
    setting: str,
    https: tuple[str, Path],
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    endpoint, certificate = https
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if setting == "ca_bundle":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {certificate}\n")
    else:
        monkeypatch.setenv(setting, str(certificate))
    assert append(f"dynamodb://{table}?region={REGION}&endpoint={endpoint}") == "hello"


@pytest.mark.parametrize("append", [append_sync, append_async])
def test_a_certificate_outside_the_configured_bundles_is_not_trusted(
    append: Callable[[str], str],
    https: tuple[str, Path],
    table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with pytest.raises(StoreUnavailable):
        append(f"dynamodb://{table}?region={REGION}&endpoint={https[0]}&patience=1s")


def test_the_async_store_reports_a_missing_ca_bundle_with_its_path(
    table: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(missing))
    with pytest.raises(AccessRefused) as raised:
        append_async(f"dynamodb://{table}?region={REGION}")
    assert f"The CA bundle '{missing}' cannot be used" in str(raised.value)
