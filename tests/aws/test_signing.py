"""Signatures equal those of botocore, which is known to sign correctly; so do bearer tokens."""

import calendar
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.auth import BearerAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import InvalidEndpointConfigurationError
from botocore.tokens import FrozenAuthToken
from hypothesis import example, given
from hypothesis import strategies as st

from chatledger.aws.http import Signer, with_bearer_token
from chatledger.aws.session import bearer_token

NOON = float(calendar.timegm((2026, 3, 29, 12, 0, 0)))
KEY = ReadOnlyCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
URL = "https://dynamodb.eu-west-1.amazonaws.com/"
MODEL = "https://bedrock-runtime.us-east-1.amazonaws.com/model"
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0"
HEADERS = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.Query"}


def expected_headers(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: ReadOnlyCredentials,
    now: float,
    service: str,
    region: str,
) -> dict[str, str]:
    """Return the headers that botocore sends."""
    request = AWSRequest("POST", url, headers=headers, data=body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            botocore.auth,
            "get_current_datetime",
            lambda: datetime.fromtimestamp(int(now), UTC).replace(tzinfo=None),
        )
        SigV4Auth(credentials, service, region).add_auth(request)
    return dict(request.headers.items())


def assert_signed_as_by_botocore(
    url: str = URL,
    headers: Mapping[str, str] = HEADERS,
    body: bytes = b"{}",
    credentials: ReadOnlyCredentials = KEY,
    now: float = NOON,
    *,
    service: str = "dynamodb",
    region: str = "eu-west-1",
) -> None:
    signed = Signer(url, service=service, region=region).sign(headers, body, credentials, now)
    assert signed == expected_headers(url, headers, body, credentials, now, service, region)


# The URL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://127.0.0.1:80/",
        "https://EXAMPLE.com:443/dynamo/",
        "https://example.com:8443",
        "http://[::1]:8000/",
        f"{MODEL}/amazon.nova-lite-v1%3A0/converse-stream",
        f"{MODEL}/{quote(ARN, safe='')}/converse",
        f"{MODEL}/..%2F..//./../a~b/c%20d/",
        "https://example.com/ä/é%C3%A9+&=",
        "https://example.com/?b=2&a=1&a=0&c&=&%C3%A4=%2F",
    ],
)
def test_any_url_is_signed_as_by_botocore(url: str) -> None:
    assert_signed_as_by_botocore(url, service="bedrock", region="us-east-1")


@given(model_id=st.text(min_size=1), query=st.text("ab=&%2F~-._+"))
@example("..", "")
@example(ARN, "b=1&a=2&a=1")
def test_any_model_id_and_query_are_signed_as_by_botocore(model_id: str, query: str) -> None:
    encoded = quote(model_id.encode("utf-8", "replace"), safe="")
    assert_signed_as_by_botocore(f"{MODEL}/{encoded}/converse?{query}")


# Headers, body and credentials --------------------------------------------------------------------

# The characters of a header's value, without line breaks.
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50)


@given(
    headers=st.dictionaries(
        st.sampled_from(["Accept", "X-Amz-Target", "x-b", "X-A", "x_a"]), VALUES
    ),
    body=st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")),
    access_key=st.text("ABC123", min_size=1),
    secret_key=st.text(min_size=1).filter(lambda text: text.isprintable()),
    token=st.none() | st.just("") | VALUES,
    now=st.floats(0, 4e9),
)
@example({}, b"", "A", "ключ", "a  token\twith   gaps", NOON)
@example(dict(HEADERS), '{"text": "Ünïcode 😀"}'.encode(), "A", "s", None, 0.999)
def test_any_request_is_signed_as_by_botocore(
    headers: dict[str, str],
    body: bytes,
    access_key: str,
    secret_key: str,
    token: str | None,
    now: float,
) -> None:
    credentials = ReadOnlyCredentials(access_key, secret_key, token)
    assert_signed_as_by_botocore(URL, headers, body, credentials, now)


# Time ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"])
def local_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The computer's time zone is far from UTC, or changes to summer time on that day."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("local_time")
def test_the_time_zone_of_the_computer_has_no_effect() -> None:
    for hour in range(24):
        assert_signed_as_by_botocore(now=NOON + hour * 3600)


def test_one_signer_signs_across_midnight_and_with_new_credentials() -> None:
    midnight = NOON + 12 * 3600
    other = ReadOnlyCredentials("AKIDOTHER", "another secret", "token")
    signer = Signer(URL, service="dynamodb", region="eu-west-1")
    for now in (midnight - 1, midnight - 0.001, midnight, midnight + 86_400, midnight - 1):
        for credentials in (KEY, other, KEY):
            signed = signer.sign(HEADERS, b"{}", credentials, now)
            expected = (URL, HEADERS, b"{}", credentials, now, "dynamodb", "eu-west-1")
            assert signed == expected_headers(*expected)


def test_the_headers_passed_are_not_changed() -> None:
    headers = dict(HEADERS)
    Signer(URL, service="dynamodb", region="eu-west-1").sign(headers, b"", KEY, NOON)
    with_bearer_token(headers, "token", URL)
    assert headers == HEADERS


# Bearer tokens ------------------------------------------------------------------------------------


def test_a_bearer_token_is_sent_as_by_botocore() -> None:
    request = AWSRequest("POST", URL, headers=HEADERS)
    BearerAuth(FrozenAuthToken("a+b/c=")).add_auth(request)  # type: ignore[arg-type]
    assert with_bearer_token(HEADERS, "a+b/c=", URL) == dict(request.headers.items())


@pytest.mark.parametrize("url", ["http://127.0.0.1", "HTTP://127.0.0.1", ""])
def test_a_bearer_token_is_not_sent_without_tls(url: str) -> None:
    with pytest.raises(InvalidEndpointConfigurationError) as refused:
        with_bearer_token(HEADERS, "the-token", url)
    assert "the-token" not in str(refused.value)


def test_only_bedrock_takes_a_bearer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("BEDROCK", "DYNAMODB"):
        monkeypatch.setenv(f"AWS_BEARER_TOKEN_{service}", "token")
    assert bearer_token("bedrock") == "token"
    assert bearer_token("dynamodb") is None
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "")
    assert bearer_token("bedrock") is None
