"""The HTTP side of the server: parse and check each request, then respond to it."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from chatledger.testing.bedrock_server.authentication import SignedRequest, authenticate
from chatledger.testing.bedrock_server.errors import BedrockError
from chatledger.testing.bedrock_server.models import BedrockModel, find_model
from chatledger.testing.bedrock_server.requests import Request
from chatledger.testing.bedrock_server.response_steps import ResponseContext, response_steps
from chatledger.testing.bedrock_server.response_writer import ResponseWriter, error_response
from chatledger.testing.bedrock_server.rules import ConverseRequest, check_rules
from chatledger.testing.bedrock_server.script import ScriptedResponse
from chatledger.testing.bedrock_server.shapes import check_shape
from chatledger.testing.bedrock_server.tokens import PromptCache

MAX_REQUEST_BYTES = 25 * 1024 * 1024

_TARGET = re.compile(r"/model/([^/?]+)/(converse|converse-stream)(?:\?.*)?")
_OPERATIONS = {"converse": "Converse", "converse-stream": "ConverseStream"}


@dataclass(slots=True)
class RequestHandler:
    """Handle all requests of a server.

    Attributes:
        application_profiles: Model ids by the ids of application inference profiles.
        secret_keys: Secret keys by access key.
        respond: Chooses the response to a request that passed all checks.
        on_request: Called when a request arrives.
        on_end: Called when the server has finished with a request.
        pace: Seconds between the pieces of a reply.
        is_closing: True while the server shuts down, which abandons no request.
        request_count: The number of requests so far.
    """

    models: Sequence[BedrockModel]
    application_profiles: Mapping[str, str]
    secret_keys: Mapping[str, str]
    api_keys: frozenset[str]
    respond: Callable[[Request], ScriptedResponse]
    on_request: Callable[[Request], None]
    on_end: Callable[[Request], None]
    pace: float = 0.0
    is_closing: bool = False
    request_count: int = 0
    cache: PromptCache = field(default_factory=PromptCache)

    def application(self) -> web.Application:
        """Return a new application that sends every request to ``handle``."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_route("*", "/{anything:.*}", self.handle)
        return app

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Respond to one request."""
        self.request_count += 1
        number = self.request_count
        target = _TARGET.fullmatch(http.raw_path)
        if target is None or http.method != "POST":
            unknown = BedrockError("Unknown operation.", code="UnknownOperationException")
            return error_response(unknown, number)
        request = Request(
            _OPERATIONS[target[2]],
            unquote(target[1]),
            {name.lower(): value for name, value in http.headers.items()},
        )
        self.on_request(request)
        writer = ResponseWriter(http, number)
        try:
            try:
                steps = response_steps(*await self._accept(http, request, number))
                if request.is_streaming:
                    return await writer.write_stream(steps)
                return await writer.whole_response(steps)
            except BedrockError as error:
                request.error = error.code
                return error_response(error, number)
        except (asyncio.CancelledError, ConnectionResetError):
            if not (self.is_closing or writer.has_disconnected):
                request.abandoned.set()
            raise
        finally:
            request.ended.set()
            self.on_end(request)

    async def _accept(
        self, http: web.Request, request: Request, number: int
    ) -> tuple[ScriptedResponse, ResponseContext]:
        """Check the request and choose the response; raise ``BedrockError`` to reject it."""
        try:
            content = await http.read()
        except web.HTTPRequestEntityTooLarge:
            too_large = "Request size is too large."
            raise BedrockError(too_large, code="RequestEntityTooLargeException") from None
        body = _parse_json(content)
        if isinstance(body, dict):
            request.body = body
        signed = SignedRequest(http.method, http.raw_path, request.headers, content)
        authenticate(signed, secret_keys=self.secret_keys, api_keys=self.api_keys)
        _check_media_type(http)
        model = find_model(
            request.model_id, self.models, application_profiles=self.application_profiles
        )
        if not isinstance(body, dict):
            raise BedrockError("Unexpected token or end of input.", code="SerializationException")
        check_shape(request.operation, body)
        check_rules(ConverseRequest(body, model, is_streaming=request.is_streaming))
        input_tokens = self.cache.process(body, model)
        return self.respond(request), ResponseContext(input_tokens, self.pace, number)


def _check_media_type(http: web.Request) -> None:
    """Raise ``BedrockError`` unless the content type is JSON.

    AWS does not document this error, but its protocol asks servers to check. It finds clients
    that leave aiohttp's default content type, which is another one.

    https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html#content-type
    """
    if http.content_type != "application/json":
        raise BedrockError(
            f"The content type must be application/json, not {http.content_type}.",
            code="UnsupportedMediaTypeException",
        )


def _parse_json(content: bytes) -> Any:
    """Return the parsed JSON, or None if it cannot be parsed."""
    try:
        return json.loads(content)
    except ValueError:
        return None
