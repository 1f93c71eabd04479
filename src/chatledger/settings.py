"""The settings of the server, read from ``CHATLEDGER_*`` variables only in this module."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import FieldInfo, fields

from chatledger.chat import DEFAULT_LEASE
from chatledger.errors import InvalidArgument
from chatledger.models import check_model_name
from chatledger.stores.urls import check_url, parse_duration

PREFIX = "CHATLEDGER_"
_ORIGIN = re.compile(r"\*|https?://[a-z0-9-]+(\.[a-z0-9-]+)*(:[1-9]\d{0,4})?", re.ASCII)
_USER_POOL = re.compile(
    r"arn:aws(?:-us-gov)?:cognito-idp:([a-z0-9-]+):\d{12}:userpool/(\1_[A-Za-z0-9]+)"
)


def _parse_store(url: str) -> str:
    check_url(url)
    return url


def _parse_model(name: str) -> str:
    check_model_name(name)
    return name


def _parse_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parse_models(text: str) -> list[str]:
    return [_parse_model(name) for name in _parse_names(text)]


def _parse_origin(site: str) -> str:
    default_port = ":443" if site.startswith("https:") else ":80"
    if not _ORIGIN.fullmatch(site) or site.endswith(default_port):
        raise InvalidArgument(
            f"{site!r} is not an origin as browsers send it; write one such as "
            "https://chat.example, in lower case and punycode, without a path or a default port, "
            "or * for any site."
        )
    return site


def _parse_user_pool(arn: str) -> str:
    if not _USER_POOL.fullmatch(arn):
        raise InvalidArgument(
            f"{arn!r} is not the ARN of a user pool; write one such as "
            "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_aBcDeFgHi."
        )
    return arn


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of the server; the defaults work without configuration.

    Each field's description completes the error sentence "CHATLEDGER_... must be ...". A function
    in the annotation converts the variable's text and may raise ``InvalidArgument``.
    """

    host: Annotated[
        str, Meta(description="the address to listen on; without sign-in, a loopback address")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="a port number, 0 to 65535; 0 picks any free port")
    ] = 8000
    store: Annotated[str, _parse_store, Meta(description="the URL of a store")] = (
        "sqlite:///chatledger.db"
    )
    model: Annotated[str, _parse_model, Meta(description="the name of a model")] = "offline"
    models: Annotated[
        list[str],
        _parse_models,
        Meta(description="the names of more models that a request may ask for, comma-separated"),
    ] = []
    allow_origin: Annotated[
        str | None,
        _parse_origin,
        Meta(description="the site whose pages may call the API, such as https://chat.example"),
    ] = None
    system_prompt: Annotated[
        str | None, Meta(description="the instructions that the model gets in every conversation")
    ] = None
    window: Annotated[
        int,
        Meta(
            ge=1, le=1000, description="the number of last messages that the model sees, 1 to 1,000"
        ),
    ] = 20
    expire_after: Annotated[
        timedelta | None,
        parse_duration,
        Meta(description="the time a conversation lives after its last activity, such as 30d"),
    ] = None
    lease: Annotated[
        timedelta,
        parse_duration,
        Meta(
            description="the time after which a turn whose server crashed no longer blocks its "
            "conversation, such as 30s"
        ),
    ] = DEFAULT_LEASE
    time_limit: Annotated[
        timedelta | None,
        parse_duration,
        Meta(description="the longest time that a turn may take, such as 2m"),
    ] = None
    offline_pace: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="the seconds between two pieces of the offline model's reply, 0 to 60",
        ),
    ] = 0.02
    auth: Annotated[
        Literal["none", "jwt"],
        Meta(description="jwt if users sign in with JSON Web Tokens, else none"),
    ] = "none"
    jwt_issuer: Annotated[
        str | None, Meta(description="the issuer of the tokens, exactly as they state it (iss)")
    ] = None
    jwt_audience: Annotated[
        list[str],
        _parse_names,
        Meta(description="the audiences of the tokens (aud), comma-separated"),
    ] = []
    jwt_jwks_url: Annotated[
        str | None, Meta(description="the URL of the issuer's keys (a JWK Set)")
    ] = None
    cognito_user_pool: Annotated[
        str | None,
        _parse_user_pool,
        Meta(description="the ARN of the Amazon Cognito user pool that issues the tokens"),
    ] = None

    @property
    def issuer(self) -> str | None:
        """The issuer of the tokens, derived from the Cognito user pool if one is given."""
        if self.cognito_user_pool is None:
            return self.jwt_issuer
        pool = _USER_POOL.fullmatch(self.cognito_user_pool)
        assert pool is not None
        return f"https://cognito-idp.{pool[1]}.amazonaws.com/{pool[2]}"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from environment variables; an empty variable counts as unset.

    Raises:
        InvalidArgument: A variable is not valid; the message names it.
    """
    values = {}
    for field in fields(Settings):
        name = f"{PREFIX}{field.name}".upper()
        if text := environment.get(name):
            values[field.name] = _parse(field, name, text)
    settings = Settings(**values)
    _check_sign_in(settings)
    return settings


def _parse(field: FieldInfo, name: str, text: str) -> Any:
    *annotations, meta = field.type.__metadata__
    parse = next(filter(callable, annotations), str)
    try:
        text.encode()
        return convert(parse(text), field.type, strict=False)
    except InvalidArgument as invalid:
        raise InvalidArgument(f"{name} is not valid: {invalid}") from None
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name} is not valid UTF-8.") from None
    except ValidationError:
        raise InvalidArgument(f"{name} must be {meta.description}.") from None


def _check_sign_in(settings: Settings) -> None:
    if settings.auth == "jwt":
        for name, value in (
            ("jwt_issuer", settings.issuer),
            ("jwt_audience", settings.jwt_audience),
        ):
            if not value:
                variable = f"{PREFIX}{name}".upper()
                raise InvalidArgument(f"{variable} is missing; CHATLEDGER_AUTH=jwt needs it.")
        if settings.jwt_issuer not in (None, settings.issuer):
            raise InvalidArgument(
                "CHATLEDGER_JWT_ISSUER is not the issuer of CHATLEDGER_COGNITO_USER_POOL; set only "
                "one of them."
            )
        return
    for name in ("jwt_issuer", "jwt_audience", "jwt_jwks_url", "cognito_user_pool"):
        if getattr(settings, name):
            # An operator who sets this variable expects that users have to sign in.
            variable = f"{PREFIX}{name}".upper()
            raise InvalidArgument(
                f"{variable} is set, but CHATLEDGER_AUTH is not jwt; set CHATLEDGER_AUTH=jwt, or "
                f"unset {variable}."
            )
