"""The headers by which AWS knows who sends a request: signatures and bearer tokens.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from hmac import digest
from time import gmtime, strftime
from urllib.parse import SplitResult, quote, urlsplit

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import InvalidEndpointConfigurationError
from botocore.utils import normalize_url_path

_ALGORITHM = "AWS4-HMAC-SHA256"
_BEARER_VARIABLES = {"bedrock": "AWS_BEARER_TOKEN_BEDROCK"}
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Signer:
    """Signs POST requests to one URL with Signature Version 4.

    The signatures are those of botocore's ``SigV4Auth``, which takes several times as long. Here,
    everything that depends only on the URL is computed once. The signing key, derived from the
    secret key and the date, is computed once a day (UTC).
    """

    def __init__(self, url: str, *, service: str, region: str) -> None:
        parts = urlsplit(url)
        self._host = _host(parts)
        # The path is encoded once more, although it is encoded in the URL: only S3 does without.
        path = quote(normalize_url_path(parts.path), safe="/~")
        self._canonical_target = f"POST\n{path}\n{_canonical_query(parts.query)}\n"
        self._service = service
        self._region = region
        self._cached_key = ("", "", b"")

    def sign(
        self, headers: Mapping[str, str], body: bytes, credentials: ReadOnlyCredentials, now: float
    ) -> dict[str, str]:
        """Return ``headers`` and those that sign them and ``body`` at the time ``now``."""
        timestamp = strftime("%Y%m%dT%H%M%SZ", gmtime(now))
        date = timestamp[:8]
        added = {"X-Amz-Date": timestamp}
        if credentials.token:
            added["X-Amz-Security-Token"] = credentials.token
        sent = {**headers, **added}
        canonical = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
        canonical["host"] = self._host
        names = sorted(canonical)
        lines = "".join([f"{name}:{canonical[name]}\n" for name in names])
        signed_names = ";".join(names)
        request = f"{self._canonical_target}{lines}\n{signed_names}\n{sha256(body).hexdigest()}"
        scope = f"{date}/{self._region}/{self._service}/aws4_request"
        hashed = sha256(request.encode()).hexdigest()
        string_to_sign = f"{_ALGORITHM}\n{timestamp}\n{scope}\n{hashed}"
        assert credentials.secret_key is not None  # botocore's types allow it
        key = self._key(credentials.secret_key, date)
        signature = digest(key, string_to_sign.encode(), "sha256").hex()
        sent["Authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed_names}, Signature={signature}"
        )
        return sent

    def _key(self, secret_key: str, date: str) -> bytes:
        """Return the key that signs requests on that day."""
        secret_of_key, day, key = self._cached_key
        if secret_of_key != secret_key or day != date:
            key = f"AWS4{secret_key}".encode()
            for part in (date, self._region, self._service, "aws4_request"):
                key = digest(key, part.encode(), "sha256")
            self._cached_key = (secret_key, date, key)
        return key


def _host(parts: SplitResult) -> str:
    """Return the value of the ``Host`` header that HTTP clients send."""
    host = parts.hostname or ""
    if ":" in host:  # an IPv6 address
        host = f"[{host}]"
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme):
        return host
    return f"{host}:{parts.port}"


def _canonical_query(query: str) -> str:
    parameters = [each.partition("=") for each in query.split("&")] if query else []
    return "&".join(f"{name}={value}" for name, _, value in sorted(parameters))


# Bearer tokens ------------------------------------------------------------------------------------


def bearer_token(service: str) -> str | None:
    """Return the API key for the service in the environment; it counts before credentials.

    It is read for each request, as botocore does.
    """
    variable = _BEARER_VARIABLES.get(service)
    return os.environ.get(variable) or None if variable else None


def with_bearer_token(headers: Mapping[str, str], token: str, url: str) -> dict[str, str]:
    """Return ``headers`` and the one with the token.

    Raises:
        InvalidEndpointConfigurationError: The URL is not https, so that others could read the
            token.
    """
    if not url.startswith("https:"):
        raise InvalidEndpointConfigurationError(msg="A bearer token needs https.")
    return {**headers, "Authorization": f"Bearer {token}"}
