"""The description of the API, ``/openapi.json``, agrees with the server and with the docs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from pydantic import BaseModel

import chatledger
from chatledger import __version__
from chatledger.chat import Chat
from chatledger.http.examples import SENTENCES
from chatledger.http.fastapi import create_app
from chatledger.http.openapi import describe_api
from chatledger.models import Models
from chatledger.stores.sqlite import AsyncSQLiteStore
from tests.http.client import (
    CHAT_ROUTES,
    IMPORT,
    PRIVATE_ROUTES,
    REQUIRED_QUERIES,
    Fields,
    expect_error,
    new_user,
    open_checking_client,
    open_client,
    open_stream,
    parse_events,
    request_route,
    send_message,
    success_body,
)
from tests.http.description import Description
from tests.http.tokens import bearer, claims, key_server, token
from tests.serving import Server, StartServer

DOCS = Path(__file__).parents[2] / "docs"
OPEN, SIGNED_IN = (describe_api(has_sign_in=has_sign_in) for has_sign_in in (False, True))
SERVERLESS, SERVERLESS_SIGNED_IN = (
    describe_api(has_sign_in=has_sign_in, is_serverless=True) for has_sign_in in (False, True)
)
BOTH = pytest.mark.parametrize("document", [OPEN, SIGNED_IN], ids=["open", "signed in"])
ALL = pytest.mark.parametrize(
    "document",
    [OPEN, SIGNED_IN, SERVERLESS, SERVERLESS_SIGNED_IN],
    ids=["open", "signed in", "serverless", "serverless, signed in"],
)
PUBLIC = {"GET /", "GET /health", "GET /live", "GET /ready", "GET /sign-in"}


def operations(document: Fields) -> dict[str, Fields]:
    """Return the operations of a document by their method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, by_method in document["paths"].items()
        for method, operation in by_method.items()
    }


def codes(response: Fields) -> set[str]:
    schema = response["content"]["application/json"]["schema"]
    return set(schema["properties"]["code"]["enum"])


def codes_by_status(document: Fields) -> dict[str, set[str]]:
    """Return the codes of all errors in a document."""
    found: dict[str, set[str]] = {
        "404": codes(document["components"]["responses"]["NoSuchRoute"]),
        "405": codes(document["components"]["responses"]["MethodNotAllowed"]),
    }
    for operation in operations(document).values():
        for status, response in operation["responses"].items():
            if status not in ("200", "201", "204"):
                found.setdefault(status, set()).update(codes(response))
    return found


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with open_checking_client(server.url) as client:
        yield client


@ALL
def test_the_description_is_valid_openapi(document: Fields) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == __version__
    validate(document, cls=OpenAPIV31SpecValidator)


@BOTH
def test_the_description_has_every_route(document: Fields) -> None:
    assert operations(document).keys() == PUBLIC | PRIVATE_ROUTES.keys()


@pytest.mark.parametrize("document", [SERVERLESS, SERVERLESS_SIGNED_IN])
def test_the_description_of_a_serverless_server_has_what_it_can_do(document: Fields) -> None:
    public = {"GET /", "GET /health", "GET /sign-in"}
    assert operations(document).keys() == public | PRIVATE_ROUTES.keys()
    streamed = operations(document)["POST /chat/stream"]["responses"]
    assert "200" not in streamed
    assert codes(streamed["501"]) == {"no_streaming"}
    for route, operation in operations(document).items():
        for response in operation["responses"].values():
            kinds = response.get("content", {}).keys()
            assert ("text/event-stream" in kinds) <= route.endswith("/reply")
            assert "text/html" not in kinds


@ALL
def test_every_operation_has_examples_that_are_valid(document: Fields) -> None:
    description = Description(document)
    for route, operation in operations(document).items():
        contents = [response.get("content", {}) for response in operation["responses"].values()]
        if "requestBody" in operation:
            contents.append(operation["requestBody"]["content"])
        for content in contents:
            for media_type in content.values():
                examples = examples_of(media_type, document)
                assert examples, route
                for example in examples:
                    description.check(example, media_type["schema"])
        for parameter in operation.get("parameters", []):
            if parameter.get("required") or "example" in parameter:
                description.check(parameter["example"], parameter["schema"])


def examples_of(media_type: Fields, document: Fields) -> list[Any]:
    """Return the examples of a body: its own, or those of its schema."""
    if "example" in media_type:
        return [media_type["example"]]
    if "examples" in media_type:
        code_enum = media_type["schema"]["properties"]["code"]["enum"]
        assert list(media_type["examples"]) == code_enum, "every code has an example"
        named = document["components"]["examples"]
        return [
            named[each["$ref"].rpartition("/")[2]]["value"]
            for each in media_type["examples"].values()
        ]
    name = media_type["schema"]["$ref"].rpartition("/")[2]
    examples: list[Any] = document["components"]["schemas"][name]["examples"]
    return examples


