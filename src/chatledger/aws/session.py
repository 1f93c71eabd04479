"""The configuration of AWS, found as boto3 finds it: sessions, clients and endpoints."""

import os
import ssl
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError

BEARER_VARIABLES = {"bedrock": "AWS_BEARER_TOKEN_BEDROCK"}
"""The environment variables of API keys, by the service that takes them."""

Session: TypeAlias = boto3.Session | botocore.session.Session


def boto3_session(given: Session | None) -> boto3.Session:
    """Return the given session as a boto3 session; a new one for None."""
    if isinstance(given, boto3.Session):
        return given
    # Not boto3's default session: two threads must not make clients from it at once.
    return boto3.Session(botocore_session=given)


def make_service_client(
    session: boto3.Session,
    service: str,
    *,
    region: str | None,
    endpoint: str | None,
    connect_timeout: float,
    read_timeout: float,
    pool_size: int,
) -> Any:
    """Return a boto3 client that makes one attempt at each call.

    Its users make further attempts themselves, so that they know of each.

    Args:
        session: The session with the configuration and the credentials.
        service: boto3's name of the service, such as ``dynamodb``.
        region: The AWS region; None for the session's own.
        endpoint: The endpoint's URL; None for that of AWS.
        connect_timeout: The longest time (s) for opening a connection.
        read_timeout: The longest time (s) without a byte of the reply.
        pool_size: The number of idle connections that are kept open for later calls.

    Raises:
        BotoCoreError: The AWS configuration is invalid; a region or profile is missing, for
            example.
        ValueError: The region or the endpoint is invalid.
    """
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=pool_size,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    return session.client(
        service,  # type: ignore[call-overload]
        region_name=region,
        endpoint_url=endpoint,
        config=config,
    )


class Endpoint(NamedTuple):
    """A URL of an AWS service, and everything a request to it needs."""

    url: str
    service: str
    """The name of the service in signatures."""
    region: str
    credentials: Credentials | None
    """None if there is only a bearer token."""
    bearer_variable: str | None
    """The environment variable of a bearer token, which counts before credentials; None if the
    service takes none."""
    proxy: str | None
    tls: ssl.SSLContext | bool
    """The argument ``ssl`` of aiohttp."""


def find_endpoint(session: boto3.Session, client: Any, *, path: str = "") -> Endpoint:
    """Return the endpoint that ``client``, made from ``session``, calls at ``path``.

    This reads files, and may send requests to the services that issue credentials.

    Raises:
        BotoCoreError: There are no credentials, or they could not be obtained.
        InvalidCABundle: The CA bundle cannot be used.
    """
    meta = client.meta
    service = meta.service_model.signing_name
    credentials = session.get_credentials()
    if credentials is None and bearer_token(service) is None:
        raise NoCredentialsError
    url = meta.endpoint_url.rstrip("/") + path if path else meta.endpoint_url
    proxy = _find_proxy(url, meta.config.proxies)
    return Endpoint(
        url,
        service,
        meta.region_name,
        credentials,
        BEARER_VARIABLES.get(service),
        proxy,
        ssl_argument(session),
    )


def bearer_token(service: str) -> str | None:
    """Return the API key for the service in the environment; it counts before credentials."""
    variable = BEARER_VARIABLES.get(service)
    return os.environ.get(variable) or None if variable else None


def _find_proxy(url: str, configured: dict[str, str] | None) -> str | None:
    parts = urlsplit(url)
    if configured is None:
        configured = {} if proxy_bypass(parts.netloc) else getproxies()
    return configured.get(parts.scheme)


# Certificate authorities --------------------------------------------------------------------------


class InvalidCABundle(Exception):
    """The configured CA bundle is missing or is not a file of certificates."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"The CA bundle {path!r} cannot be used ({reason}); correct AWS_CA_BUNDLE, ca_bundle "
            "in the AWS profile, or REQUESTS_CA_BUNDLE: the first of them that is set counts."
        )


def find_ca_bundle(session: boto3.Session) -> str | None:
    """Return the path of the CA bundle to trust, in botocore's order; None if none is configured.

    ``AWS_CA_BUNDLE`` counts first, then ``ca_bundle`` in the session's profile, then
    ``REQUESTS_CA_BUNDLE``. botocore's own clients follow the same order, so that a program that
    uses boto3 and aiohttp trusts the same authorities with both.
    """
    # boto3 has no public way to ask for it. get_config_variable reads AWS_CA_BUNDLE too.
    configured = session._session.get_config_variable("ca_bundle")
    return configured or os.environ.get("REQUESTS_CA_BUNDLE") or None


def ssl_argument(session: boto3.Session) -> ssl.SSLContext | bool:
    """Return aiohttp's argument ``ssl``: a context for the bundle, or True for its defaults.

    Raises:
        InvalidCABundle: The bundle is missing or is not a file of certificates.
    """
    bundle = find_ca_bundle(session)
    if bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError is one too
        raise InvalidCABundle(bundle, error.strerror or str(error)) from error
