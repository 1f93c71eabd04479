"""A check of responses and events against the description of the API, ``/openapi.json``."""

import re
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from chatledger.http.api import is_public
from chatledger.http.openapi import describe_api

Json = dict[str, Any]


class Description:
    """An OpenAPI document, to which responses are compared.

    Clients must accept fields that they do not know, but a server must not send any that are not
    described: each object must have exactly the described ones.
    """

    def __init__(self, document: Json) -> None:
        self._paths: Json = document["paths"]
        self._elsewhere: Json = document["components"]["responses"]
        schemas = {
            name: schema | {"additionalProperties": False}
            for name, schema in document["components"]["schemas"].items()
        }
        self._components = {"components": {"schemas": schemas}}

    def check_response(self, response: httpx.Response) -> None:
        """Assert that the response is described, unless its path needs no description."""
        method, path = response.request.method, response.request.url.raw_path.decode()
        if method == "OPTIONS" and "Access-Control-Request-Method" in response.request.headers:
            return  # a CORS preflight
        expected = self._responses(method, path.partition("?")[0])
        if expected is None:
            return
        request = f"{method} {path}"
        status = str(response.status_code)
        assert status in expected, f"{request} is {status}: {response.read().decode()}"
        for name, header in expected[status]["headers"].items():
            value = response.headers.get(name)
            assert value or not header.get("required"), f"{request} is {status} without {name}"
            if value and header["schema"]["type"] == "integer":
                self.check(int(value), header["schema"])
        assert ("X-Request-ID" in expected[status]["headers"]) == (
            "X-Request-ID" in response.headers
        )
        if method != "HEAD" and "content" not in expected[status]:
            assert response.read() == b""
        elif method != "HEAD":
            kind = response.headers["Content-Type"].partition(";")[0]
            assert kind in expected[status]["content"], f"{request} is {kind}"
            if kind == "application/json":
                response.read()
                self.check(response.json(), expected[status]["content"][kind]["schema"])

    def check_event(self, name: str, data: object) -> None:
        """Assert that the stream's event has the described data."""
        events = self._paths["/chat/stream"]["post"]["responses"]["200"]["content"]
        self.check(data, events["text/event-stream"]["x-events"][name])

    def check(self, value: object, schema: Json) -> None:
        Draft202012Validator(schema | self._components).validate(value)

    def _responses(self, method: str, path: str) -> Json | None:
        """Return the responses to the request by status, or None if the path is not described."""
        method = "get" if method == "HEAD" else method.lower()
        templates = [
            template
            for template in self._paths
            if re.fullmatch(re.sub(r"\{\w+\}", ".+", template), path)
        ]
        if len(templates) > 1 and method not in self._paths[templates[0]]:
            templates = [each for each in templates if each != "/conversations/import"]
        if templates:
            operation = self._paths[templates[0]].get(method)
            if operation is None:
                return {"405": self._elsewhere["MethodNotAllowed"]}
            responses: Json = operation["responses"]
            return responses
        # The page's files, /metrics, /docs and the description itself are public.
        return None if is_public(path) else {"404": self._elsewhere["NoSuchRoute"]}


@cache
def described_events() -> Description:
    """Return the description that every server has of its events."""
    return Description(describe_api(has_sign_in=False))
