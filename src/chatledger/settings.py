"""The settings of the server, read from ``CHATLEDGER_*`` variables only in this module."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import FieldInfo, fields

from chatledger.chat import DEFAULT_LEASE
from chatledger.errors import InvalidArgument
from chatledger.models import check_model_name
from chatledger.models.factory import is_compatible, missing_base_url
from chatledger.models.openai import check_base_url
from chatledger.stores.urls import check_url, parse_duration
from chatledger.windows import Window, last, within_tokens

PREFIX = "CHATLEDGER_"
DEVELOPMENT_VARIABLES = re.compile(r"CHATLEDGER_(PYTHON|WRITE_DOCS|TEST_\w+)")
"""The variables that scripts and tests of this project read; servers ignore them."""
MAX_TURNS_A_MINUTE = 200
"""The most turns whose times fit into one write unit of DynamoDB."""
_ORIGIN = re.compile(r"\*|https?://[a-z0-9-]+(\.[a-z0-9-]+)*(:[1-9]\d{0,4})?", re.ASCII)
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\]", re.ASCII)
_USER_POOL = re.compile(
    r"arn:aws(?:-us-gov)?:cognito-idp:([a-z0-9-]+):\d{12}:userpool/(\1_[A-Za-z0-9]+)"
)

_CLIENT_ID = re.compile(r"[\x20-\x7e]{1,256}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")

# Where a setting applies, for the table in docs/running.md.
EVERYWHERE = "everywhere"
_SERVE = {"place": "`chatledger serve`"}
_ASGI = {"place": "`chatledger serve` and other ASGI servers"}
_HOSTS = {"place": "everywhere but behind API Gateway"}

_Limit = Annotated[int, Meta(ge=1, le=1_000_000_000)]


def _parse_store(url: str) -> str:
    check_url(url)
    return url


def _parse_model(name: str) -> str:
    check_model_name(name)
    return name


def _parse_base_url(url: str) -> str:
    check_base_url(url)
    return url


def _parse_limit(text: str) -> int | None:
    return None if text == "off" else convert(text, int, strict=False)


def _parse_time_limit(text: str) -> timedelta | None:
    return None if text == "off" else parse_duration(text)


def _parse_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parse_hosts(text: str) -> list[str]:
    hosts = [name.lower() for name in _parse_names(text)]
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise InvalidArgument(
                f"{host!r} is not a host name as in a Host header; write one such as chat.example, "
                "without a scheme, a port or a path."
            )
    return hosts


def _parse_proxies(text: str) -> list[str]:
    proxies = _parse_names(text)
    for proxy in proxies:
        try:
            ip_network(proxy)
        except ValueError:
            raise InvalidArgument(
                f"{proxy!r} is not an address or a network; write one such as 127.0.0.1 or "
                "10.0.0.0/8."
            ) from None
    return proxies


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


def _parse_client_id(id: str) -> str:
    if not _CLIENT_ID.fullmatch(id):
        raise InvalidArgument("it must be 1 to 256 printable ASCII characters.")
    return id


def _parse_scope(text: str) -> str:
    scopes = text.split()
    if "openid" not in scopes or not all(map(_SCOPE.fullmatch, scopes)):
        raise InvalidArgument(
            "it must be scopes separated by blanks, one of them openid; write one such as "
            "openid profile."
        )
    return " ".join(scopes)


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
        str,
        Meta(
            description="the address to listen on; without sign-in, a loopback address",
            extra=_HOSTS,
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="a port number, 0 to 65535; 0 picks any free port",
            extra=_SERVE,
        ),
    ] = 8000
    max_connections: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(
            description="the most connections that may be open at once, 1 to 1,000,000",
            extra=_SERVE | {"default": "as many as the open files allow, at most 4,096"},
        ),
    ] = None
    public_hosts: Annotated[
        list[str],
        _parse_hosts,
        Meta(
            description="the host names under which a proxy serves the chatbot, comma-separated",
            extra=_HOSTS,
        ),
    ] = []
    trusted_proxies: Annotated[
        list[str],
        _parse_proxies,
        Meta(
            description="the addresses and networks of proxies whose X-Forwarded-For is believed, "
            "comma-separated",
            extra=_SERVE,
        ),
    ] = []
    store: Annotated[str, _parse_store, Meta(description="the URL of a store")] = (
        "sqlite:///chatledger.db"
    )
    model: Annotated[str, _parse_model, Meta(description="the name of a model")] = "offline"
    models: Annotated[
        list[str],
        _parse_models,
        Meta(description="the names of more models that a request may ask for, comma-separated"),
    ] = []
    base_url: Annotated[
        str | None,
        _parse_base_url,
        Meta(description="the base URL of the server of openai-compatible models"),
    ] = None
    model_api_key: Annotated[
        str | None, Meta(description="the key of the server of openai-compatible models")
    ] = None
    allow_origin: Annotated[
        str | None,
        _parse_origin,
        Meta(description="the site whose pages may call the API, such as https://chat.example"),
    ] = None
    system_prompt: Annotated[
        str | None, Meta(description="the instructions that the model gets in every conversation")
    ] = None
    allow_system_prompt: Annotated[
        bool,
        Meta(
            description="true if requests may add to CHATLEDGER_SYSTEM_PROMPT, which always comes "
            "first, else false"
        ),
    ] = False
    window: Annotated[
        int,
        Meta(
            ge=1, le=1000, description="the number of last messages that the model sees, 1 to 1,000"
        ),
    ] = 20
    window_tokens: Annotated[
        _Limit | None,
        _parse_limit,
        Meta(
            description="the most tokens of earlier messages and the new one that the model sees, "
            "such as 32000, or off"
        ),
    ] = 32_000
    max_tokens: Annotated[
        _Limit | None,
        _parse_limit,
        Meta(description="the most tokens that the model may put in a reply, such as 4096, or off"),
    ] = 4_096
    expire_after: Annotated[
        timedelta | None,
        parse_duration,
        Meta(
            description="the time a conversation lives after its last activity, such as 30d",
            extra={"default": "never"},
        ),
    ] = None
    lease: Annotated[
        timedelta,
        parse_duration,
        Meta(
            description="the time after which a turn whose server crashed no longer blocks its "
            "conversation, such as 10s"
        ),
    ] = DEFAULT_LEASE
    time_limit: Annotated[
        timedelta | None,
        _parse_time_limit,
        Meta(description="the longest time that a turn may take, such as 2m, or off"),
    ] = timedelta(minutes=2)
    turns_at_once: Annotated[
        _Limit | None,
        _parse_limit,
        Meta(description="the most turns of one user that a process runs at once, or off"),
    ] = 3
    all_turns_at_once: Annotated[
        _Limit | None,
        _parse_limit,
        Meta(description="the most turns of all users that a process runs at once, or off"),
    ] = 200
    turns_a_minute: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TURNS_A_MINUTE)] | None,
        _parse_limit,
        Meta(
            description=f"the most turns of one user in any minute, 1 to {MAX_TURNS_A_MINUTE}, "
            "or off"
        ),
    ] = 20
    tokens_a_day: Annotated[
        _Limit | None,
        _parse_limit,
        Meta(
            description="the tokens that one user may spend from midnight to midnight UTC, input "
            "and replies together, or off"
        ),
    ] = 500_000
    bytes_a_day: Annotated[
        _Limit | None,
        _parse_limit,
        Meta(
            description="the bytes of messages and replies that the turns of one user may store "
            "from midnight to midnight UTC, or off"
        ),
    ] = 5_000_000
    conversations: Annotated[
        _Limit | None,
        _parse_limit,
        Meta(
            description="the most conversations that a signed-in user may have, and without "
            "sign-in those that an address may start in a day, or off"
        ),
    ] = 1_000
    offline_pace: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="the seconds between two pieces of the offline model's reply, 0 to 60",
        ),
    ] = 0.02
    allow_unauthenticated: Annotated[
        bool,
        Meta(
            description="true if anyone who reaches the server may use it without sign-in, else "
            "false"
        ),
    ] = False
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
        str | None,
        Meta(
            description="the URL of the issuer's keys (a JWK Set)",
            extra={"default": "`<issuer>/.well-known/jwks.json`"},
        ),
    ] = None
    cognito_user_pool: Annotated[
        str | None,
        _parse_user_pool,
        Meta(description="the ARN of the Amazon Cognito user pool that issues the tokens"),
    ] = None
    oidc_client_id: Annotated[
        str | None,
        _parse_client_id,
        Meta(
            description="the id of the page as a client of the issuer, at which it signs users in"
        ),
    ] = None
    oidc_scope: Annotated[
        str,
        _parse_scope,
        Meta(description="the scopes that the page asks the issuer for, separated by blanks"),
    ] = "openid"

    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="text or json, the form of the lines of the log", extra=_ASGI),
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(
            description="debug, info, warning or error, the lowest level that is logged",
            extra=_ASGI,
        ),
    ] = "info"

    metrics: Annotated[
        Literal["local", "public"],
        Meta(
            description="public if anyone who reaches the server may read /metrics, else local",
            extra=_ASGI,
        ),
    ] = "local"

    @property
    def chat_window(self) -> Window:
        """The window with both of its limits: the number of messages, and that of tokens."""
        if self.window_tokens is None:
            return last(self.window)
        return within_tokens(self.window_tokens, reads=self.window)

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
        InvalidArgument: A variable is not valid, or is not a setting; the message names it.
    """
    _check_names(environment)
    values = {}
    for field in fields(Settings):
        name = f"{PREFIX}{field.name}".upper()
        if text := environment.get(name):
            values[field.name] = _parse(field, name, text)
    settings = Settings(**values)
    _check_models(settings)
    _check_sign_in(settings)
    return settings


