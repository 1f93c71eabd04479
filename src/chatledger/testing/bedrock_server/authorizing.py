"""Who may ask: a signature of a known key (Signature Version 4), or a known API key.

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

from chatledger.testing.bedrock_server.refusing import Refused

ACCESS_KEY = "AKIACHATLEDGERTESTING"
SECRET_KEY = "chatledger/testing/not+a+secret+at+all"
API_KEY = "chatledger-testing-api-key"

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_SECONDS = 300
_PART = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]*)")


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as far as it is signed. ``target`` is the path as sent, header names are small."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


def authorize(sent: Sent, *, secrets: Mapping[str, str], api_keys: frozenset[str]) -> None:
    """Raise ``Refused`` unless the request is signed with one of ``secrets``, or has an API key."""
    header = sent.headers.get("authorization", "").strip()
    kind, _, rest = header.partition(" ")
    if not header:
        raise Refused("Missing Authentication Token", code="MissingAuthenticationTokenException")
    if kind.lower() == "bearer":
        if rest.strip() not in api_keys:
            # Observed; the documentation has only the code.
            raise Refused(
                "Authentication failed: Please make sure your API Key is valid.",
                code="AccessDeniedException",
            )
        return
    if kind != ALGORITHM:
        raise Refused(
            f"Authorization header requires '{ALGORITHM}'.", code="IncompleteSignatureException"
        )
    _check_signature(sent, rest, secrets)


def _check_signature(sent: Sent, given: str, secrets: Mapping[str, str]) -> None:
    parts = dict(_PART.findall(given))
    for name in ("Credential", "Signature", "SignedHeaders"):
        if not parts.get(name):
            raise Refused(
                f"Authorization header requires '{name}' parameter.",
                code="IncompleteSignatureException",
            )
    moment = sent.headers.get("x-amz-date", "")
    signed = parts["SignedHeaders"].split(";")
    match parts["Credential"].split("/"):
        case [key, day, region, service, "aws4_request"] if region and day == moment[:8]:
            pass
        case _:
            raise Refused(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/"
                "service/term, and the date of 'X-Amz-Date'.",
                code="IncompleteSignatureException",
            )
    if service != "bedrock":
        raise _invalid("Credential should be scoped to correct service: 'bedrock'.")
    if key not in secrets:
        raise Refused(
            "The security token included in the request is invalid.",
            code="UnrecognizedClientException",
        )
    if "host" not in signed or "x-amz-date" not in signed:
        raise _invalid("'Host' and 'X-Amz-Date' must be 'SignedHeaders' in the AWS Authorization.")
    _check_moment(moment)
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"{ALGORITHM}\n{moment}\n{scope}\n{sha256(_canonical(sent, signed)).hexdigest()}"
    signing_key = f"AWS4{secrets[key]}".encode()
    for part in (day, region, service, "aws4_request", text):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    if not hmac.compare_digest(signing_key.hex(), parts["Signature"]):
        raise _invalid(
            "The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details."
        )


def _check_moment(moment: str) -> None:
    try:
        signed_at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refused(
            "Date must be in ISO-8601 'basic format'.", code="IncompleteSignatureException"
        ) from None
    now = datetime.now(UTC)
    if abs((now - signed_at).total_seconds()) > SKEW_SECONDS:
        raise _invalid(f"Signature expired: {moment} is now earlier than {now:%Y%m%dT%H%M%SZ}.")


def _canonical(sent: Sent, signed: list[str]) -> bytes:
    path, _, query = sent.target.partition("?")
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    lines = [
        sent.method,
        quote(path, safe="/-_.~"),  # what is encoded already is encoded once more
        "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{' '.join(sent.headers.get(name, '').split())}" for name in signed),
        "",
        ";".join(signed),
        sha256(sent.body).hexdigest(),
    ]
    return "\n".join(lines).encode()


def _invalid(message: str) -> Refused:
    return Refused(message, code="InvalidSignatureException")
