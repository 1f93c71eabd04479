"""Sign-in in the browser, by OpenID Connect: what a page must know to sign users in."""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from msgspec import DecodeError, Struct, json

from chatledger.errors import InvalidArgument
from chatledger.http.bodies import SignInBody
from chatledger.http.issuer import IssuerDocument, check_issuer_url, fetch_document

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.ASCII)


class BrowserSignIn:
    """Sign-in in the browser at the issuer of the tokens: the authorization code flow with PKCE.

    The page is a public client, which has no secret (RFC 7636). The addresses of the issuer's
    endpoints come from its ``/.well-known/openid-configuration``.

    Args:
        issuer: The issuer, exactly as in the tokens' ``iss`` claim; an https or a loopback URL.
        client_id: The id under which the page is registered at the issuer.
        scope: The scopes to ask for, separated by blanks; one must be ``openid``.
        audience: The accepted audiences of tokens. The page asks for a token for the first, unless
            that is the client itself.
        fetch: A function that downloads a document from a URL. It may block, because it runs in a
            thread of its own.
        clock: A function that returns the time in seconds since 1970.

    Raises:
        InvalidArgument: An argument is not valid.
    """

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        scope: str = "openid",
        audience: str | Sequence[str] = (),
        fetch: Callable[[str], bytes] = fetch_document,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not client_id:
            raise InvalidArgument("client_id is empty; name the client of the issuer.")
        if "openid" not in scope.split(" "):
            raise InvalidArgument("scope must contain openid; add it.")
        audiences = [audience] if isinstance(audience, str) else audience
        body: SignInBody = {
            "kind": "oidc",
            "issuer": issuer,
            "client_id": client_id,
            "scope": scope,
        }
        if audiences and audiences[0] != client_id:
            body["audience"] = audiences[0]
        self._document = IssuerDocument(
            f"{issuer.rstrip('/')}/.well-known/openid-configuration",
            partial(_complete, body),
            name="sign-in configuration",
            fetch=fetch,
            clock=clock,
        )

    def describe(self) -> SignInBody:
        """Return what a page must know; raise ``ApiError`` 503 if the issuer is not available."""
        return self._document.read()

    async def adescribe(self) -> SignInBody:
        """Return what ``describe`` does, without blocking the event loop."""
        return await self._document.aread()


def token_origin(body: SignInBody) -> str:
    """Return the origin to which the page sends requests for tokens."""
    return _origin_of(body["token_endpoint"])


class _Metadata(Struct, frozen=True):
    """The fields of the issuer's configuration that are read (OIDC Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    end_session_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False


def _complete(body: SignInBody, document: bytes) -> SignInBody:
    """Return the body with the endpoints that the document names."""
    try:
        metadata = json.decode(document, type=_Metadata)
    except DecodeError as error:
        raise InvalidArgument("it lacks a field or is not JSON.") from error
    if metadata.issuer != body["issuer"]:
        # Otherwise one issuer could send users to another (section 4.3).
        raise InvalidArgument("its issuer is another one than the tokens must have.")
    complete = body.copy()
    complete["authorization_endpoint"] = metadata.authorization_endpoint
    complete["token_endpoint"] = metadata.token_endpoint
    if metadata.end_session_endpoint:
        complete["end_session_endpoint"] = metadata.end_session_endpoint
    complete["sends_issuer"] = metadata.authorization_response_iss_parameter_supported
    for endpoint in (
        metadata.authorization_endpoint,
        metadata.token_endpoint,
        metadata.end_session_endpoint,
    ):
        if endpoint:
            check_issuer_url(endpoint, "an endpoint")
            _origin_of(endpoint)
    return complete


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}".lower()
    # It becomes a part of a header, in which other characters have a meaning.
    if not _ORIGIN.fullmatch(origin):
        raise InvalidArgument("the address of an endpoint has an unusual host.")
    return origin
