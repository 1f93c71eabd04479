"""Authentication of requests: a Signature Version 4 by a known key, or a known API key.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-use.html
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import parse_qsl, quote

from chatledger.testing.bedrock_server.errors import BedrockError

ACCESS_KEY = "AKIACHATLEDGERTESTING"
SECRET_KEY = "chatledger/testing/not+a+secret+at+all"
API_KEY = "chatledger-testing-api-key"

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_SECONDS = 300
_PARAMETER = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]*)")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of a request that a signature covers.

    ``target`` is the path and query as sent; the names of ``headers`` are in lower case.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


def authenticate(
    request: SignedRequest, *, secret_keys: Mapping[str, str], api_keys: frozenset[str]
) -> None:
    """Raise ``BedrockError`` unless the request carries a valid signature or a known API key.

    ``secret_keys`` maps access keys to the secret keys that sign for them.
    """
    header = request.headers.get("authorization", "").strip()
    scheme, _, rest = header.partition(" ")
    if not header:
        raise BedrockError(
            "Missing Authentication Token", code="MissingAuthenticationTokenException"
        )
    if scheme.lower() == "bearer":
        if rest.strip() not in api_keys:
            # The message was observed; the documentation has only the code.
            raise BedrockError(
                "Authentication failed: Please make sure your API Key is valid.",
                code="AccessDeniedException",
            )
        return
    if scheme != ALGORITHM:
        raise BedrockError(
            f"Authorization header requires '{ALGORITHM}'.", code="IncompleteSignatureException"
        )
    _check_signature(request, rest, secret_keys)


def _check_signature(
    request: SignedRequest, parameters: str, secret_keys: Mapping[str, str]
) -> None:
    found = dict(_PARAMETER.findall(parameters))
    for name in ("Credential", "Signature", "SignedHeaders"):
        if not found.get(name):
            raise BedrockError(
                f"Authorization header requires '{name}' parameter.",
                code="IncompleteSignatureException",
            )
    timestamp = request.headers.get("x-amz-date", "")
    signed_headers = found["SignedHeaders"].split(";")
    match found["Credential"].split("/"):
        case [key, day, region, service, "aws4_request"] if region and day == timestamp[:8]:
            pass
        case _:
            raise BedrockError(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/"
                "service/term, and the date of 'X-Amz-Date'.",
                code="IncompleteSignatureException",
            )
    if service != "bedrock":
        raise _invalid_signature("Credential should be scoped to correct service: 'bedrock'.")
    if key not in secret_keys:
        raise BedrockError(
            "The security token included in the request is invalid.",
            code="UnrecognizedClientException",
        )
    if "host" not in signed_headers or "x-amz-date" not in signed_headers:
        raise _invalid_signature(
            "'Host' and 'X-Amz-Date' must be 'SignedHeaders' in the AWS Authorization."
        )
    _check_timestamp(timestamp)
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = sha256(_canonical_request(request, signed_headers)).hexdigest()
    string_to_sign = f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
    signature = f"AWS4{secret_keys[key]}".encode()
    for part in (day, region, service, "aws4_request", string_to_sign):
        signature = hmac.digest(signature, part.encode(), "sha256")
    if not hmac.compare_digest(signature.hex(), found["Signature"]):
        raise _invalid_signature(
            "The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details."
        )


def _check_timestamp(timestamp: str) -> None:
    try:
        signed_at = datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise BedrockError(
            "Date must be in ISO-8601 'basic format'.", code="IncompleteSignatureException"
        ) from None
    now = datetime.now(UTC)
    if abs((now - signed_at).total_seconds()) > MAX_SKEW_SECONDS:
        raise _invalid_signature(
            f"Signature expired: {timestamp} is now earlier than {now:%Y%m%dT%H%M%SZ}."
        )


def _canonical_request(request: SignedRequest, signed_headers: list[str]) -> bytes:
    path, _, query = request.target.partition("?")
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    lines = [
        request.method,
        quote(path, safe="/-_.~"),  # SigV4 encodes the encoded path a second time
        "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in signed_headers),
        "",
        ";".join(signed_headers),
        sha256(request.body).hexdigest(),
    ]
    return "\n".join(lines).encode()


def _invalid_signature(message: str) -> BedrockError:
    return BedrockError(message, code="InvalidSignatureException")
