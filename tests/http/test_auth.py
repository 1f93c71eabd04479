"""Which tokens sign in, and where the keys come from that prove it; no server of ours runs."""

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
from chatledger.http import auth as auth_module
from chatledger.http import signing_keys as keys_module
from chatledger.http.auth import LEEWAY_SECONDS, TOKEN_BYTES, JWTSignIn
from chatledger.http.errors import Refused
from chatledger.http.signing_keys import (
    FRESH_SECONDS,
    LASTING_SECONDS,
    PAUSE_SECONDS,
    SET_BYTES,
    Keys,
    fetch,
    parse,
)
from tests.http.bad_input import KEY_BYTES, table
from tests.http.client import MARKER, eventually
from tests.http.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    KeyServer,
    bearer,
    claims,
    elliptic,
    key_server,
    published,
    rsa,
    token,
)

SignInWith = Callable[..., JWTSignIn]


def now() -> int:
    return int(time.time())


def sign_in(audience: str | list[str] = AUDIENCE, **options: Any) -> JWTSignIn:
    """One that knows its keys."""
    options = {"fetch": lambda url: published(rsa(), elliptic())} | options
    return JWTSignIn(issuer=ISSUER, audience=audience, **options)


def refused(attempt: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        attempt()
    return caught.value


def b64(value: object) -> str:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


# Tokens -------------------------------------------------------------------------------------------


GOOD = table(
    {
        "RS256": lambda: token(),
        "PS512": lambda: token(alg="PS512"),
        "ES256": lambda: token(key=elliptic()),
        "of an access token's type": lambda: token(typ="at+JWT"),
        "of no type": lambda: token(typ=None),
        "with a header that nobody knows": lambda: token(nonce="x", x5t="y"),
        "for several": lambda: token(claims(aud=["another", AUDIENCE])),
        "without a time of issue": lambda: token(claims(iat=...)),
        "of now": lambda: token(claims(nbf=now())),
        "of a clock that is fast": lambda: token(claims(nbf=now() + 30, iat=now() + 30)),
        "of a clock that is slow": lambda: token(claims(exp=now() - LEEWAY_SECONDS + 20)),
        "times with fractions": lambda: token(claims(exp=now() + 60.5)),
        "Cognito's access token": lambda: token(
            claims(aud=..., token_use="access", client_id=AUDIENCE)
        ),
        "Cognito's ID token": lambda: token(claims(token_use="id")),
    }
)


@pytest.mark.parametrize("made", GOOD)
def test_a_good_token_is_its_subjects(made: Callable[[], str]) -> None:
    assert sign_in().user(bearer(made())) == "bob"


def test_a_server_may_be_of_several_audiences() -> None:
    both = sign_in(["web", "phone"])
    for audience in ("web", "phone"):
        assert both.user(bearer(token(claims(aud=audience)))) == "bob"
    assert refused(lambda: both.user(bearer(token()))).status == 401


@pytest.mark.parametrize("subject", ["auth0|5f7c", "Zoë 日本語 🧠", "x" * KEY_BYTES, "a b"])
def test_any_text_that_can_own_a_conversation_may_be_a_subject(subject: str) -> None:
    assert sign_in().user(bearer(token(claims(subject)))) == subject


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_is_known_in_any_case(scheme: str) -> None:
    assert sign_in().user(f"{scheme} {token()}") == "bob"


UNSIGNED = table(
    {
        "none": None,
        "empty": "",
        "a password": "Basic Ym9iOnNlY3JldA==",
        "the token alone": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "another scheme": "DPoP eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "the scheme in the middle": "Token bearer x.y.z",
    }
)


@pytest.mark.parametrize("authorization", UNSIGNED)
def test_who_sends_no_token_is_told_to_sign_in(authorization: str | None) -> None:
    error = refused(lambda: sign_in().user(authorization))
    assert (error.status, error.code) == (401, "not_signed_in")
    assert error.headers == {"WWW-Authenticate": "Bearer"}


def forged(header: dict[str, object], signature: bytes = b"x" * 256) -> str:
    return f"{b64(header)}.{b64(claims())}.{b64(signature)}"


def cut(text: str, part: int, to: str) -> str:
    parts = text.split(".")
    parts[part] = to
    return ".".join(parts)


def with_public_key_as_secret() -> str:
    signed = f"{b64({'alg': 'HS256', 'kid': 'rsa'})}.{b64(claims())}"
    secret = rsa().as_pem(private=False)
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"


BAD = table(
    {
        # What proves nothing
        "nothing": lambda: "",
        "a word": lambda: "quetzal",
        "three points": lambda: "...",
        "unsigned": lambda: f"{b64({'alg': 'none'})}.{b64(claims())}.",
        "unsigned, with a signature": lambda: forged({"alg": "none"}),
        "unsigned, in capitals": lambda: forged({"alg": "NONE", "kid": "rsa"}),
        "signed with a secret": lambda: token(key=SECRET, kid="rsa"),
        "signed with the public key as a secret": with_public_key_as_secret,
        "signed with nothing": lambda: forged({"alg": "RS256", "kid": "rsa"}),
        "signed by another with our key's name": lambda: token(key=rsa("rogue"), kid="rsa"),
        "signed by another": lambda: token(key=rsa("rogue")),
        "with a key of its own": lambda: token(
            key=rsa("rogue"), kid="rsa", jwk=rsa("rogue").as_dict(private=False)
        ),
        "with a key server of its own": lambda: token(
            key=rsa("rogue"), jku="https://evil.example/signing_keys.json"
        ),
        "of an algorithm of another kind of key": lambda: forged({"alg": "ES256", "kid": "rsa"}),
        "of a curve that is not the key's": lambda: forged({"alg": "ES384", "kid": "elliptic"}),
        "of an algorithm nobody has": lambda: forged({"alg": "RS1", "kid": "rsa"}),
        "of an algorithm that is a list": lambda: forged({"alg": ["RS256"], "kid": "rsa"}),
        "of no algorithm": lambda: forged({"kid": "rsa"}),
        "of no key, where there are two": lambda: token(kid=None, alg="RS256", key=rsa("rogue")),
        "of a key that is a number": lambda: forged({"alg": "RS256", "kid": 7}),
        "its claims changed": lambda: cut(token(), 1, b64(claims("eve"))),
        "its header changed": lambda: cut(token(), 0, b64({"alg": "RS512", "kid": "rsa"})),
        "its signature cut": lambda: token()[:-8],
        "its signature gone": lambda: cut(token(), 2, ""),
        "encrypted": lambda: f"{token()}.x.y",
        "something critical": lambda: token(crit=["b64"], b64=True),
        "something critical that nobody knows": lambda: forged(
            {"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}
        ),
        "of a logout": lambda: token(typ="logout+jwt"),
        "of a type that is a list": lambda: forged({"alg": "RS256", "kid": "rsa", "typ": ["JWT"]}),
        # What breaks who reads it
        "too long": lambda: token(claims(groups=["g" * 100] * (TOKEN_BYTES // 100))),
        "with blanks": lambda: token().replace(".", ". "),
        "with a line end": lambda: token() + "\n",
        "twice": lambda: f"{token()}, Bearer {token()}",
        "not ASCII": lambda: cut(token(), 1, "é"),
        "with padding": lambda: cut(token(), 0, b64({"alg": "RS256", "kid": "rs"}) + "="),
        "a header that is no JSON": lambda: cut(token(), 0, b64(b"{")),
        "a header that is not UTF-8": lambda: cut(token(), 0, b64(b"\xff\xfe")),
        "a header that is a list": lambda: cut(token(), 0, b64(["alg"])),
        "a header that is text": lambda: cut(token(), 0, b64("alg")),
        "a header of lists 4,000 deep": lambda: cut(token(), 0, b64(b"[" * 4_000)),
        "one letter": lambda: cut(token(), 0, "x"),
        # What is signed well, and for something else
        "claims that are a list": lambda: token_of(b"[1]"),
        "claims that are no JSON": lambda: token_of(b"{"),
        "claims of lists 4,000 deep": lambda: token_of(b"[" * 4_000),
        "of another issuer": lambda: token(claims(iss="https://issuer.example/")),
        "of no issuer": lambda: token(claims(iss=...)),
        "of a list of issuers": lambda: token(claims(iss=[ISSUER])),
        "for another": lambda: token(claims(aud="another")),
        "for nobody": lambda: token(claims(aud=...)),
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
        "for another, of our client": lambda: token(
            claims(aud="another", client_id=AUDIENCE, token_use="access")
        ),
        "without an end": lambda: token(claims(exp=...)),
        "with a text for its end": lambda: token(claims(exp="9999999999")),
        "with true for its end": lambda: token(claims(exp=True)),
        "ending at NaN": lambda: token(claims(exp=float("nan"))),
        "ending never": lambda: token(claims(exp=float("inf"))),
        "of tomorrow": lambda: token(claims(nbf=now() + 86_400)),
        "issued tomorrow": lambda: token(claims(iat=now() + 86_400)),
        "of no subject": lambda: token(claims(...)),
        "of an empty subject": lambda: token(claims("")),
        "of a subject that is null": lambda: token(claims(None)),
        "of a subject that is a number": lambda: token(claims(7)),
        "of a subject that is a list": lambda: token(claims(["bob"])),
        "of a subject too long": lambda: token(claims("x" * (KEY_BYTES + 1))),
        "of a subject with half a character": lambda: token_of(
            json.dumps(claims("bob\ud800")).encode()
        ),
    }
)


def token_of(body: bytes) -> str:
    """A token that is signed well, whatever it says."""
    return jws.serialize_compact({"alg": "RS256", "kid": "rsa"}, body, rsa())


@pytest.mark.parametrize("made", BAD)
def test_a_token_that_is_not_good_signs_nobody_in(made: Callable[[], str]) -> None:
    text = made()
    error = refused(lambda: sign_in().user(bearer(text)))
    assert (error.status, error.code) == (401, "invalid_token")
    challenge = error.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="invalid_token"')
    assert not text or text not in f"{error}{challenge}"


def test_a_token_that_has_expired_says_so() -> None:
    old = token(claims(exp=now() - LEEWAY_SECONDS - 1))
    error = refused(lambda: sign_in().user(bearer(old)))
    assert (error.status, error.code) == (401, "invalid_token")
    assert "expired" in str(error)
    assert "expired" in error.headers["WWW-Authenticate"]


def test_a_token_expires_while_its_keys_are_known() -> None:
    clock = Clock()
    signed = sign_in(clock=clock)
    short = bearer(token(claims(exp=now() + 600)))
    assert signed.user(short) == "bob"
    clock.now += 600 + LEEWAY_SECONDS + 1
    assert refused(lambda: signed.user(short)).status == 401


@given(st.text(max_size=60) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
def test_no_text_signs_in_or_breaks_it(text: str) -> None:
    assert refused(lambda: sign_in().user(bearer(text))).status == 401


def test_nothing_of_a_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    signed = sign_in()
    for text in (token(claims(MARKER, exp=1)), token(claims([MARKER])), MARKER):
        error = refused(lambda text=text: signed.user(bearer(text)))  # type: ignore[misc]
        assert error.__suppress_context__ or error.__context__ is None
        assert MARKER not in f"{error}{error.headers}"
    assert signed.user(bearer(token(claims(MARKER)))) == MARKER
    assert MARKER not in caplog.text


# What one may configure ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/signing_keys.json",
        "http://127.0.0.1.evil.example/signing_keys.json",
        "file:///etc/passwd",
        "ftp://issuer.example/signing_keys.json",
        "issuer.example/signing_keys.json",
        "https://",
        "https:///signing_keys.json",
        "https://issuer.example:port/",
        "https://user:password@issuer.example/",
        "https://issuer.example/a b",
        "https://[::1/",
    ],
)
def test_keys_come_over_https_alone(url: str) -> None:
    with pytest.raises(InvalidArgument):
        sign_in(jwks_url=url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_keys_of_this_machine_may_come_over_http(host: str) -> None:
    sign_in(jwks_url=f"http://{host}:8080/signing_keys.json")


@pytest.mark.parametrize("audience", ["", [], [""], ["web", ""]])
def test_a_token_for_anybody_is_not_taken(audience: str | list[str]) -> None:
    with pytest.raises(InvalidArgument):
        sign_in(audience)


def test_an_issuers_keys_are_where_most_publish_them() -> None:
    asked: list[str] = []

    def answer(url: str) -> bytes:
        asked.append(url)
        return published(rsa())

    for issuer in (ISSUER, f"{ISSUER}/"):
        signed = JWTSignIn(issuer=issuer, audience=AUDIENCE, fetch=answer)
        assert signed.user(bearer(token(claims(iss=issuer)))) == "bob"
    assert asked == [f"{ISSUER}/.well-known/jwks.json"] * 2


# Keys ---------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = float(now())

    def __call__(self) -> float:
        return self.now


class Issuer:
    """Counts how often its keys are asked for; its token signs in for good."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keys: list[Key] = [rsa()]
        self.asked = 0
        self.down = False
        self.go = Event()
        self.go.set()
        self.sign_in = sign_in(fetch=self.fetch, clock=self.clock)

    def fetch(self, url: str) -> bytes:
        self.asked += 1
        self.go.wait(10)
        if self.down:
            raise ConnectionRefusedError
        return published(*self.keys)

    def user(self, key: Any = None) -> str:
        return self.sign_in.user(self.signed(key))

    def signed(self, key: Any = None) -> str:
        return bearer(token(claims(exp=now() + 10 * 86_400), key=key or rsa()))


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def test_keys_are_fetched_once(issuer: Issuer) -> None:
    assert issuer.asked == 0, "it was not asked before somebody came"
    for _ in range(20):
        issuer.user()
    assert issuer.asked == 1


def test_who_sends_no_token_asks_nobody_for_keys(issuer: Issuer) -> None:
    for authorization in (None, "Bearer x", f"Bearer {forged({'alg': 'none'})}"):
        refused(lambda text=authorization: issuer.sign_in.user(text))  # type: ignore[misc]
    assert issuer.asked == 0


def test_a_new_key_is_known_at_once(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now += PAUSE_SECONDS
    issuer.keys = [rsa("newer"), rsa()]
    assert issuer.user(rsa("newer")) == "bob"
    assert issuer.user() == "bob"
    assert issuer.asked == 2


def test_a_key_that_is_withdrawn_signs_nobody_in(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now += PAUSE_SECONDS
    issuer.keys = [rsa("newer")]
    issuer.user(rsa("newer"))
    assert refused(issuer.user).status == 401


def test_made_up_keys_do_not_hammer_the_key_server(issuer: Issuer) -> None:
    issuer.user()
    for n in range(50):
        rogue = forged({"alg": "RS256", "kid": f"rogue {n}"})
        assert refused(lambda text=rogue: issuer.sign_in.user(bearer(text))).status == 401  # type: ignore[misc]
    assert issuer.asked == 1
    issuer.clock.now += PAUSE_SECONDS
    for n in range(50):
        rogue = forged({"alg": "RS256", "kid": f"rogue {n}"})
        assert refused(lambda text=rogue: issuer.sign_in.user(bearer(text))).status == 401  # type: ignore[misc]
    assert issuer.asked == 2


def test_many_threads_at_once_make_one_request(issuer: Issuer) -> None:
    issuer.go.clear()
    ready = Barrier(17)

    def comes() -> str:
        ready.wait()
        return issuer.user()

    with ThreadPoolExecutor(16) as threads:
        users = [threads.submit(comes) for _ in range(16)]
        ready.wait()
        issuer.go.set()
        assert [user.result() for user in users] == ["bob"] * 16
    assert issuer.asked == 1


def test_many_tasks_at_once_make_one_request_and_the_loop_goes_on(issuer: Issuer) -> None:
    issuer.go.clear()

    async def come() -> list[str]:
        users = [asyncio.create_task(issuer.sign_in.auser(issuer.signed())) for _ in range(200)]
        await asyncio.sleep(0.05)  # were the loop blocked, nothing would let it go on
        users.pop().cancel()  # one goes away, and the others get their answer
        issuer.go.set()
        return await asyncio.gather(*users)

    assert asyncio.run(come()) == ["bob"] * 199
    assert issuer.asked == 1


def test_keys_that_age_are_fetched_again_and_nobody_waits(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now += FRESH_SECONDS
    issuer.go.clear()
    assert issuer.user() == "bob"
    assert issuer.user() == "bob"
    issuer.keys = [rsa("newer")]
    issuer.go.set()
    eventually(lambda: refusal_of(issuer) if issuer.asked == 2 else None)
    assert issuer.asked == 2


def refusal_of(issuer: Issuer) -> Refused | None:
    try:
        issuer.user()
    except Refused as error:
        return error
    return None


def test_a_key_server_that_is_down_locks_out_nobody_who_is_known(issuer: Issuer) -> None:
    issuer.user()
    issuer.down = True
    for _ in range(23):
        issuer.clock.now += 3600
        assert issuer.user() == "bob"
        assert refused(lambda: issuer.user(rsa("newer"))).status == 401
    issuer.clock.now += LASTING_SECONDS
    assert refused(issuer.user).status == 503
    issuer.clock.now += PAUSE_SECONDS
    issuer.down = False
    assert issuer.user() == "bob"


def test_where_no_key_is_known_one_is_told_when_to_come_again(issuer: Issuer) -> None:
    issuer.down = True
    for attempt in (issuer.user, lambda: asyncio.run(issuer.sign_in.auser(issuer.signed()))):
        error = refused(attempt)
        assert (error.status, error.code) == (503, "sign_in_unavailable")
        assert 1 <= int(error.headers["Retry-After"]) <= PAUSE_SECONDS
    assert issuer.asked == 1
    issuer.down = False
    issuer.clock.now += PAUSE_SECONDS
    assert issuer.user() == "bob"


def test_nobody_waits_long_for_a_key_server_that_hangs(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_module, "FETCH_SECONDS", 0.1)
    issuer.go.clear()
    for attempt in (issuer.user, lambda: asyncio.run(issuer.sign_in.auser(issuer.signed()))):
        assert refused(attempt).status == 503
    issuer.go.set()
    eventually(lambda: refusal_of(issuer) is None or None)


def test_a_clock_that_is_set_back_locks_nobody_out(issuer: Issuer) -> None:
    issuer.user()
    issuer.clock.now -= 30
    issuer.keys = [rsa("newer")]
    assert issuer.user(rsa("newer")) == "bob"


def test_one_key_needs_no_name(issuer: Issuer) -> None:
    nameless = token(kid=None)
    assert issuer.sign_in.user(bearer(nameless)) == "bob"
    issuer.clock.now += PAUSE_SECONDS
    issuer.keys = [elliptic(), rsa()]
    issuer.user(elliptic())
    assert issuer.sign_in.user(bearer(nameless)) == "bob", "one of its kind"
    issuer.clock.now += PAUSE_SECONDS
    issuer.keys = [rsa(), rsa("newer")]
    issuer.user(rsa("newer"))
    assert refused(lambda: issuer.sign_in.user(bearer(nameless))).status == 401


NOT_ALL_GOOD = table(
    {
        "a secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "odd"},
        "of a kind that nobody knows": {"kty": "AKP", "kid": "odd"},
        "too short": {"kty": "RSA", "n": b64(b"\xff" * 128), "e": "AQAB", "kid": "odd"},
        "for encryption": rsa("odd").as_dict(private=False) | {"use": "enc"},
        "of no curve": {"kty": "EC", "crv": "P-1", "x": "AA", "y": "AA", "kid": "odd"},
        "off its curve": elliptic("odd").as_dict(private=False) | {"x": b64(b"x" * 32)},
        "without its number": {"kty": "RSA", "e": "AQAB", "kid": "odd"},
        "no object": 7,
        "null": None,
    }
)


@pytest.mark.filterwarnings("default")  # of short keys joserfc only warns
@pytest.mark.parametrize("odd", NOT_ALL_GOOD)
def test_a_key_that_is_of_no_use_spoils_no_other(odd: object) -> None:
    found = parse(json.dumps({"keys": [odd, rsa().as_dict(private=False)]}).encode())
    assert [key.id for key in found] == ["rsa"]


def test_a_key_is_used_for_its_own_algorithm_alone() -> None:
    entry = rsa().as_dict(private=False) | {"alg": "RS512"}
    signed = sign_in(fetch=lambda url: json.dumps({"keys": [entry]}).encode())
    assert signed.user(bearer(token(alg="RS512"))) == "bob"
    assert refused(lambda: signed.user(bearer(token()))).status == 401


# The key server, over a socket --------------------------------------------------------------------


@pytest.fixture(scope="module")
def running() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


def test_keys_come_over_a_socket(running: KeyServer) -> None:
    assert Keys(running.url).missing("rsa") is not None
    assert sign_in(jwks_url=running.url, fetch=fetch).user(bearer(token())) == "bob"


def huge(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(published(rsa()) + b" " * SET_BYTES)


def elsewhere(request: BaseHTTPRequestHandler) -> None:
    is_there = request.path == "/other.json"
    request.send_response(200 if is_there else 302)
    request.send_header("Location", "/other.json")
    request.end_headers()
    request.wfile.write(published(rsa()) if is_there else b"")


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
    table(
        {
            "huge": huge,
            "elsewhere": elsewhere,
            "an error": failing,
            "drop by drop": dripping,
            "silent": silent,
            "closed": lambda request: None,
            "no JSON": f"<html>{MARKER}".encode(),
            "empty": b"",
            "not UTF-8": b"\xff\xfe",
            "no set": b"[]",
            "no keys": b'{"keys": []}',
            "keys that are an object": b'{"keys": {"a": 1}}',
            "keys that are null": b'{"keys": null}',
            "lists 100,000 deep": b"[" * 100_000,
        }
    ),
)
def test_a_key_server_that_answers_badly_is_one_that_is_down(
    running: KeyServer,
    answer: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(keys_module, "FETCH_SECONDS", 0.3)
    signed = sign_in(jwks_url=running.url, fetch=fetch)
    running.answer = answer
    begun = time.monotonic()
    assert refused(lambda: signed.user(bearer(token()))).status == 503
    assert time.monotonic() - begun < 3
    assert "The keys of sign-in cannot be had" in caplog.text
    assert MARKER not in caplog.text
