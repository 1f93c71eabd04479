"""Token validation and the fetching of signing keys, without a Chatledger server."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from threading import Barrier, Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import Key

from chatledger.errors import InvalidArgument
from chatledger.http import issuer as issuer_documents
from chatledger.http.auth import LEEWAY_SECONDS, MAX_TOKEN_BYTES, JWTSignIn
from chatledger.http.errors import ApiError
from chatledger.http.issuer import (
    FETCH_INTERVAL_SECONDS,
    MAX_AGE_SECONDS,
    MAX_DOCUMENT_BYTES,
    REFRESH_SECONDS,
    IssuerDocument,
    fetch_document,
)
from chatledger.http.signing_keys import parse_key_set
from tests.http.bad_input import MAX_ID_BYTES, named_params
from tests.http.client import MARKER, wait_until
from tests.http.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    KeyServer,
    bearer,
    claims,
    ec_key,
    jwk_set,
    key_server,
    rsa_key,
    token,
)


def now() -> int:
    return int(time.time())


def sign_in(audience: str | list[str] = AUDIENCE, **options: Any) -> JWTSignIn:
    """Return a sign-in whose keys need no fetching from a server."""
    options = {"fetch": lambda url: jwk_set(rsa_key(), ec_key())} | options
    return JWTSignIn(issuer=ISSUER, audience=audience, **options)


def api_error(attempt: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        attempt()
    return caught.value


def b64(value: object) -> str:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


# Tokens -------------------------------------------------------------------------------------------


GOOD_TOKENS = named_params(
    {
        "RS256": lambda: token(),
        "PS512": lambda: token(alg="PS512"),
        "ES256": lambda: token(key=ec_key()),
        "of the type of an access token": lambda: token(typ="at+JWT"),
        "of no type": lambda: token(typ=None),
        "with an unknown header parameter": lambda: token(nonce="x", x5t="y"),
        "with several audiences": lambda: token(claims(aud=["another", AUDIENCE])),
        "without a time of issue": lambda: token(claims(iat=...)),
        "valid from now": lambda: token(claims(nbf=now())),
        "from an issuer whose clock is fast": lambda: token(claims(nbf=now() + 30, iat=now() + 30)),
        "from an issuer whose clock is slow": lambda: token(
            claims(exp=now() - LEEWAY_SECONDS + 20)
        ),
        "times with fractions": lambda: token(claims(exp=now() + 60.5)),
        "Cognito's access token": lambda: token(
            claims(aud=..., token_use="access", client_id=AUDIENCE)
        ),
        "Cognito's ID token": lambda: token(claims(token_use="id")),
    }
)


@pytest.mark.parametrize("made", GOOD_TOKENS)
def test_a_valid_token_signs_its_subject_in(made: Callable[[], str]) -> None:
    assert sign_in().user(bearer(made())) == "bob"


def test_a_server_may_accept_several_audiences() -> None:
    both = sign_in(["web", "phone"])
    for audience in ("web", "phone"):
        assert both.user(bearer(token(claims(aud=audience)))) == "bob"
    assert api_error(lambda: both.user(bearer(token()))).status == 401


@pytest.mark.parametrize("subject", ["auth0|5f7c", "Zoë 日本語 🧠", "x" * MAX_ID_BYTES, "a b"])
def test_any_text_that_can_own_a_conversation_may_be_a_subject(subject: str) -> None:
    assert sign_in().user(bearer(token(claims(subject)))) == subject


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_may_be_in_any_case(scheme: str) -> None:
    assert sign_in().user(f"{scheme} {token()}") == "bob"


NO_TOKENS = named_params(
    {
        "none": None,
        "empty": "",
        "a password": "Basic Ym9iOnNlY3JldA==",
        "the token alone": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "another scheme": "DPoP eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "the scheme in the middle": "Token bearer x.y.z",
    }
)


@pytest.mark.parametrize("authorization", NO_TOKENS)
def test_a_request_without_a_token_is_told_to_sign_in(authorization: str | None) -> None:
    error = api_error(lambda: sign_in().user(authorization))
    assert (error.status, error.code) == (401, "not_signed_in")
    assert error.headers == {"WWW-Authenticate": "Bearer"}


def forged_token(header: dict[str, object], signature: bytes = b"x" * 256) -> str:
    return f"{b64(header)}.{b64(claims())}.{b64(signature)}"


def with_part(text: str, part: int, to: str) -> str:
    parts = text.split(".")
    parts[part] = to
    return ".".join(parts)


def token_signed_with_public_key() -> str:
    signed_part = f"{b64({'alg': 'HS256', 'kid': 'rsa'})}.{b64(claims())}"
    secret = rsa_key().as_pem(private=False)
    return f"{signed_part}.{b64(hmac.digest(secret, signed_part.encode(), 'sha256'))}"


BAD_TOKENS = named_params(
    {
        # Without a valid signature
        "nothing": lambda: "",
        "a word": lambda: "quetzal",
        "three points": lambda: "...",
        "unsigned": lambda: f"{b64({'alg': 'none'})}.{b64(claims())}.",
        "unsigned, with a signature": lambda: forged_token({"alg": "none"}),
        "unsigned, in capitals": lambda: forged_token({"alg": "NONE", "kid": "rsa"}),
        "signed with a secret": lambda: token(key=SECRET, kid="rsa"),
        "signed with the public key as a secret": token_signed_with_public_key,
        "signed with nothing": lambda: forged_token({"alg": "RS256", "kid": "rsa"}),
        "signed by another with our key's name": lambda: token(key=rsa_key("rogue"), kid="rsa"),
        "signed by another": lambda: token(key=rsa_key("rogue")),
        "with a key of its own": lambda: token(
            key=rsa_key("rogue"), kid="rsa", jwk=rsa_key("rogue").as_dict(private=False)
        ),
        "with a key server of its own": lambda: token(
            key=rsa_key("rogue"), jku="https://evil.example/keys.json"
        ),
        "of an algorithm of another kind of key": lambda: forged_token(
            {"alg": "ES256", "kid": "rsa"}
        ),
        "of a curve that is not the key's": lambda: forged_token(
            {"alg": "ES384", "kid": "elliptic"}
        ),
        "of an unknown algorithm": lambda: forged_token({"alg": "RS1", "kid": "rsa"}),
        "of an algorithm that is a list": lambda: forged_token({"alg": ["RS256"], "kid": "rsa"}),
        "of no algorithm": lambda: forged_token({"kid": "rsa"}),
        "of no key, although there are two": lambda: token(
            kid=None, alg="RS256", key=rsa_key("rogue")
        ),
        "of a key that is a number": lambda: forged_token({"alg": "RS256", "kid": 7}),
        "its claims changed": lambda: with_part(token(), 1, b64(claims("eve"))),
        "its header changed": lambda: with_part(token(), 0, b64({"alg": "RS512", "kid": "rsa"})),
        "its signature shortened": lambda: token()[:-8],
        "its signature removed": lambda: with_part(token(), 2, ""),
        "encrypted": lambda: f"{token()}.x.y",
        "a critical parameter": lambda: token(crit=["b64"], b64=True),
        "an unknown critical parameter": lambda: forged_token(
            {"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}
        ),
        "of a logout": lambda: token(typ="logout+jwt"),
        "of a type that is a list": lambda: forged_token(
            {"alg": "RS256", "kid": "rsa", "typ": ["JWT"]}
        ),
        # Malformed
        "too long": lambda: token(claims(groups=["g" * 100] * (MAX_TOKEN_BYTES // 100))),
        "with blanks": lambda: token().replace(".", ". "),
        "with a line end": lambda: token() + "\n",
        "twice": lambda: f"{token()}, Bearer {token()}",
        "not ASCII": lambda: with_part(token(), 1, "é"),
        "with padding": lambda: with_part(token(), 0, b64({"alg": "RS256", "kid": "rs"}) + "="),
        "a header that is not JSON": lambda: with_part(token(), 0, b64(b"{")),
        "a header that is not UTF-8": lambda: with_part(token(), 0, b64(b"\xff\xfe")),
        "a header that is a list": lambda: with_part(token(), 0, b64(["alg"])),
        "a header that is text": lambda: with_part(token(), 0, b64("alg")),
        "a header of lists 4,000 deep": lambda: with_part(token(), 0, b64(b"[" * 4_000)),
        "one letter": lambda: with_part(token(), 0, "x"),
        # Signed correctly, but with the wrong claims
        "claims that are a list": lambda: token_with_body(b"[1]"),
        "claims that are not JSON": lambda: token_with_body(b"{"),
        "claims of lists 4,000 deep": lambda: token_with_body(b"[" * 4_000),
        "of another issuer": lambda: token(claims(iss="https://issuer.example/")),
        "of no issuer": lambda: token(claims(iss=...)),
        "of a list of issuers": lambda: token(claims(iss=[ISSUER])),
        "for another audience": lambda: token(claims(aud="another")),
        "without an audience": lambda: token(claims(aud=...)),
        "for null": lambda: token(claims(aud=None)),
        "for an empty list": lambda: token(claims(aud=[])),
        "for a list of lists": lambda: token(claims(aud=[[AUDIENCE]])),
        "for an object": lambda: token(claims(aud={AUDIENCE: 1})),
        "for a client, and no access token": lambda: token(
            claims(aud=..., client_id=AUDIENCE, token_use="id")
        ),
        "for another client": lambda: token(
            claims(aud=..., client_id="another", token_use="access")
        ),
        "for another audience, with our client": lambda: token(
            claims(aud="another", client_id=AUDIENCE, token_use="access")
        ),
        "without an expiry": lambda: token(claims(exp=...)),
        "with text as its expiry": lambda: token(claims(exp="9999999999")),
        "with true as its expiry": lambda: token(claims(exp=True)),
        "expiring at NaN": lambda: token(claims(exp=float("nan"))),
        "never expiring": lambda: token(claims(exp=float("inf"))),
        "of tomorrow": lambda: token(claims(nbf=now() + 86_400)),
        "issued tomorrow": lambda: token(claims(iat=now() + 86_400)),
        "of no subject": lambda: token(claims(...)),
        "of an empty subject": lambda: token(claims("")),
        "of a subject that is null": lambda: token(claims(None)),
        "of a subject that is a number": lambda: token(claims(7)),
        "of a subject that is a list": lambda: token(claims(["bob"])),
        "of a subject too long": lambda: token(claims("x" * (MAX_ID_BYTES + 1))),
        "of a subject with half a character": lambda: token_with_body(
            json.dumps(claims("bob\ud800")).encode()
        ),
    }
)


def token_with_body(body: bytes) -> str:
    """Return a correctly signed token with any body."""
    return jws.serialize_compact({"alg": "RS256", "kid": "rsa"}, body, rsa_key())


@pytest.mark.parametrize("made", BAD_TOKENS)
def test_an_invalid_token_signs_nobody_in(made: Callable[[], str]) -> None:
    text = made()
    error = api_error(lambda: sign_in().user(bearer(text)))
    assert (error.status, error.code) == (401, "invalid_token")
    challenge = error.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="invalid_token"')
    assert not text or text not in f"{error}{challenge}"


def test_the_error_for_an_expired_token_says_so() -> None:
    old = token(claims(exp=now() - LEEWAY_SECONDS - 1))
    error = api_error(lambda: sign_in().user(bearer(old)))
    assert (error.status, error.code) == (401, "invalid_token")
    assert "expired" in str(error)
    assert "expired" in error.headers["WWW-Authenticate"]


def test_a_token_expires_while_its_keys_are_known() -> None:
    clock = Clock()
    authenticator = sign_in(clock=clock)
    short = bearer(token(claims(exp=now() + 600)))
    assert authenticator.user(short) == "bob"
    clock.now += 600 + LEEWAY_SECONDS + 1
    assert api_error(lambda: authenticator.user(short)).status == 401


@given(st.text(max_size=60) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
def test_no_other_text_signs_in_or_causes_a_crash(text: str) -> None:
    assert api_error(lambda: sign_in().user(bearer(text))).status == 401


def test_no_part_of_a_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    authenticator = sign_in()
    for text in (token(claims(MARKER, exp=1)), token(claims([MARKER])), MARKER):
        error = api_error(lambda text=text: authenticator.user(bearer(text)))  # type: ignore[misc]
        assert error.__suppress_context__ or error.__context__ is None
        assert MARKER not in f"{error}{error.headers}"
    assert authenticator.user(bearer(token(claims(MARKER)))) == MARKER
    assert MARKER not in caplog.text


# Configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys.json",
        "http://127.0.0.1.evil.example/keys.json",
        "file:///etc/passwd",
        "ftp://issuer.example/keys.json",
        "issuer.example/keys.json",
        "https://",
        "https:///keys.json",
        "https://issuer.example:port/",
        "https://user:password@issuer.example/",
        "https://issuer.example/a b",
        "https://[::1/",
    ],
)
def test_keys_must_come_over_https(url: str) -> None:
    with pytest.raises(InvalidArgument):
        sign_in(jwks_url=url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_keys_from_loopback_may_come_over_http(host: str) -> None:
    sign_in(jwks_url=f"http://{host}:8080/keys.json")


@pytest.mark.parametrize("audience", ["", [], [""], ["web", ""]])
def test_the_audience_must_not_be_empty(audience: str | list[str]) -> None:
    with pytest.raises(InvalidArgument):
        sign_in(audience)


def test_the_default_key_url_is_the_issuers_well_known_one() -> None:
    fetch_count: list[str] = []

    def answer(url: str) -> bytes:
        fetch_count.append(url)
        return jwk_set(rsa_key())

    for issuer in (ISSUER, f"{ISSUER}/"):
        authenticator = JWTSignIn(issuer=issuer, audience=AUDIENCE, fetch=answer)
        assert authenticator.user(bearer(token(claims(iss=issuer)))) == "bob"
    assert fetch_count == [f"{ISSUER}/.well-known/jwks.json"] * 2


# Keys ---------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = float(now())

    def __call__(self) -> float:
        return self.now


class Issuer:
    """An issuer that counts the fetches of its keys; its tokens are valid for days."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keys: list[Key] = [rsa_key()]
        self.fetch_count = 0
        self.down = False
        self.go = Event()
        self.go.set()
        self.sign_in = sign_in(fetch=self.fetch, clock=self.clock)

    def fetch(self, url: str) -> bytes:
        self.fetch_count += 1
        self.go.wait(10)
        if self.down:
            raise ConnectionRefusedError
        return jwk_set(*self.keys)

    def user(self, key: Any = None) -> str:
        return self.sign_in.user(self.authorization(key))

    def authorization(self, key: Any = None) -> str:
        return bearer(token(claims(exp=now() + 10 * 86_400), key=key or rsa_key()))


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def test_keys_are_fetched_once(issuer: Issuer) -> None:
    assert issuer.fetch_count == 0, "no fetch before the first token"
    for _ in range(20):
        issuer.user()
    assert issuer.fetch_count == 1


