"""Where Bedrock is and as whom to call it, as botocore finds both; for either transport."""

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

from chatledger.library_logs import keep_messages_out_of_logs

Session: TypeAlias = boto3.Session | botocore.session.Session

BEARER = "AWS_BEARER_TOKEN_BEDROCK"
CONNECTIONS = 256
"""That boto3 keeps open for later use."""


class Client(Protocol):
    """What is used of boto3's."""

    @property
    def meta(self) -> Any: ...

    def converse(self, **request: Any) -> Any: ...

    def converse_stream(self, **request: Any) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a request needs, and what takes reading files, and maybe asking servers, to find."""

    endpoint: str
    region: str
    credentials: Credentials | None
    proxy: str | None
    trusted: ssl.SSLContext | bool


class Access:
    """Makes one client, when it is first asked for."""

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
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": 1},  # a model makes them, and knows
        )
        self._lock = Lock()
        self._client: Client | None = None

    def client(self) -> Client:
        """Raises what botocore does."""
        with self._lock:
            if self._client is None:
                session = self._opened()
                made: Client = session.client(
                    "bedrock-runtime",
                    region_name=self._region,
                    endpoint_url=self._endpoint,
                    config=self._config,
                )
                if session.get_credentials() is None and bearer_token() is None:
                    # A client keeps what it found, and a role may give credentials only later.
                    raise NoCredentialsError
                self._client = made
            return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def found(self) -> Found:
        """Raises what botocore does."""
        meta = self.client().meta
        session = self._opened()
        bundle = session._session.get_config_variable("ca_bundle")
        bundle = bundle or os.environ.get("REQUESTS_CA_BUNDLE")
        return Found(
            meta.endpoint_url,
            meta.region_name,
            session.get_credentials(),
            _proxy(meta.endpoint_url, meta.config.proxies),
            ssl.create_default_context(cafile=bundle) if bundle else True,
        )

    def _opened(self) -> boto3.Session:
        if not isinstance(self._session, boto3.Session):
            # Not boto3's default one: clients may not be made of it in two threads at a time.
            self._session = boto3.Session(botocore_session=self._session)
        return self._session


def bearer_token() -> str | None:
    """As botocore does, it is looked for with each call, and goes before other credentials."""
    return os.environ.get(BEARER) or None


def _proxy(endpoint: str, configured: dict[str, str] | None) -> str | None:
    parts = urlsplit(endpoint)
    if configured is None:
        configured = {} if proxy_bypass(parts.netloc) else getproxies()
    return configured.get(parts.scheme)
