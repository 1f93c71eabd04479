"""The sign-in protocol, and the sign-in that the settings configure."""

import logging
from typing import Protocol

from chatledger.errors import InvalidArgument
from chatledger.extras import missing_package_error
from chatledger.http.browser_sign_in import BrowserSignIn
from chatledger.settings import Settings

logger = logging.getLogger("chatledger.http")


class SignIn(Protocol):
    """A way to identify the user who sent a request by its ``Authorization`` header."""

    def user(self, authorization: str | None) -> str:
        """Return the user who sent the request.

        Args:
            authorization: The header's value, or None if there is none.

        Raises:
            ApiError: 401 with ``WWW-Authenticate`` (RFC 6750) if the header identifies no user, or
                503 if no user can be identified at the moment.
        """
        ...

    async def auser(self, authorization: str | None) -> str:
        """Return the user as ``user`` does, without blocking the event loop."""
        ...


def open_sign_in(settings: Settings) -> SignIn | None:
    """Open the sign-in that ``settings`` configure.

    Logs a warning if pages of another site can use a server without sign-in.

    Returns:
        The sign-in, or None if users do not sign in.

    Raises:
        InvalidArgument: A setting is not valid, or a package is missing; the text names the
            variable.
    """
    if settings.auth == "none":
        if settings.allow_origin is not None:
            logger.warning(
                "Without sign-in, the pages of %s can read and delete every conversation on "
                "behalf of anyone who opens them; turn on sign-in with CHATLEDGER_AUTH.",
                settings.allow_origin,
            )
        return None
    try:
        from chatledger.http.auth import JWTSignIn
    except ModuleNotFoundError as missing:
        subject = f"CHATLEDGER_AUTH is {settings.auth}, which"
        raise InvalidArgument(missing_package_error(subject, missing, "auth")) from None
    try:
        return JWTSignIn(
            issuer=settings.issuer or "",
            audience=settings.jwt_audience,
            jwks_url=settings.jwt_jwks_url,
        )
    except InvalidArgument as invalid:
        variable = "CHATLEDGER_JWT_JWKS_URL" if settings.jwt_jwks_url else "CHATLEDGER_JWT_ISSUER"
        raise InvalidArgument(f"{variable} is not valid: {invalid}") from None


def open_browser_sign_in(settings: Settings) -> BrowserSignIn | None:
    """Open the sign-in of pages that ``settings`` configure, or return None if there is none.

    Raises:
        InvalidArgument: The issuer is not an https or a loopback URL; the text names the variable.
    """
    if settings.oidc_client_id is None:
        return None
    try:
        return BrowserSignIn(
            issuer=settings.issuer or "",
            client_id=settings.oidc_client_id,
            scope=settings.oidc_scope,
            audience=settings.jwt_audience,
        )
    except InvalidArgument as invalid:
        raise InvalidArgument(f"CHATLEDGER_JWT_ISSUER is not valid: {invalid}") from None
