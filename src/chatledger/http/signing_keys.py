"""The public keys that verify tokens, from the issuer's JWK Set (RFC 7517)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from joserfc.jwk import ECKey, RSAKey

MIN_RSA_BITS = 2048
"""The shortest RSA key that is used (RFC 7518, section 3.3)."""

ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
}
"""The accepted signature algorithms, and the kind of key that each needs.

All are asymmetric, so the server holds no secret. The algorithm "none" is not among them.
"""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key; ``kind`` is "RSA" or the name of its curve."""

    id: str | None
    algorithm: str | None
    kind: str
    value: RSAKey | ECKey

    def matches(self, id: str | None, algorithm: str) -> bool:
        """Return whether the key may have signed a token with this key id and algorithm."""
        return (
            id in (None, self.id)
            and self.algorithm in (None, algorithm)
            and self.kind == ALGORITHMS[algorithm]
        )


def parse_key_set(body: bytes) -> list[SigningKey]:
    """Return the keys of a JWK Set that can verify a signature; skip the others (RFC 7517, 5).

    Raises an exception of any kind if there is none.
    """
    parsed = [_parse_key(entry) for entry in json.loads(body)["keys"]]
    keys = [key for key in parsed if key is not None]
    if not keys:
        raise ValueError("no key")
    return keys


def find_key(keys: Sequence[SigningKey], id: str | None, algorithm: str) -> SigningKey | None:
    """Return the key that signed a token with this key id and algorithm, or None if unknown."""
    matching = [key for key in keys if key.matches(id, algorithm)]
    # A token without a key id is accepted only if exactly one key matches.
    return matching[0] if len(matching) == 1 or (matching and id is not None) else None


def _parse_key(entry: Any) -> SigningKey | None:
    try:
        if entry.get("use", "sig") != "sig":
            return None
        value: RSAKey | ECKey
        match entry["kty"]:
            case "RSA" if len(entry["n"]) * 6 >= MIN_RSA_BITS:
                kind = "RSA"
                value = RSAKey.import_key({name: entry[name] for name in ("kty", "n", "e")})
            case "EC":
                kind = entry["crv"]
                value = ECKey.import_key({name: entry[name] for name in ("kty", "crv", "x", "y")})
            case _:
                return None
    except Exception:  # one malformed key must not invalidate the others
        return None
    return SigningKey(entry.get("kid"), entry.get("alg"), kind, value)
