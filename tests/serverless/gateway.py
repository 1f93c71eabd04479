"""A simulated API Gateway, without a socket: it turns HTTP requests into Lambda events.

The events are those of a REST API's proxy integration: the path as it was sent, the query decoded,
every header, and the body as text or in base64.
"""

import base64
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from threading import local
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pytest
from chalice.app import Chalice

from chatledger.stores import urls
from chatledger.stores.contract import Store
from chatledger.stores.urls import open_store
from tests.serving import NO_LIMITS

SERVERLESS = Path(__file__).parents[2] / "serverless"
LAMBDA_BYTES = 6 * 1024 * 1024
"""Lambda's limit for the response of a function."""


class Context:
    """The context of an invocation, with ``seconds`` left until the function's timeout."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.aws_request_id = str(uuid4())
        self._deadline = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))


@dataclass
class Gateway(httpx.BaseTransport):
    """A transport for ``httpx`` that calls the function.

    Each thread is a container of its own, which ``new_app`` starts and which handles one request at
    a time.
    """

    new_app: Callable[[], Chalice]
    stage: str | None = None
    """The stage in front of every path; None for an API with a custom domain name."""
    in_base64: bool = False
    """True to send bodies in base64, as API Gateway does for binary media types."""
    context: Callable[[], object] = Context
    claims: dict[str, str] | None = None
    """The claims of the user whom Amazon Cognito has authenticated, if any."""
    _container: local = field(default_factory=local)

    @property
    def url(self) -> str:
        domain = "https://chatbot.execute-api.eu-west-1.amazonaws.com"
        return domain if self.stage is None else f"{domain}/{self.stage}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, transport=self)

    @property
    def app(self) -> Chalice:
        """The app of this thread's container."""
        if not hasattr(self._container, "app"):
            self._container.app = self.new_app()
        app: Chalice = self._container.app
        return app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        event = self.event(request)
        resource, method = event["resource"], event["httpMethod"]
        if method not in self.app.routes[resource]:
            missing = {"message": "Missing Authentication Token"}
            return httpx.Response(403, json=missing, request=request)
        response = json.dumps(self.app(event, self.context()))
        if len(response) > LAMBDA_BYTES:
            return httpx.Response(502, json={"message": "Internal server error"}, request=request)
        return _response(json.loads(response), request)

    def event(self, request: httpx.Request) -> dict[str, Any]:
        """Return the event that API Gateway makes of a request."""
        request.read()
        full_path = request.url.raw_path.decode().partition("?")[0]
        path = full_path if self.stage is None else full_path.removeprefix(f"/{self.stage}") or "/"
        resource, captured = _match_resource(path, list(self.app.routes))
        query = parse_qs(request.url.query.decode(), keep_blank_values=True)
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.raw:
            headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
        body: str | None = None
        if request.content:
            body = (
                base64.b64encode(request.content).decode()
                if self.in_base64
                else request.content.decode(errors="replace")
            )
        event = {
            "resource": resource,
            "path": path,
            "httpMethod": request.method,
            "headers": {name: values[-1] for name, values in headers.items()} or None,
            "multiValueHeaders": headers or None,
            "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
            "multiValueQueryStringParameters": query or None,
            "pathParameters": captured,
            "stageVariables": None,
            "requestContext": {
                "resourcePath": resource,
                "httpMethod": request.method,
                "path": full_path,
                "stage": self.stage or "prod",
                "protocol": "HTTP/1.1",
                "requestId": str(uuid4()),
                "identity": {"sourceIp": "203.0.113.7"},
            }
            | ({} if self.claims is None else {"authorizer": {"claims": self.claims}}),
            "body": body,
            "isBase64Encoded": self.in_base64 and body is not None,
        }
        # A function receives the event parsed from JSON.
        parsed: dict[str, Any] = json.loads(json.dumps(event))
        return parsed


def _match_resource(path: str, resources: list[str]) -> tuple[str, dict[str, str] | None]:
    """Return the resource for a path and its path parameters.

    Fixed segments win over variables; ``/{proxy+}`` takes all other paths.
    """
    parts = path.rstrip("/").split("/") if path != "/" else ["", ""]
    for resource in sorted(resources):
        names = resource.split("/")
        if len(names) != len(parts) or resource == "/{proxy+}":
            continue
        captured = {}
        for name, part in zip(names, parts, strict=True):
            if name.startswith("{"):
                captured[name[1:-1]] = part
            elif name != part:
                break
        else:
            return resource, captured or None
    return "/{proxy+}", {"proxy": path.removeprefix("/")}


def _response(response: dict[str, Any], request: httpx.Request) -> httpx.Response:
    body = response["body"]
    headers = list(response["headers"].items())
    for name, values in (response.get("multiValueHeaders") or {}).items():
        headers += [(name, value) for value in values]
    return httpx.Response(
        response["statusCode"],
        headers=headers,
        content=base64.b64decode(body) if response.get("isBase64Encoded") else body.encode(),
        request=request,
    )


@contextmanager
def app_factory(**environment: str) -> Iterator[Callable[[], Chalice]]:
    """Yield a function that starts the app of serverless/ anew, as a new container would.

    ``environment`` holds the variables that the app sees; callers have no limits but those in it.
    """
    with pytest.MonkeyPatch.context() as patch, ExitStack() as exits:

        def open_and_register(url: str, **options: Any) -> Store:
            store = open_store(url, **options)
            exits.callback(store.close)  # containers never close it
            return store

        patch.setattr(urls, "open_store", open_and_register)
        patch.setenv("AWS_EXECUTION_ENV", "AWS_Lambda_python3.12")  # Chalice adds to it
        patch.setenv("AWS_LAMBDA_FUNCTION_NAME", "chatledger-prod")
        if "CHATLEDGER_AUTH" not in environment:
            patch.setenv("CHATLEDGER_ALLOW_UNAUTHENTICATED", "true")
        for name, value in (NO_LIMITS | environment).items():
            patch.setenv(name, value)
        patch.syspath_prepend(SERVERLESS)
        patch.delitem(
            sys.modules, "chalicelib.chatbot", raising=False
        )  # it may have imported the original open_store
        yield lambda: run_path(str(SERVERLESS / "app.py"))["app"]
