"""The description of the HTTP API for programs: an OpenAPI 3.1 document."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.json import schema_components

import chatledger
from chatledger.conversations import MAX_ID_BYTES, MAX_IDEMPOTENCY_KEY_BYTES
from chatledger.errors import (
    ChatledgerError,
    Conflict,
    DiskFull,
    InvalidArgument,
    KeyReused,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    ReplyNotStored,
    StoreUnavailable,
    TurnInProgress,
    UnknownModel,
)
from chatledger.http import api, bodies
from chatledger.http.endpoints import (
    ENDPOINTS,
    EXPORT_PATH,
    EXPORT_QUERY,
    REPLY_PATH,
    REPLY_QUERY,
    TURN_ENDPOINTS,
    Endpoint,
    TurnEndpoint,
    export_conversation,
)
from chatledger.http.errors import RETRY_STATUSES, ErrorBody, status_and_code
from chatledger.http.exports import FORMAT, VERSION
from chatledger.http.imports import ImportedMessage, ImportRequest

JSON = "application/json"
SIGN_IN_PATH = "/sign-in"
EVENTS: Mapping[str, type[Any]] = {
    "start": bodies.StartData,
    "piece": bodies.PieceData,
    "done": bodies.DoneData,
    "error": ErrorBody,
}
"""The types of the data of the events in a streamed reply."""
EXAMPLES: Mapping[type[api.RequestBody], dict[str, Any]] = {
    api.ChatRequest: {"message": "Hi, I am Bob", "user_id": "bob"},
    api.CreateRequest: {"user_id": "bob", "title": "A trip to Bergen"},
    ImportRequest: {
        "format": FORMAT,
        "version": VERSION,
        "title": "A trip to Bergen",
        "messages": [{"role": "user", "content": "Hi, I am Bob"}],
    },
    api.UpdateRequest: {"user_id": "bob", "title": "Two weeks in Bergen"},
    api.ForkRequest: {"user_id": "bob"},
    api.StopRequest: {"user_id": "bob"},
    api.RegenerateRequest: {"user_id": "bob"},
    api.EditRequest: {"message": "Hi, I am Robert", "user_id": "bob"},
}
"""A valid request body of each type."""

# The errors of the routes -------------------------------------------------------------------------

Errors: TypeAlias = Sequence[type[ChatledgerError] | tuple[int, str]]
"""Kinds of errors, and the statuses and codes of those that are made as ``ApiError``."""

_ANY_REQUEST: Errors = [
    (400, "malformed_request"),
    (400, "unknown_host"),
    (408, "request_timeout"),
    (500, "internal_error"),
    (503, "server_ending"),
    (503, "too_many_connections"),
]
_SIGN_IN: Errors = [
    (401, "not_signed_in"),
    (401, "invalid_token"),
    (403, "wrong_user"),
    (503, "sign_in_unavailable"),
]
_STORE: Final = (DiskFull, StoreUnavailable)
_QUERY: Errors = [(400, "invalid_request"), InvalidArgument]
_BODY: Errors = [(400, "not_json"), (400, "not_an_object"), (413, "too_large"), InvalidArgument]
_COUNTED: Errors = [
    (409, "too_many_conversations"),
    (429, "too_many_turns"),
    (429, "daily_tokens_used"),
    (429, "daily_bytes_used"),
    (429, "daily_conversations_used"),
    (429, "server_busy"),
]
_TURN: Errors = [
    (400, "invalid_request"),
    (400, "unknown_conversation"),
    (403, "system_prompt_fixed"),
    (422, "nothing_kept"),
    *_COUNTED,
    Conflict,
    KeyReused,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    ReplyNotStored,
    *_STORE,
    TurnInProgress,
    UnknownModel,
]


def _codes_by_status(errors: Errors) -> dict[int, list[str]]:
    codes = defaultdict(set)
    for error in errors:
        status, code = error if isinstance(error, tuple) else status_and_code(error)
        codes[status].add(code)
    return {status: sorted(codes[status]) for status in sorted(codes)}


_LOCATION = {
    "description": "The address of the new conversation, relative to that of the request.",
    "required": True,
    "schema": {"type": "string", "format": "uri-reference"},
}
_DISPOSITION = {
    "description": "The name of the file, which is made of the title (RFC 6266).",
    "required": True,
    "schema": {"type": "string"},
}

# The routes ---------------------------------------------------------------------------------------


def _reference(kind: type[Any]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _json(kind: type[Any]) -> dict[str, Any]:
    return {JSON: {"schema": _reference(kind)}}


_STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "Server-sent events with JSON as their data (x-events has the schemas): "
            "start, then any number of piece, and at the end done, or error with the body of an "
            "error response. Lines that begin with a colon are comments, sent during silences.",
        },
        "example": 'id: 01a1fd16-...:0\nevent: start\ndata: {"conversation_id":"01a1fd15-...",'
        '"reply_id":"01a1fd16-...","seq":1,"offset":0}\n\n'
        'event: piece\ndata: {"text":"Hello, Bob!"}\n\n'
        'event: done\ndata: {"stop_reason":"end_turn","usage":null}\n\n',
        "x-events": {name: _reference(kind) for name, kind in EVENTS.items()},
    }
}


class _Route(NamedTuple):
    method: str
    path: str
    name: str
    summary: str
    content: dict[str, Any]
    """The media types of the successful response."""
    errors: Errors = ()
    query: Sequence[api.Parameter] = ()
    body: type[api.RequestBody] | None = None
    takes_key: bool = False
    takes_version: bool = False
    has_etag: bool = False
    status: int = 200
    """The status of the successful response."""
    headers: Mapping[str, Any] = {}
    """Further headers of the successful response."""


def _public(
    path: str, name: str, summary: str, kind: type[Any], *errors: type[ChatledgerError]
) -> _Route:
    return _Route("GET", path, name, summary, _json(kind), errors)


def _turn(endpoint: TurnEndpoint) -> _Route:
    content = {} if endpoint.streams else _json(bodies.ReplyBody)
    if endpoint.streams is not False:
        content |= _STREAM
    name, summary = endpoint.steps.__name__, _summary(endpoint.steps)
    if endpoint.streams:
        name, summary = "stream_reply", "Send a message and stream the reply."
    return _Route(
        endpoint.method,
        endpoint.path,
        name,
        summary,
        content,
        _TURN,
        body=endpoint.body,
        takes_key=endpoint.takes_key,
        takes_version=endpoint.takes_version,
    )


def _from_endpoint(endpoint: Endpoint) -> _Route:
    errors: Errors = [
        *_STORE,
        *([NotFound] if "{" in endpoint.path else []),
        *(_COUNTED if endpoint.creates else []),
        *([KeyReused] if endpoint.takes_key else []),
        *([Conflict] if endpoint.body is not None else []),
        *([(400, "invalid_request"), (403, "system_prompt_fixed")] if endpoint.imports else []),
    ]
    return _Route(
        endpoint.method,
        endpoint.path,
        endpoint.steps.__name__,
        _summary(endpoint.steps),
        _json(endpoint.response),
        errors,
        endpoint.query,
        endpoint.body,
        endpoint.takes_key,
        endpoint.takes_version,
        has_etag=endpoint.has_etag,
        status=endpoint.status,
        headers={"Location": _LOCATION} if endpoint.imports else {},
    )


def _summary(function: Callable[..., Any]) -> str:
    assert function.__doc__ is not None
    return function.__doc__.partition("\n")[0]


_WELCOME = _public(
    "/", "welcome", "Return where the description of the API is.", bodies.WelcomeBody
)
_ROUTES = [
    _WELCOME._replace(content=_WELCOME.content | {"text/html": {"schema": {"type": "string"}}}),
    _public("/health", "health", "Check that the store can be read.", bodies.StatusBody, *_STORE),
    _public("/live", "live", "Check that the server runs.", bodies.StatusBody),
    _public("/ready", "ready", "Check that the store accepts writes.", bodies.StatusBody, *_STORE),
    _public(SIGN_IN_PATH, "describe_sign_in", "Return how users sign in.", bodies.SignInBody),
    *map(_turn, TURN_ENDPOINTS),
    _Route(
        "GET",
        REPLY_PATH,
        "follow_reply",
        "Stream the last reply, from the place up to which the client has it.",
        _STREAM,
        [*_STORE, NotFound, (404, "no_reply")],
        REPLY_QUERY,
    ),
    _Route(
        "GET",
        EXPORT_PATH,
        export_conversation.__name__,
        _summary(export_conversation),
        _json(bodies.ExportBody) | {"text/markdown": {"schema": {"type": "string"}}},
        [*_STORE, NotFound],
        EXPORT_QUERY,
        headers={"Content-Disposition": _DISPOSITION},
    ),
    *map(_from_endpoint, ENDPOINTS),
]

# The document -------------------------------------------------------------------------------------

_ID_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A request with the same key and body returns the stored reply.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY_BYTES},
}
_CONVERSATION_ID = {
    "name": "conversation_id",
    "in": "path",
    "required": True,
    "description": "the conversation, percent-encoded",
    "schema": _ID_SCHEMA,
}
_REQUEST_ID = {
    "description": "The id of the request in the server's log.",
    "schema": {"type": "string"},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag that the conversation must still have.",
    "schema": {"type": "string"},
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that the client has received of the reply.",
    "schema": {"type": "string"},
}
_SEQ = {
    "name": "seq",
    "in": "path",
    "required": True,
    "description": "the seq of the message",
    "schema": {"type": "integer", "minimum": 1},
}
_ETAG = {
    "description": "The version of the conversation, for If-Match.",
    "required": True,
    "schema": {"type": "string"},
}
_RETRY_AFTER = {
    "description": "The seconds after which to try again.",
    "schema": {"type": "integer", "minimum": 1},
}
_CHALLENGE = {
    "description": "The kind of sign-in, and what is wrong with the token (RFC 6750).",
    "required": True,
    "schema": {"type": "string"},
}
_ALLOW = {
    "description": "The methods that the address supports.",
    "required": True,
    "schema": {"type": "string"},
}


def describe_api(*, has_sign_in: bool) -> dict[str, Any]:
    """Return the OpenAPI document of the server, with or without sign-in.

    It describes every route except ``/metrics``, the page's files and itself. ``HEAD``, which works
    wherever ``GET`` does, is not in it.
    """
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in _ROUTES:
        paths[route.path][route.method.lower()] = _operation(route, has_sign_in=has_sign_in)
    types = [
        *EXAMPLES,
        *EVENTS.values(),
        *(bodies.WelcomeBody, bodies.StatusBody, bodies.SignInBody),
        *(bodies.ReplyBody, bodies.ExportBody),
        ImportedMessage,
        *(endpoint.response for endpoint in ENDPOINTS),
    ]
    schemas = schema_components(types, ref_template="#/components/schemas/{name}")[1]
    messages = schemas[ImportRequest.__name__]["properties"]["messages"]
    messages["items"] = _reference(ImportedMessage)
    for kind, example in EXAMPLES.items():
        schema = schemas[kind.__name__]
        schema["examples"] = [example]
        if has_sign_in:  # the token names the user
            schema["required"] = [name for name in schema["required"] if name != "user_id"]
            schema["examples"] = [{name: example[name] for name in example if name != "user_id"}]
    components: dict[str, Any] = {
        "schemas": schemas,
        "responses": {
            "NoSuchRoute": _error_response(404, ["no_such_route"]),
            "MethodNotAllowed": _error_response(405, ["method_not_allowed"]),
        },
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Chatledger",
            "version": chatledger.__version__,
            "description": "Every other address returns the response NoSuchRoute, and every other "
            "method MethodNotAllowed; HEAD works wherever GET does.",
        },
        "paths": dict(paths),
        "components": components,
    }
    if has_sign_in:
        components["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The subject of the token is the user: a user_id may be left out, "
                "and must not name another.",
            }
        }
        document["security"] = [{"token": []}]
    return document


def merge_documents(document: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document with the operations and components of both.

    Of two with the same name, it has that of ``document``.
    """
    paths, components = dict(document["paths"]), dict(document["components"])
    for path, operations in other.get("paths", {}).items():
        paths[path] = operations | paths.get(path, {})
    for kind, named in other.get("components", {}).items():
        components[kind] = named | components.get(kind, {})
    return document | {"paths": paths, "components": components}