def _check_names(environment: Mapping[str, str]) -> None:
    known = [field.name.upper() for field in fields(Settings)]
    for name in sorted(environment):
        is_ours = name.startswith(PREFIX) and not DEVELOPMENT_VARIABLES.fullmatch(name)
        if is_ours and environment[name] and name.removeprefix(PREFIX) not in known:
            nearest = get_close_matches(name.removeprefix(PREFIX), known, n=1)
            advice = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "unset it."
            raise InvalidArgument(f"{name} is not a setting; {advice}")


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


def _check_models(settings: Settings) -> None:
    compatible = [name for name in (settings.model, *settings.models) if is_compatible(name)]
    if compatible and not settings.base_url:
        raise InvalidArgument(missing_base_url(compatible[0]))
    for name in ("base_url", "model_api_key"):
        if getattr(settings, name) and not compatible:
            # An operator who sets this variable expects that messages go to that server.
            variable = f"{PREFIX}{name}".upper()
            raise InvalidArgument(
                f"{variable} is set, but no model is an openai-compatible one; name it "
                f"openai-compatible:<model> in CHATLEDGER_MODEL, or unset {variable}."
            )


def _check_sign_in(settings: Settings) -> None:
    if settings.auth == "jwt":
        if not settings.issuer:
            raise InvalidArgument(
                "CHATLEDGER_JWT_ISSUER is missing; CHATLEDGER_AUTH=jwt needs it, or "
                "CHATLEDGER_COGNITO_USER_POOL."
            )
        if not settings.jwt_audience:
            raise InvalidArgument(
                "CHATLEDGER_JWT_AUDIENCE is missing; CHATLEDGER_AUTH=jwt needs it."
            )
        if settings.jwt_issuer not in (None, settings.issuer):
            raise InvalidArgument(
                "CHATLEDGER_JWT_ISSUER is not the issuer of CHATLEDGER_COGNITO_USER_POOL; set only "
                "one of them."
            )
        if settings.oidc_scope != Settings().oidc_scope and not settings.oidc_client_id:
            raise InvalidArgument(
                "CHATLEDGER_OIDC_SCOPE is set, but CHATLEDGER_OIDC_CLIENT_ID is not; set it too, "
                "or unset CHATLEDGER_OIDC_SCOPE."
            )
        return
    if settings.allow_origin == "*":
        raise InvalidArgument(
            "CHATLEDGER_ALLOW_ORIGIN is *, and without sign-in every page that a user opens could "
            "read and delete every conversation. Name one site, or turn on sign-in with "
            "CHATLEDGER_AUTH."
        )
    names = (
        *("jwt_issuer", "jwt_audience", "jwt_jwks_url", "cognito_user_pool"),
        *("oidc_client_id", "oidc_scope"),
    )
    for name in names:
        if getattr(settings, name) not in (None, [], getattr(Settings(), name)):
            # An operator who sets this variable expects that users have to sign in.
            variable = f"{PREFIX}{name}".upper()
            raise InvalidArgument(
                f"{variable} is set, but CHATLEDGER_AUTH is not jwt; set CHATLEDGER_AUTH=jwt, or "
                f"unset {variable}."
            )
