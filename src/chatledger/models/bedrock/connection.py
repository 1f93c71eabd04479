"""The connection to Bedrock: endpoint, region, credentials and proxy, as botocore finds them."""

import os
import ssl
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError

from chatledger.aws.ca_bundle import ssl_argument
from chatledger.library_logs import keep_messages_out_of_logs

Session: TypeAlias = boto3.Session | botocore.session.Session

BEARER_VARIABLE = "AWS_BEARER_TOKEN_BEDROCK"
POOL_SIZE = 256
"""The number of idle connections that boto3 keeps open for later requests."""


class BedrockRuntimeClient(Protocol):
    """The parts of boto3's ``bedrock-runtime`` client that are used here."""

    @property
    def meta(self) -> Any: ...

    def converse(self, **request: Any) -> Any: ...

    def converse_stream(self, **request: Any) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The endpoint, region, credentials, proxy and TLS settings of a request.

    Finding them can involve reading files and sending requests to other services.
    """

    endpoint: str
    region: str
    credentials: Credentials | None
    proxy: str | None
    tls: ssl.SSLContext | bool


class Connector:
    """Creates the boto3 client, and the connection settings of both transports, on first use."""

    def __init__(
        self,
        session: Session | None,
        *,
        region: str | None,
        endpoint: str | None,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        keep_messages_out_of_logs()
        self._session = session
        self._region = region
        self._endpoint = endpoint
        self._config = Config(
            connect_timeout=connect_timeout,
            read_timeout=timeout,
            max_pool_connections=POOL_SIZE,
            # One attempt: BedrockModel retries, and knows whether text was already delivered.
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        self._lock = Lock()
        self._client: BedrockRuntimeClient | None = None

    def client(self) -> BedrockRuntimeClient:
        """Return the boto3 client, which the first call creates; raise botocore's errors."""
        with self._lock:
            if self._client is None:
                session = self._boto3_session()
                client: BedrockRuntimeClient = session.client(
                    "bedrock-runtime",
                    region_name=self._region,
                    endpoint_url=self._endpoint,
                    config=self._config,
                )
                if session.get_credentials() is None and bearer_token() is None:
                    # A client that was created without credentials never gets any, even if a role
                    # provides some later, so do not keep it.
                    raise NoCredentialsError
                self._client = client
            return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def connection_settings(self) -> ConnectionSettings:
        """Return the settings of the boto3 client, for other clients.

        Raises botocore's errors, and ``InvalidCABundle``.
        """
        meta = self.client().meta
        session = self._boto3_session()
        return ConnectionSettings(
            meta.endpoint_url,
            meta.region_name,
            session.get_credentials(),
            _proxy(meta.endpoint_url, meta.config.proxies),
            ssl_argument(session),
        )

    def _boto3_session(self) -> boto3.Session:
        if not isinstance(self._session, boto3.Session):
            # Not boto3's default session: two threads must not create clients from it at once.
            self._session = boto3.Session(botocore_session=self._session)
        return self._session


def bearer_token() -> str | None:
    """Return the API key in the environment, which takes precedence over other credentials.

    It is read for each request, as botocore does.
    """
    return os.environ.get(BEARER_VARIABLE) or None


def _proxy(endpoint: str, configured: dict[str, str] | None) -> str | None:
    parts = urlsplit(endpoint)
    if configured is None:
        configured = {} if proxy_bypass(parts.netloc) else getproxies()
    return configured.get(parts.scheme)
