"""API Gateway as a Lambda function sees it, without a socket: requests become events.

What it hands on is as its REST APIs do, by their proxy integration: the path as it was sent, the
query decoded, every header, and a body as text or in base64.
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

SERVERLESS = Path(__file__).parents[2] / "serverless"
LAMBDA_BYTES = 6 * 1024 * 1024
"""The longest answer that a function may give."""


class Context:
    """What Lambda tells a function about one call."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.aws_request_id = str(uuid4())
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._end - time.monotonic()) * 1000))


@dataclass
class Gateway(httpx.BaseTransport):
    """A transport for ``httpx``. Each thread is a container of its own, which has one request at a
    time, and ``make`` is its start."""

    make: Callable[[], Chalice]
    stage: str | None = None
    """Its name stands in front of every path, where there is no domain name of one's own."""
    in_base64: bool = False
    context: Callable[[], object] = Context
    claims: dict[str, str] | None = None
    """Of whoever Amazon Cognito has signed in."""
    _container: local = field(default_factory=local)

    @property
    def url(self) -> str:
        domain = "https://chatbot.execute-api.eu-west-1.amazonaws.com"
        return domain if self.stage is None else f"{domain}/{self.stage}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, transport=self)

    @property
    def app(self) -> Chalice:
        """The one of this thread."""
        if not hasattr(self._container, "app"):
            self._container.app = self.make()
        app: Chalice = self._container.app
        return app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        event = self.event(request)
        resource, method = event["resource"], event["httpMethod"]
        if method not in self.app.routes[resource]:
            missing = {"message": "Missing Authentication Token"}
            return httpx.Response(403, json=missing, request=request)
        answer = json.dumps(self.app(event, self.context()))
        if len(answer) > LAMBDA_BYTES:
            return httpx.Response(502, json={"message": "Internal server error"}, request=request)
        return _response(json.loads(answer), request)

    def event(self, request: httpx.Request) -> dict[str, Any]:
        request.read()
        whole = request.url.raw_path.decode().partition("?")[0]
        path = whole if self.stage is None else whole.removeprefix(f"/{self.stage}") or "/"
        resource, captured = _matched(path, list(self.app.routes))
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
                "path": whole,
                "stage": self.stage or "prod",
                "protocol": "HTTP/1.1",
                "requestId": str(uuid4()),
                "identity": {"sourceIp": "203.0.113.7"},
            }
            | ({} if self.claims is None else {"authorizer": {"claims": self.claims}}),
            "body": body,
            "isBase64Encoded": self.in_base64 and body is not None,
        }
        # As it comes to a function, which has read it from JSON.
        read: dict[str, Any] = json.loads(json.dumps(event))
        return read


def _matched(path: str, resources: list[str]) -> tuple[str, dict[str, str] | None]:
    """The resource of a path, and what it captures: names before variables, all else greedily."""
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


def _response(answer: dict[str, Any], request: httpx.Request) -> httpx.Response:
    body = answer["body"]
    headers = list(answer["headers"].items())
    for name, values in (answer.get("multiValueHeaders") or {}).items():
        headers += [(name, value) for value in values]
    return httpx.Response(
        answer["statusCode"],
        headers=headers,
        content=base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode(),
        request=request,
    )


@contextmanager
def deployed(**environment: str) -> Iterator[Callable[[], Chalice]]:
    """Starts of the project in serverless/, each as in a new container with these variables."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as ends:

        def opening(url: str, **options: Any) -> Store:
            store = open_store(url, **options)
            ends.callback(store.close)  # which containers never do
            return store

        patch.setattr(urls, "open_store", opening)
        patch.setenv("AWS_EXECUTION_ENV", "AWS_Lambda_python3.12")  # Chalice adds to it
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.syspath_prepend(SERVERLESS)
        patch.delitem(sys.modules, "chalicelib.chatbot", raising=False)  # it knows the other store
        yield lambda: run_path(str(SERVERLESS / "app.py"))["app"]
