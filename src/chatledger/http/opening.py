"""The sign-in that the settings ask for."""

from typing import TYPE_CHECKING

from chatledger.errors import InvalidArgument
from chatledger.settings import Settings

if TYPE_CHECKING:  # its library comes with an extra
    from chatledger.http.auth import SignIn


def open_sign_in(settings: Settings) -> "SignIn | None":
    """None where nobody signs in. Raises ``InvalidArgument`` that names the wrong variable."""
    if settings.auth == "none":
        return None
    try:
        from chatledger.http.auth import JWTSignIn
    except ModuleNotFoundError as missing:
        raise InvalidArgument(
            f"CHATLEDGER_AUTH is {settings.auth}, which needs {missing.name}: "
            "pip install 'chatledger[auth]'."
        ) from None
    try:
        return JWTSignIn(
            issuer=settings.issuer or "",
            audience=settings.jwt_audience,
            jwks_url=settings.jwt_jwks_url,
        )
    except InvalidArgument as wrong:
        variable = "CHATLEDGER_JWT_JWKS_URL" if settings.jwt_jwks_url else "CHATLEDGER_JWT_ISSUER"
        raise InvalidArgument(f"{variable} is wrong: {wrong}") from None
