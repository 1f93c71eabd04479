"""The description of the HTTP API for programs: an OpenAPI 3.1 document."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec.json import schema_components

import chatledger
from chatledger.conversations import MAX_ID_BYTES, MAX_IDEMPOTENCY_KEY_BYTES, MAX_REVISION
from chatledger.errors import (
    AlreadyExists,
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
from chatledger.http.examples import (
    CONVERSATION_ID,
    EXAMPLES,
    FIELDS,
    MARKDOWN,
    PARAMETERS,
    RESPONSES,
    SENTENCES,
    STREAM,
)
from chatledger.http.imports import ImportedMessage, ImportRequest

JSON = "application/json"
SIGN_IN_PATH = "/sign-in"
HTML = "text/html"
EVENTS: Mapping[str, type[Any]] = {
    "start": bodies.StartData,
    "piece": bodies.PieceData,
    "done": bodies.DoneData,
    "error": ErrorBody,
}
"""The types of the data of the events in a streamed reply."""
# The errors of the routes -------------------------------------------------------------------------

Errors: TypeAlias = Sequence[type[ChatledgerError] | tuple[int, str]]
"""Kinds of errors, and the statuses and codes of those that are made as ``ApiError``."""

_ANY_REQUEST: Errors = [(400, "unknown_host"), (500, "internal_error")]
_CONNECTION: Errors = [
    (400, "malformed_request"),
    (408, "request_timeout"),
    (503, "server_ending"),
    (503, "too_many_connections"),
]
"""The errors of a server that accepts connections itself, which one on Lambda does not."""
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


EVENT_STREAM = "text/event-stream"
_STREAM = {
    EVENT_STREAM: {
        "schema": {
            "type": "string",
            "description": "Server-sent events with JSON as their data (x-events has the schemas): "
            "start, then any number of piece, and at the end done, or error with the body of an "
            "error response. Lines that begin with a colon are comments, sent during silences.",
        },
        "example": STREAM,
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
        *([AlreadyExists, KeyReused, *_COUNTED] if endpoint.creates else []),
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


def _text(docstring: str) -> str:
    """Return the text of a docstring, without its line breaks and its markup of code."""
    paragraphs = cleandoc(docstring).replace("``", "").split("\n\n")
    return "\n\n".join(each.replace("\n", " ") for each in paragraphs)


_PAGE = {
    "schema": {"type": "string", "description": "The chat page, for browsers."},
    "example": "<!doctype html>...",
}
_WELCOME = _public(
    "/", "welcome", "Return where the description of the API is.", bodies.WelcomeBody
)
_PROBES = ("/live", "/ready")
_ROUTES = [
    _WELCOME._replace(content=_WELCOME.content | {HTML: _PAGE}),
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
        _json(bodies.ExportBody)
        | {"text/markdown": {"schema": {"type": "string"}, "example": MARKDOWN}},
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
    "description": "A repeated request with the same key and body has no further effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY_BYTES},
    "example": "01a1fd16-order-7",
}
_CONVERSATION_ID = {
    "name": "conversation_id",
    "in": "path",
    "required": True,
    "description": "the conversation, percent-encoded",
    "schema": _ID_SCHEMA,
    "example": CONVERSATION_ID,
}
_REQUEST_ID = {
    "description": "The id of the request in the server's log.",
    "schema": {"type": "string"},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag that the conversation must still have, or * for any.",
    "schema": {"type": "string", "pattern": rf"^(\*|{api.ETAG_PATTERN})$"},
    "example": '"2.1"',
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that the client has received of the reply.",
    "schema": {"type": "string"},
    "example": "01a1fd16-04c8-71b6-94fa-e7d2608c3b5e:6",
}
_SEQ = {
    "name": "seq",
    "in": "path",
    "required": True,
    "description": "the seq of the message",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_REVISION - 1},
    "example": 1,
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


def describe_api(*, has_sign_in: bool, is_serverless: bool = False) -> dict[str, Any]:
    """Return the OpenAPI document of the server, with or without sign-in.

    It describes every route except ``/metrics``, the page's files, itself and ``/docs``, which
    shows it to people. ``HEAD``, which works wherever ``GET`` does, is not in it. A serverless
    server has no probes and no page, and does not stream.
    """
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in _ROUTES:
        if is_serverless and route.path in _PROBES:
            continue
        operation = _operation(route, has_sign_in=has_sign_in, is_serverless=is_serverless)
        paths[route.path][route.method.lower()] = operation
    responses = {
        "NoSuchRoute": _error_response(404, ["no_such_route"], is_serverless=is_serverless),
        "MethodNotAllowed": _error_response(
            405, ["method_not_allowed"], is_serverless=is_serverless
        ),
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Chatledger",
            "version": chatledger.__version__,
            "description": "Every other address returns the response NoSuchRoute (404), and every "
            "other method MethodNotAllowed (405); HEAD works wherever GET does.",
        },
        "paths": dict(paths),
        "components": {
            "schemas": _schemas(has_sign_in=has_sign_in),
            "responses": responses,
            "examples": {
                code: {"value": {"error": sentence, "code": code}}
                for code, sentence in SENTENCES.items()
            },
        },
    }
    if has_sign_in:
        document["components"]["securitySchemes"] = {
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


def _schemas(*, has_sign_in: bool) -> dict[str, Any]:
    """Return the schemas of all bodies and events by their name, with examples."""
    types = [
        *EXAMPLES,
        *EVENTS.values(),
        *(bodies.WelcomeBody, bodies.StatusBody, bodies.SignInBody),
        *(bodies.ReplyBody, bodies.ExportBody),
        ImportedMessage,
        *(endpoint.response for endpoint in ENDPOINTS),
    ]
    schemas: dict[str, Any] = schema_components(types, ref_template="#/components/schemas/{name}")[
        1
    ]
    messages = schemas[ImportRequest.__name__]["properties"]["messages"]
    messages["items"] = _reference(ImportedMessage)
    for schema in schemas.values():
        schema["description"] = _text(schema["description"])
        is_request = schema.get("additionalProperties") is False
        for name, field in schema["properties"].items():
            _explain_field(name, field, is_request=is_request)
    for kind, example in RESPONSES.items():
        schemas[kind.__name__]["examples"] = [example]
    for request, example in EXAMPLES.items():
        schema = schemas[request.__name__]
        schema["examples"] = [example]
        if has_sign_in:  # the token names the user
            if "user_id" in schema["required"]:
                schema["required"].remove("user_id")
                schema["properties"]["user_id"]["type"] = ["string", "null"]
            schema["examples"] = [{name: example[name] for name in example if name != "user_id"}]
    schemas[api.UpdateRequest.__name__]["anyOf"] = [
        {"properties": {"title": {"type": "string"}}, "required": ["title"]},
        {"properties": {"metadata": {"type": "object"}}, "required": ["metadata"]},
    ]
    return schemas


def _explain_field(name: str, field: dict[str, Any], *, is_request: bool) -> None:
    """Add to a field of a body what it means, if its name says that."""
    if name not in FIELDS:
        return
    description = field.get("description")
    if description is None:
        field["description"] = FIELDS[name]
    elif is_request:  # a description completes "The field must be"
        field["description"] = f"{FIELDS[name]} It must be {description}."


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


def _operation(route: _Route, *, has_sign_in: bool, is_serverless: bool) -> dict[str, Any]:
    is_public = api.is_public(route.path)
    errors = [*_ANY_REQUEST, *route.errors]
    errors += [] if is_serverless else _CONNECTION
    errors += _QUERY if route.query else []
    errors += _BODY if route.body else []
    errors += [(400, "invalid_request")] if route.takes_key or route.takes_version else []
    errors += [(412, "precondition_failed")] if route.takes_version else []
    errors += _SIGN_IN if has_sign_in and not is_public else []
    errors += [(503, "sign_in_unavailable")] if has_sign_in and route.path == SIGN_IN_PATH else []
    content = route.content
    if is_serverless:
        content = _content_without_streams(route)
        errors = errors if content else [*_ANY_REQUEST, (501, "no_streaming")]
        errors += _SIGN_IN if not content and has_sign_in else []
    parameters = [_parameter(each, has_sign_in=has_sign_in) for each in route.query]
    parameters += [_CONVERSATION_ID] if "{conversation_id}" in route.path else []
    parameters += [_SEQ] if "{seq}" in route.path else []
    parameters += [_IDEMPOTENCY_KEY] if route.takes_key else []
    parameters += [_IF_MATCH] if route.takes_version else []
    parameters += [_LAST_EVENT_ID] if route.path == REPLY_PATH else []
    request_id = {} if is_serverless else {"X-Request-ID": _REQUEST_ID}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            str(route.status): {
                "description": "Success.",
                "headers": {
                    **request_id,
                    **({"ETag": _ETAG} if route.has_etag else {}),
                    **route.headers,
                },
                "content": content,
            }
        }
        | {
            str(status): _error_response(status, codes, is_serverless=is_serverless)
            for status, codes in _codes_by_status(errors).items()
        },
    }
    if route.path == REPLY_PATH:
        operation["responses"]["204"] = {
            "description": "The client has the whole reply.",
            "headers": request_id,
        }
    if not content:
        del operation["responses"][str(route.status)]
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
        schema = {"type": "integer", "minimum": parameter.least, "maximum": parameter.most}
    if parameter.choices:
        schema = {"type": "string", "enum": list(parameter.choices)}
        schema["default"] = parameter.choices[0]
    if parameter.default is not None:
        schema["default"] = parameter.default
    if parameter.longest is not None:
        schema["maxLength"] = parameter.longest
    described = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "required": parameter.is_required and not (has_sign_in and parameter.name == "user_id"),
        "schema": schema,
    }
    if parameter.name in PARAMETERS:
        described["example"] = PARAMETERS[parameter.name]
    return described


def _content_without_streams(route: _Route) -> dict[str, Any]:
    """Return the media types of the response on a serverless server, which has no page either."""
    known = {HTML} if route.path == REPLY_PATH else {HTML, EVENT_STREAM}
    return {kind: content for kind, content in route.content.items() if kind not in known}


def _error_response(status: int, codes: Sequence[str], *, is_serverless: bool) -> dict[str, Any]:
    headers: dict[str, Any] = {} if is_serverless else {"X-Request-ID": _REQUEST_ID}
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
        "content": {
            JSON: {
                "schema": schema,
                "examples": {
                    code: {"$ref": f"#/components/examples/{code}"}
                    for code in codes
                    if code in SENTENCES
                },
            }
        },
    }