def test_the_example_of_a_stream_has_the_described_events() -> None:
    content = operations(OPEN)["POST /chat/stream"]["responses"]["200"]["content"]
    events = list(parse_events(content["text/event-stream"]["example"]))
    assert [name for name, _ in events] == ["start", "piece", "piece", "done"]


def test_every_field_of_a_body_is_explained() -> None:
    for name, schema in OPEN["components"]["schemas"].items():
        for field, described in schema["properties"].items():
            assert described.get("description"), f"{name}.{field}"


def test_the_sentences_of_errors_in_the_examples_are_those_of_the_server(
    client: httpx.Client,
) -> None:
    sentences = {
        node.value
        for file in Path(chatledger.__file__).parent.rglob("*.py")
        if file.name != "examples.py"
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for body in ({"message": " "}, {"message": "Hi", "model_id": "x"}, {"message": "x" * 300_000}):
        sentences.add(client.post("/chat", json=body).json()["error"])
    assert set(SENTENCES.values()) <= sentences


def test_without_sign_in_the_server_publishes_the_description_without_tokens(
    client: httpx.Client,
) -> None:
    assert success_body(client.get("/openapi.json")) == OPEN
    assert "security" not in OPEN
    assert codes_by_status(OPEN).keys().isdisjoint({"401"})


def test_with_sign_in_every_private_route_needs_a_token_and_no_user_id(
    start_server: StartServer,
) -> None:
    with key_server() as issuer:
        server = start_server(**issuer.settings)
        with open_checking_client(server.url) as client:
            assert success_body(client.get("/openapi.json")) == SIGNED_IN
            for route, operation in operations(SIGNED_IN).items():
                is_public = operation.get("security") == []
                assert is_public == (route in PUBLIC)
                response = request_route(client, route, PRIVATE_ROUTES.get(route))
                assert response.status_code == (200 if is_public else 401)
            assert SIGNED_IN["security"] == [{"token": []}]
            (scheme,) = SIGNED_IN["components"]["securitySchemes"].values()
            assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
            client.headers["Authorization"] = bearer(token(claims(new_user())))
            assert client.get("/conversations").status_code == 200
            for name in ("ChatRequest", "CreateRequest"):
                schema = SIGNED_IN["components"]["schemas"][name]
                assert "user_id" not in schema["required"]
                assert not any("user_id" in example for example in schema["examples"])
            unnamed = {"user_id": None}
            success_body(client.post("/conversations", json=unnamed))
            Draft202012Validator(SIGNED_IN["components"]["schemas"]["CreateRequest"]).validate(
                unnamed
            )
    assert not any(
        parameter["required"] and parameter["name"] != "q"
        for operation in operations(SIGNED_IN).values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    )


def test_an_imported_message_may_count_only_tokens_of_known_kinds() -> None:
    usage = Draft202012Validator(
        OPEN["components"]["schemas"]["ImportedMessage"]["properties"]["usage"]
    )
    assert usage.is_valid({"input_tokens": 7, "output_tokens": 2})
    assert not usage.is_valid({"tokens": 9})


@BOTH
def test_the_codes_of_the_description_are_those_of_the_docs(document: Fields) -> None:
    section = (DOCS / "http.md").read_text().partition("\n## Errors\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", section, re.MULTILINE)
    documented = {status: set(re.findall(r"`(\w+)`", text)) for status, text in rows}
    # Answers to CORS preflights and of serverless servers.
    documented["400"] -= {"cors_refused"}
    documented.pop("501")
    if document is OPEN:
        documented.pop("401")
        documented["403"] -= {"wrong_user"}
        documented["503"] -= {"sign_in_unavailable"}
    assert codes_by_status(document) == documented


@pytest.mark.parametrize("route", [*CHAT_ROUTES, "POST /conversations", IMPORT])
def test_the_server_accepts_the_example_of_a_request(client: httpx.Client, route: str) -> None:
    body = operations(OPEN)[route]["requestBody"]["content"]["application/json"]["schema"]
    kind = body["$ref"].rpartition("/")[2]
    (example,) = OPEN["components"]["schemas"][kind]["examples"]
    Description(OPEN).check(example, body)
    assert request_route(client, route, example, user_id="bob").is_success


def _values(parameter: Fields) -> list[Any]:
    """Return values of a query's parameter, at the edges of its range; None leaves it out."""
    if "enum" in parameter["schema"]:
        return [None, "", *parameter["schema"]["enum"], "pdf"]
    most = parameter["schema"].get("maximum")
    if most is not None:
        return [None, 0, 1, most, most + 1]
    longest = parameter["schema"].get("maxLength")
    return [None, ""] if longest is None else [None, "", "x" * (longest + 1)]


QUERIES = [
    pytest.param(route, parameter, value, id=f"{route} {parameter['name']}={str(value)[:20]}")
    for route, operation in operations(OPEN).items()
    for parameter in operation.get("parameters", [])
    if parameter["in"] == "query"
    for value in _values(parameter)
]


@pytest.mark.parametrize(("route", "parameter", "value"), QUERIES)
def test_the_server_accepts_those_parameters_that_the_description_allows(
    client: httpx.Client, route: str, parameter: Fields, value: Any
) -> None:
    user, name = new_user(), parameter["name"]
    created = send_message(client, "Hi", user_id=user)
    query = {"user_id": user} | REQUIRED_QUERIES.get(route, {})
    query.pop(name, None)
    if value is not None:
        query[name] = str(value)
    is_allowed = (
        not parameter["required"]
        if value is None
        else Draft202012Validator(parameter["schema"]).is_valid(value)
    )
    body = PRIVATE_ROUTES[route]
    response = request_route(client, route, body, created["conversation_id"], **query)
    if is_allowed:
        assert response.is_success, response.text
    else:
        expect_error(response, 400, 422)


def test_the_defaults_are_those_of_the_server(client: httpx.Client) -> None:
    user = new_user()
    parameters = operations(OPEN)["GET /conversations"]["parameters"]
    (limit,) = (each["schema"] for each in parameters if each["name"] == "limit")
    for _ in range(limit["default"] + 1):
        success_body(client.post("/conversations", json={"user_id": user}))
    listed = success_body(client.get("/conversations", params={"user_id": user}))
    assert len(listed["conversations"]) == limit["default"]


def test_the_key_of_a_request_is_described_where_it_is_accepted() -> None:
    described = {
        route
        for route, operation in operations(OPEN).items()
        if any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", []))
    }
    assert described == {route for route in operations(OPEN) if route.startswith("POST ")}


def test_the_path_names_the_conversation() -> None:
    for route, operation in operations(OPEN).items():
        names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
        assert names == [name for name in ("conversation_id", "seq") if f"{{{name}}}" in route]


class Feedback(BaseModel):
    stars: int


def test_a_route_that_the_operator_adds_is_described_too(tmp_path: Path) -> None:
    models = Models(["offline"])
    store = AsyncSQLiteStore(tmp_path / "chatledger.db")  # it is not opened
    app = create_app(Chat(store, models.get()), models)
    router = APIRouter()

    @router.post("/feedback/{conversation_id}")
    async def give_feedback(conversation_id: str, feedback: Feedback) -> Feedback:
        return feedback

    app.include_router(router)
    document = app.openapi()
    validate(document, cls=OpenAPIV31SpecValidator)
    assert operations(document).keys() - operations(OPEN).keys() == {
        "POST /feedback/{conversation_id}"
    }
    assert document["components"]["schemas"]["Feedback"]["required"] == ["stars"]
    paths = {path: document["paths"][path] for path in OPEN["paths"]}
    assert document["info"] == OPEN["info"]
    assert paths == OPEN["paths"]


# The check of responses itself --------------------------------------------------------------------


def changed(client: httpx.Client, path: str, **changes: Any) -> httpx.Response:
    """Return the response for the path with other attributes."""
    response = client.get(path)
    parts: dict[str, Any] = {
        "status_code": response.status_code,
        "headers": response.headers,
        "content": response.content,
        "request": response.request,
    }
    return httpx.Response(**parts | changes)


def test_a_response_that_is_not_described_is_found(server: Server) -> None:
    description = Description(OPEN)
    headers = {"Content-Type": "application/json", "X-Request-ID": "1"}
    with open_client(server.url) as client:
        description.check_response(changed(client, "/health"))
        for changes in (
            {"status_code": 418},
            {"headers": headers | {"Content-Type": "text/plain"}},
            {"headers": {"Content-Type": "application/json"}},
            {"content": b'{"error": "It is late.", "code": "late"}', "status_code": 503},
        ):
            with pytest.raises(AssertionError):
                description.check_response(changed(client, "/health", **changes))
        for content in (b"{}", b'{"status": 1}', b'{"status": "healthy", "since": "noon"}'):
            with pytest.raises(ValidationError):
                description.check_response(
                    changed(client, "/health", content=content, headers=headers)
                )


def test_an_event_that_is_not_described_is_found(client: httpx.Client) -> None:
    with open_stream(client, message="Hi") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
    description = Description(OPEN)
    description.check_event("piece", {"text": "Hello"})
    with pytest.raises(ValidationError):
        description.check_event("piece", {"text": "Hello", "index": 0})
    with pytest.raises(KeyError):
        description.check_event("thought", {"text": "Hello"})