def _operation(route: _Route, *, has_sign_in: bool) -> dict[str, Any]:
    is_public = api.is_public(route.path)
    errors = [*_ANY_REQUEST, *route.errors]
    errors += _QUERY if route.query else []
    errors += _BODY if route.body else []
    errors += [(400, "invalid_request")] if route.takes_key or route.takes_version else []
    errors += [(412, "precondition_failed")] if route.takes_version else []
    errors += _SIGN_IN if has_sign_in and not is_public else []
    errors += [(503, "sign_in_unavailable")] if has_sign_in and route.path == SIGN_IN_PATH else []
    parameters = [_parameter(each, has_sign_in=has_sign_in) for each in route.query]
    parameters += [_CONVERSATION_ID] if "{conversation_id}" in route.path else []
    parameters += [_SEQ] if "{seq}" in route.path else []
    parameters += [_IDEMPOTENCY_KEY] if route.takes_key else []
    parameters += [_IF_MATCH] if route.takes_version else []
    parameters += [_LAST_EVENT_ID] if route.path == REPLY_PATH else []
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            str(route.status): {
                "description": "Success.",
                "headers": {
                    "X-Request-ID": _REQUEST_ID,
                    **({"ETag": _ETAG} if route.has_etag else {}),
                    **route.headers,
                },
                "content": route.content,
            }
        }
        | {
            str(status): _error_response(status, codes)
            for status, codes in _codes_by_status(errors).items()
        },
    }
    if route.path == REPLY_PATH:
        operation["responses"]["204"] = {
            "description": "The client has the whole reply.",
            "headers": {"X-Request-ID": _REQUEST_ID},
        }
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(route.body)}
    if has_sign_in and is_public:
        operation["security"] = []
    return operation


def _parameter(parameter: api.Parameter, *, has_sign_in: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if parameter.name == "user_id":
        schema = _ID_SCHEMA
    if parameter.most is not None:
        schema = {"type": "integer", "minimum": 1, "maximum": parameter.most}
    if parameter.choices:
        schema = {"type": "string", "enum": list(parameter.choices)}
        schema["default"] = parameter.choices[0]
    if parameter.default is not None:
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "required": parameter.is_required and not has_sign_in,
        "schema": schema,
    }


def _error_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-ID": _REQUEST_ID}
    if status in RETRY_STATUSES:
        headers["Retry-After"] = _RETRY_AFTER | {"required": True}
    if "turn_in_progress" in codes:
        headers["Retry-After"] = _RETRY_AFTER
    if status == 401:
        headers["WWW-Authenticate"] = _CHALLENGE
    if status == 405:
        headers["Allow"] = _ALLOW
    schema = _reference(ErrorBody) | {"properties": {"code": {"enum": list(codes)}}}
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}.",
        "headers": headers,
        "content": {JSON: {"schema": schema}},
    }
