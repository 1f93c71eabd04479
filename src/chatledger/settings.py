"""The settings of the server: ``CHATLEDGER_*`` variables, read here and nowhere else."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import FieldInfo, fields

from chatledger.chat import LEASE
from chatledger.errors import InvalidArgument
from chatledger.models import check_model
from chatledger.stores.urls import check_url, duration

PREFIX = "CHATLEDGER_"
_ORIGIN = re.compile(r"\*|https?://[a-z0-9-]+(\.[a-z0-9-]+)*(:[1-9]\d{0,4})?", re.ASCII)
_USER_POOL = re.compile(
    r"arn:aws(?:-us-gov)?:cognito-idp:([a-z0-9-]+):\d{12}:userpool/(\1_[A-Za-z0-9]+)"
)


def _store(url: str) -> str:
    check_url(url)
    return url


def _model(name: str) -> str:
    check_model(name)
    return name


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _models(text: str) -> list[str]:
    return [_model(name) for name in _names(text)]


def _origin(site: str) -> str:
    default = ":443" if site.startswith("https:") else ":80"
    if not _ORIGIN.fullmatch(site) or site.endswith(default):
        raise InvalidArgument(
            f"{site!r} is no origin as browsers send it; write one such as https://chat.example, "
            "in small letters and punycode, without a path and without the usual port, or * for "
            "any site."
        )
    return site


def _user_pool(arn: str) -> str:
    if not _USER_POOL.fullmatch(arn):
        raise InvalidArgument(
            f"{arn!r} is no ARN of a user pool; it looks like "
            "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_aBcDeFgHi."
        )
    return arn


class Settings(Struct, frozen=True, kw_only=True):
    """Defaults run with nothing configured.

    The description of a field says what it must be, in errors too; a function beside it reads the
    text of its variable.
    """

    host: Annotated[
        str, Meta(description="the address to listen at; without sign-in a loopback one")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="a port, 0 to 65535; 0 takes any that is free")
    ] = 8000
    store: Annotated[str, _store, Meta(description="the URL of a store")] = (
        "sqlite:///chatledger.db"
    )
    model: Annotated[str, _model, Meta(description="the name of a model")] = "offline"
    models: Annotated[
        list[str],
        _models,
        Meta(description="further models that a request may ask for, with commas between"),
    ] = []
    allow_origin: Annotated[
        str | None,
        _origin,
        Meta(description="the site whose pages may call the API, such as https://chat.example"),
    ] = None
    system_prompt: Annotated[
        str | None, Meta(description="what the model is told before every conversation")
    ] = None
    window: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="a number of messages, 1 to 1,000: so many of the last the model sees",
        ),
    ] = 20
    expire_after: Annotated[
        timedelta | None,
        duration,
        Meta(description="how long a conversation lives after its last activity, such as 30d"),
    ] = None
    lease: Annotated[
        timedelta,
        duration,
        Meta(description="how long a turn that died with its server holds its conversation"),
    ] = LEASE
    time_limit: Annotated[
        timedelta | None,
        duration,
        Meta(description="how long a turn may take, such as 2m; then what was said is kept"),
    ] = None
    offline_pace: Annotated[
        float,
        Meta(
            ge=0, le=60, description="the seconds that the offline model takes for a piece, 0 to 60"
        ),
    ] = 0.02
    auth: Annotated[
        Literal["none", "jwt"],
        Meta(description="jwt, for users to sign in with JSON Web Tokens, or none"),
    ] = "none"
    jwt_issuer: Annotated[
        str | None, Meta(description="who issues the tokens, exactly as they say it (iss)")
    ] = None
    jwt_audience: Annotated[
        list[str], _names, Meta(description="whom the tokens are for (aud), with commas between")
    ] = []
    jwt_jwks_url: Annotated[
        str | None, Meta(description="where the issuer publishes its keys (a JWK Set)")
    ] = None
    cognito_user_pool: Annotated[
        str | None,
        _user_pool,
        Meta(description="the ARN of the Amazon Cognito user pool that issues the tokens"),
    ] = None

    @property
    def issuer(self) -> str | None:
        """Who issues the tokens; a user pool's own name is that of its address."""
        if self.cognito_user_pool is None:
            return self.jwt_issuer
        pool = _USER_POOL.fullmatch(self.cognito_user_pool)
        assert pool is not None
        return f"https://cognito-idp.{pool[1]}.amazonaws.com/{pool[2]}"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises ``InvalidArgument`` that names the wrong variable."""
    given = {}
    for field in fields(Settings):
        name = f"{PREFIX}{field.name}".upper()
        if text := environment.get(name):  # an empty one is as if it were not there
            given[field.name] = _read(field, name, text)
    settings = Settings(**given)
    _check_sign_in(settings)
    return settings


def _read(field: FieldInfo, name: str, text: str) -> Any:
    *readers, meta = field.type.__metadata__
    read = next(filter(callable, readers), str)
    try:
        text.encode()
        return convert(read(text), field.type, strict=False)
    except InvalidArgument as wrong:
        raise InvalidArgument(f"{name} is wrong: {wrong}") from None
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name} is wrong: It is not UTF-8.") from None
    except ValidationError:
        raise InvalidArgument(f"{name} must be {meta.description}.") from None


def _check_sign_in(settings: Settings) -> None:
    if settings.auth == "jwt":
        for name, given in (
            ("jwt_issuer", settings.issuer),
            ("jwt_audience", settings.jwt_audience),
        ):
            if not given:
                variable = f"{PREFIX}{name}".upper()
                raise InvalidArgument(f"{variable} is missing, and CHATLEDGER_AUTH is jwt.")
        if settings.jwt_issuer not in (None, settings.issuer):
            raise InvalidArgument(
                "CHATLEDGER_JWT_ISSUER is not the issuer of CHATLEDGER_COGNITO_USER_POOL; leave one "
                "of them out."
            )
        return
    for name in ("jwt_issuer", "jwt_audience", "jwt_jwks_url", "cognito_user_pool"):
        if getattr(settings, name):
            # Whoever sets it believes that users sign in.
            variable = f"{PREFIX}{name}".upper()
            raise InvalidArgument(f"{variable} is set, and CHATLEDGER_AUTH is not jwt.")
