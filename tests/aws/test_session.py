"""The CA bundle is found where botocore finds it, and in the same order."""

import os
from pathlib import Path

import boto3
import pytest

from chatledger.aws.session import InvalidCABundle, find_ca_bundle, ssl_argument


@pytest.fixture(autouse=True)
def config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only AWS configuration there is; it does not exist yet."""
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    return config


def test_without_configuration_there_is_no_bundle() -> None:
    assert find_ca_bundle(boto3.Session()) is None
    assert ssl_argument(boto3.Session()) is True


def test_each_setting_counts_before_the_next(
    monkeypatch: pytest.MonkeyPatch, config_file: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/requests.pem")
    assert find_ca_bundle(boto3.Session()) == "/requests.pem"
    config_file.write_text("[default]\nca_bundle = /profile.pem\n")
    assert find_ca_bundle(boto3.Session()) == "/profile.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", "/aws.pem")
    assert find_ca_bundle(boto3.Session()) == "/aws.pem"


def test_the_bundle_is_the_one_of_the_sessions_profile(config_file: Path) -> None:
    config_file.write_text(
        "[default]\nca_bundle = /default.pem\n[profile work]\nca_bundle = /work.pem\n"
    )
    assert find_ca_bundle(boto3.Session(profile_name="work")) == "/work.pem"
    assert find_ca_bundle(boto3.Session()) == "/default.pem"


def test_the_error_for_a_missing_bundle_names_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(missing))
    with pytest.raises(InvalidCABundle) as raised:
        ssl_argument(boto3.Session())
    assert str(raised.value) == (
        f"The CA bundle '{missing}' cannot be used (No such file or directory); correct "
        "AWS_CA_BUNDLE, ca_bundle in the AWS profile, or REQUESTS_CA_BUNDLE: the first of them "
        "that is set counts."
    )


def test_a_file_without_certificates_is_not_a_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "empty.pem"))
    with pytest.raises(InvalidCABundle, match=r"empty\.pem' cannot be used"):
        ssl_argument(boto3.Session())
