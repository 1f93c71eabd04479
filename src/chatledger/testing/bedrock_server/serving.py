"""The HTTP side: reads a request, has it checked, and has it answered."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from chatledger.testing.bedrock_server.answers import Answer
from chatledger.testing.bedrock_server.authorizing import Sent, authorize
from chatledger.testing.bedrock_server.connections import Connection, error
from chatledger.testing.bedrock_server.counting import PromptCache
from chatledger.testing.bedrock_server.models import BedrockModel, named
from chatledger.testing.bedrock_server.playing import Circumstances, steps
from chatledger.testing.bedrock_server.refusing import Refused
from chatledger.testing.bedrock_server.requests import Request
from chatledger.testing.bedrock_server.rules import Asked, check
from chatledger.testing.bedrock_server.shapes import check_shape

MOST_BYTES = 25 * 1024 * 1024

_TARGET = re.compile(r"/model/([^/?]+)/(converse|converse-stream)(?:\?.*)?")
_OPERATIONS = {"converse": "Converse", "converse-stream": "ConverseStream"}


@dataclass(slots=True)
class Service:
    """What the server is to the requests: what it knows, and what it answers."""

    models: Sequence[BedrockModel]
    applications: Mapping[str, str]
    secrets: Mapping[str, str]
    api_keys: frozenset[str]
    answer: Callable[[Request], Answer]
    arrived: Callable[[Request], None]
    left: Callable[[Request], None]
    pace: float = 0.0
    closing: bool = False
    asked: int = 0
    cache: PromptCache = field(default_factory=PromptCache)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_route("*", "/{anything:.*}", self.handle)
        return app

    async def handle(self, http: web.Request) -> web.StreamResponse:
        self.asked += 1
        number = self.asked
        target = _TARGET.fullmatch(http.raw_path)
        if target is None or http.method != "POST":
            unknown = Refused("Unknown operation.", code="UnknownOperationException")
            return error(unknown, number)
        request = Request(
            _OPERATIONS[target[2]],
            unquote(target[1]),
            {name.lower(): value for name, value in http.headers.items()},
        )
        self.arrived(request)
        connection = Connection(http, number)
        try:
            try:
                played = steps(*await self._agreed(http, request, number))
                if request.streams:
                    return await connection.stream(played)
                return await connection.say(played)
            except Refused as refused:
                request.error = refused.code
                return error(refused, number)
        except (asyncio.CancelledError, ConnectionResetError):
            if not (self.closing or connection.broken_off):
                request.abandoned.set()
            raise
        finally:
            request.ended.set()
            self.left(request)

    async def _agreed(
        self, http: web.Request, request: Request, number: int
    ) -> tuple[Answer, Circumstances]:
        """What is answered to a request that passes all checks; else raises ``Refused``."""
        try:
            content = await http.read()
        except web.HTTPRequestEntityTooLarge:
            too_large = "Request size is too large."
            raise Refused(too_large, code="RequestEntityTooLargeException") from None
        body = _parsed(content)
        if isinstance(body, dict):
            request.body = body
        sent = Sent(http.method, http.raw_path, request.headers, content)
        authorize(sent, secrets=self.secrets, api_keys=self.api_keys)
        _check_media_type(http)
        model = named(request.model_id, self.models, applications=self.applications)
        if not isinstance(body, dict):
            raise Refused("Unexpected token or end of input.", code="SerializationException")
        check_shape(request.operation, body)
        check(Asked(body, model, streams=request.streams))
        taken = self.cache.taken(body, model)
        return self.answer(request), Circumstances(taken, self.pace, number)


def _check_media_type(http: web.Request) -> None:
    """Not documented by AWS; its protocol asks servers for it, and aiohttp's default is another.

    https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html#content-type
    """
    if http.content_type != "application/json":
        raise Refused(
            f"The content type must be application/json, not {http.content_type}.",
            code="UnsupportedMediaTypeException",
        )


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
