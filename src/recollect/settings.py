"""The settings of the server: ``RECOLLECT_*`` variables, read here and nowhere else."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from recollect.chat import LEASE
from recollect.errors import InvalidArgument
from recollect.models import check_model
from recollect.stores.urls import check_url, duration

PREFIX = "RECOLLECT_"


def _store(url: str) -> str:
    check_url(url)
    return url


def _model(name: str) -> str:
    check_model(name)
    return name


def _names(value: object) -> object:
    return (
        [name.strip() for name in value.split(",") if name.strip()]
        if isinstance(value, str)
        else value
    )


def _duration(value: object) -> object:
    return duration(value) if isinstance(value, str) else value


class Settings(BaseSettings):
    """Defaults run with nothing configured."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    host: Annotated[
        str, Field(description="The address to listen at; without sign-in a loopback one.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="The port; 0 takes any free one.")] = (
        8000
    )
    store: Annotated[str, AfterValidator(_store), Field(description="The URL of the store.")] = (
        "sqlite:///recollect.db"
    )
    model: Annotated[str, AfterValidator(_model), Field(description="The model's name.")] = (
        "offline"
    )
    models: Annotated[
        list[Annotated[str, AfterValidator(_model)]],
        NoDecode,
        BeforeValidator(_names),
        Field(description="Further models that a request may ask for, with commas between."),
    ] = []
    system_prompt: Annotated[
        str | None, Field(description="What the model is told before every conversation.")
    ] = None
    window: Annotated[
        int, Field(ge=1, le=1000, description="How many of the last messages the model sees.")
    ] = 20
    expire_after: Annotated[
        timedelta | None,
        BeforeValidator(_duration),
        Field(description="How long a conversation lives after its last activity, such as 30d."),
    ] = None
    lease: Annotated[
        timedelta,
        BeforeValidator(_duration),
        Field(description="How long a turn that died with its server holds its conversation."),
    ] = LEASE
    time_limit: Annotated[
        timedelta | None,
        BeforeValidator(_duration),
        Field(description="How long a turn may take, such as 2m; then what was said is kept."),
    ] = None
    offline_pace: Annotated[
        float,
        Field(
            ge=0, le=60, allow_inf_nan=False, description="Seconds a piece of the offline model."
        ),
    ] = 0.02
    auth: Annotated[
        Literal["none", "jwt"],
        Field(description="How users sign in: with JSON Web Tokens, or not at all."),
    ] = "none"
    jwt_issuer: Annotated[
        str | None, Field(description="Who issues the tokens, exactly as they say it (iss).")
    ] = None
    jwt_audience: Annotated[
        list[str],
        NoDecode,
        BeforeValidator(_names),
        Field(description="Whom the tokens are for (aud), with commas between."),
    ] = []
    jwt_jwks_url: Annotated[
        str | None, Field(description="Where the issuer publishes its keys (a JWK Set).")
    ] = None


def read_settings() -> Settings:
    """The settings of this process. Raises ``InvalidArgument`` that names the wrong variable."""
    try:
        settings = Settings()
    except ValidationError as failed:
        error = failed.errors(include_url=False)[0]
        name = f"{PREFIX}{error['loc'][0]}".upper()
        reason = error["msg"].removeprefix("Value error, ").rstrip(".")
        raise InvalidArgument(f"{name} is wrong: {reason}.") from None
    _check_sign_in(settings)
    return settings


def _check_sign_in(settings: Settings) -> None:
    for name in ("jwt_issuer", "jwt_audience", "jwt_jwks_url"):
        variable = f"{PREFIX}{name}".upper()
        given = bool(getattr(settings, name))
        if settings.auth == "jwt" and not given and name != "jwt_jwks_url":
            raise InvalidArgument(f"{variable} is missing, and RECOLLECT_AUTH is jwt.")
        if settings.auth == "none" and given:
            # Whoever sets it believes that users sign in.
            raise InvalidArgument(f"{variable} is set, and RECOLLECT_AUTH is not jwt.")