def test_no_keys_are_fetched_without_a_well_formed_token(issuer: Issuer) -> None:
    for authorization in (None, "Bearer x", f"Bearer {forged_token({'alg': 'none'})}"):
        api_error(lambda text=authorization: issuer.sign_in.user(text))  # type: ignore[misc]
    assert issuer.fetch_count == 0


def test_a_new_key_works_at_once(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now += FETCH_INTERVAL_SECONDS
    issuer.keys = [rsa_key("newer"), rsa_key()]
    assert issuer.user(rsa_key("newer")) == "bob"
    assert issuer.user() == "bob"
    assert issuer.fetch_count == 2


def test_a_removed_key_signs_nobody_in(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now += FETCH_INTERVAL_SECONDS
    issuer.keys = [rsa_key("newer")]
    issuer.user(rsa_key("newer"))
    assert api_error(issuer.user).status == 401


def test_made_up_key_ids_do_not_flood_the_key_server(issuer: Issuer) -> None:
    issuer.user()
    for n in range(50):
        rogue = forged_token({"alg": "RS256", "kid": f"rogue {n}"})
        assert api_error(lambda text=rogue: issuer.sign_in.user(bearer(text))).status == 401  # type: ignore[misc]
    assert issuer.fetch_count == 1
    issuer.clock.now += FETCH_INTERVAL_SECONDS
    for n in range(50):
        rogue = forged_token({"alg": "RS256", "kid": f"rogue {n}"})
        assert api_error(lambda text=rogue: issuer.sign_in.user(bearer(text))).status == 401  # type: ignore[misc]
    assert issuer.fetch_count == 2


def test_many_concurrent_threads_make_one_request(issuer: Issuer) -> None:
    issuer.go.clear()
    ready = Barrier(17)

    def sign_in_once() -> str:
        ready.wait()
        return issuer.user()

    with ThreadPoolExecutor(16) as threads:
        users = [threads.submit(sign_in_once) for _ in range(16)]
        ready.wait()
        issuer.go.set()
        assert [user.result() for user in users] == ["bob"] * 16
    assert issuer.fetch_count == 1


def test_many_concurrent_tasks_make_one_request_and_do_not_block_the_loop(issuer: Issuer) -> None:
    issuer.go.clear()

    async def sign_in_many() -> list[str]:
        users = [
            asyncio.create_task(issuer.sign_in.auser(issuer.authorization())) for _ in range(200)
        ]
        await asyncio.sleep(0.05)  # a blocked loop would never get past this
        users.pop().cancel()  # one is cancelled; the others must still succeed
        issuer.go.set()
        return await asyncio.gather(*users)

    assert asyncio.run(sign_in_many()) == ["bob"] * 199
    assert issuer.fetch_count == 1


def test_old_keys_are_refreshed_in_the_background(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now += REFRESH_SECONDS
    issuer.go.clear()
    assert issuer.user() == "bob"
    assert issuer.user() == "bob"
    issuer.keys = [rsa_key("newer")]
    issuer.go.set()
    wait_until(lambda: sign_in_error(issuer) if issuer.fetch_count == 2 else None)
    assert issuer.fetch_count == 2


def sign_in_error(issuer: Issuer) -> ApiError | None:
    try:
        issuer.user()
    except ApiError as error:
        return error
    return None


def test_known_keys_stay_in_use_while_the_key_server_is_down(issuer: Issuer) -> None:
    issuer.user()
    issuer.down = True
    for _ in range(23):
        issuer.clock.now += 3600
        assert issuer.user() == "bob"
        assert api_error(lambda: issuer.user(rsa_key("newer"))).status == 401
    issuer.clock.now += MAX_AGE_SECONDS
    assert api_error(issuer.user).status == 503
    issuer.clock.now += FETCH_INTERVAL_SECONDS
    issuer.down = False
    assert issuer.user() == "bob"


def test_without_keys_the_error_says_when_to_retry(issuer: Issuer) -> None:
    issuer.down = True
    for attempt in (issuer.user, lambda: asyncio.run(issuer.sign_in.auser(issuer.authorization()))):
        error = api_error(attempt)
        assert (error.status, error.code) == (503, "sign_in_unavailable")
        assert 1 <= int(error.headers["Retry-After"]) <= FETCH_INTERVAL_SECONDS
    assert issuer.fetch_count == 1
    issuer.down = False
    issuer.clock.now += FETCH_INTERVAL_SECONDS
    assert issuer.user() == "bob"


def test_a_key_server_that_hangs_delays_nobody_for_long(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_documents, "FETCH_TIMEOUT_SECONDS", 0.1)
    issuer.go.clear()
    for attempt in (issuer.user, lambda: asyncio.run(issuer.sign_in.auser(issuer.authorization()))):
        assert api_error(attempt).status == 503
    issuer.go.set()
    wait_until(lambda: sign_in_error(issuer) is None or None)


def test_a_key_server_that_hangs_is_not_asked_again_meanwhile(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_documents, "FETCH_TIMEOUT_SECONDS", 0.1)
    issuer.go.clear()
    for _ in range(3):
        assert api_error(issuer.user).status == 503
        issuer.clock.now += FETCH_INTERVAL_SECONDS
    assert issuer.fetch_count == 1
    issuer.go.set()
    wait_until(lambda: sign_in_error(issuer) is None or None)


def test_nobody_is_locked_out_when_the_clock_is_set_back(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now -= 30
    issuer.keys = [rsa_key("newer")]
    assert issuer.user(rsa_key("newer")) == "bob"


def test_a_token_without_a_key_id_works_if_only_one_key_fits(issuer: Issuer) -> None:
    nameless = token(kid=None)
    assert issuer.sign_in.user(bearer(nameless)) == "bob"
    issuer.clock.now += FETCH_INTERVAL_SECONDS
    issuer.keys = [ec_key(), rsa_key()]
    issuer.user(ec_key())
    assert issuer.sign_in.user(bearer(nameless)) == "bob", "one of its kind"
    issuer.clock.now += FETCH_INTERVAL_SECONDS
    issuer.keys = [rsa_key(), rsa_key("newer")]
    issuer.user(rsa_key("newer"))
    assert api_error(lambda: issuer.sign_in.user(bearer(nameless))).status == 401


UNUSABLE_KEYS = named_params(
    {
        "a secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "odd"},
        "of an unknown kind": {"kty": "AKP", "kid": "odd"},
        "too short": {"kty": "RSA", "n": b64(b"\xff" * 128), "e": "AQAB", "kid": "odd"},
        "for encryption": rsa_key("odd").as_dict(private=False) | {"use": "enc"},
        "of no curve": {"kty": "EC", "crv": "P-1", "x": "AA", "y": "AA", "kid": "odd"},
        "off its curve": ec_key("odd").as_dict(private=False) | {"x": b64(b"x" * 32)},
        "without its number": {"kty": "RSA", "e": "AQAB", "kid": "odd"},
        "not an object": 7,
        "null": None,
    }
)


@pytest.mark.filterwarnings("default")  # joserfc only warns about short keys
@pytest.mark.parametrize("unusable", UNUSABLE_KEYS)
def test_an_unusable_key_does_not_affect_the_others(unusable: object) -> None:
    found = parse_key_set(
        json.dumps({"keys": [unusable, rsa_key().as_dict(private=False)]}).encode()
    )
    assert [key.id for key in found] == ["rsa"]


def test_a_key_is_used_only_for_its_own_algorithm() -> None:
    entry = rsa_key().as_dict(private=False) | {"alg": "RS512"}
    authenticator = sign_in(fetch=lambda url: json.dumps({"keys": [entry]}).encode())
    assert authenticator.user(bearer(token(alg="RS512"))) == "bob"
    assert api_error(lambda: authenticator.user(bearer(token()))).status == 401


# The key server, over a socket --------------------------------------------------------------------


@pytest.fixture(scope="module")
def running() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


def test_keys_are_fetched_over_a_socket(running: KeyServer) -> None:
    keys = IssuerDocument(running.url, parse_key_set, name="sign-in keys").read()
    assert "rsa" in [key.id for key in keys]
    assert sign_in(jwks_url=running.url, fetch=fetch_document).user(bearer(token())) == "bob"


def huge(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(jwk_set(rsa_key()) + b" " * MAX_DOCUMENT_BYTES)


def elsewhere(request: BaseHTTPRequestHandler) -> None:
    is_there = request.path == "/other.json"
    request.send_response(200 if is_there else 302)
    request.send_header("Location", "/other.json")
    request.end_headers()
    request.wfile.write(jwk_set(rsa_key()) if is_there else b"")


def failing(request: BaseHTTPRequestHandler) -> None:
    request.send_error(500, MARKER)


def dripping(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b" ")
        time.sleep(0.05)


def silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


@pytest.mark.parametrize(
    "answer",
    named_params(
        {
            "huge": huge,
            "elsewhere": elsewhere,
            "an error": failing,
            "byte by byte": dripping,
            "silent": silent,
            "closed": lambda request: None,
            "not JSON": f"<html>{MARKER}".encode(),
            "empty": b"",
            "not UTF-8": b"\xff\xfe",
            "not a set": b"[]",
            "no keys": b'{"keys": []}',
            "keys that are an object": b'{"keys": {"a": 1}}',
            "keys that are null": b'{"keys": null}',
            "lists 100,000 deep": b"[" * 100_000,
        }
    ),
)
def test_a_key_server_with_a_bad_response_counts_as_down(
    running: KeyServer,
    answer: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(issuer_documents, "FETCH_TIMEOUT_SECONDS", 0.3)
    authenticator = sign_in(jwks_url=running.url, fetch=fetch_document)
    running.answer = answer
    begun = time.monotonic()
    assert api_error(lambda: authenticator.user(bearer(token()))).status == 503
    assert time.monotonic() - begun < 3
    # The request waits no longer than the fetch, which may end just after it.
    wait_until(lambda: "Cannot fetch the sign-in keys" in caplog.text or None)
    assert MARKER not in caplog.text
