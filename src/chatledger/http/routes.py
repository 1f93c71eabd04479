"""The routes of the endpoints on Starlette."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from chatledger.chat import Chat
from chatledger.http import api, endpoints
from chatledger.http.bodies import reply_body
from chatledger.http.endpoints import Endpoint, Given, Rules, TurnEndpoint
from chatledger.http.events import AwaitedStream, EventStream, stored_stream, wait_for_end
from chatledger.http.middleware import CALLER, CONVERSATION_ID, USER, WHILE_RUNNING
from chatledger.http.requests import RECORD, note_conversation
from chatledger.http.turns import RunningTurns
from chatledger.sansio import arun

if TYPE_CHECKING:
    from chatledger.http.metrics import Metrics

Respond = Callable[[Request], Awaitable[Response]]


class _ConversationIdConvertor(PathConvertor):
    regex = r"[\s\S]+"  # an id may contain any character, even slashes and line breaks


register_url_convertor("conversation_id", _ConversationIdConvertor())

CONVERSATION = "/conversations/{conversation_id}"
_PATHS = {
    endpoints.EXPORT_PATH,
    endpoints.REPLY_PATH,
    *(endpoint.path for endpoint in (*endpoints.ENDPOINTS, *endpoints.TURN_ENDPOINTS)),
}
_PARTS = "|".join(
    re.sub(r"{\w+}", "[^/]+", path.removeprefix(CONVERSATION))
    for path in _PATHS
    if path.startswith(f"{CONVERSATION}/")
)
_PART_OF_CONVERSATION = re.compile(f"/conversations/.+(?:{_PARTS})$".encode())
"""Finds, in a path as it was sent, that it is not that of a conversation but of a part of one."""


class EndpointRoute(Route):
    """The route of an endpoint.

    An id may end like the path of a part of a conversation, such as ``/reply``. Then its slash is
    percent-encoded, which only the path as it was sent shows.
    """

    def __init__(self, path: str, respond: Respond, methods: Sequence[str]) -> None:
        typed = path.replace("{conversation_id}", "{conversation_id:conversation_id}")
        super().__init__(typed, respond, methods=list(methods))
        self._is_conversation = path == CONVERSATION
        self._is_part = path.startswith(f"{CONVERSATION}/")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the route matches, as Starlette's routes do."""
        match, child_scope = super().matches(scope)
        if match is Match.NONE:
            return match, child_scope
        raw_path = scope.get("raw_path")
        if raw_path and (self._is_conversation or self._is_part):
            is_part = _PART_OF_CONVERSATION.search(raw_path) is not None
            if is_part is not self._is_part:
                return Match.NONE, {}
        child_scope["route"] = self
        return match, child_scope


class Routes:
    """The routes of the endpoints.

    Args:
        chat: The chat that runs the turns.
        rules: What clients may do.
        turns: The turns that this process runs.
        metrics: Counts the open streams.
    """

    def __init__(
        self, chat: Chat, rules: Rules, turns: RunningTurns, metrics: "Metrics | None"
    ) -> None:
        self._chat = chat
        self._rules = rules
        self._turns = turns
        self._metrics = metrics

    def all(self) -> list[EndpointRoute]:
        """Return the routes of all endpoints."""
        return [
            *(
                EndpointRoute(each.path, partial(self._run_turn, each), [each.method])
                for each in endpoints.TURN_ENDPOINTS
            ),
            EndpointRoute(endpoints.REPLY_PATH, self._follow_reply, ["GET"]),
            EndpointRoute(endpoints.EXPORT_PATH, self._export, ["GET"]),
            *(
                EndpointRoute(each.path, partial(self._respond, each), [each.method])
                for each in endpoints.ENDPOINTS
            ),
        ]

    async def _respond(self, endpoint: Endpoint, request: Request) -> Response:
        note_conversation(request.path_params.get("conversation_id"))
        given = await self._parse(request, endpoint)
        answer = await arun(endpoint.steps(given, **request.path_params))
        if not request.path_params:
            described = answer.body.get("conversation", answer.body)
            note_conversation(described.get("conversation_id"))  # a new one
        return JSONResponse(answer.body, endpoint.status, answer.headers)

    async def _run_turn(self, endpoint: TurnEndpoint, request: Request) -> Response:
        given = await self._parse(request, endpoint)
        body: api.TurnRequestBody = given.body
        named = getattr(body, "conversation_id", None)
        note_conversation(request.path_params.get("conversation_id", named))
        # Await the first event before responding: errors until then get their own status.
        with endpoints.explain_refusal(given):
            events = await arun(endpoint.steps(given, **request.path_params))
            scope = request.scope
            turn = await self._turns.start(events, scope[RECORD], scope[WHILE_RUNNING])
        note_conversation(turn.started.conversation_id)
        request.scope[CONVERSATION_ID] = turn.stored_in
        # Nobody could read the reply of a turn that is not stored.
        stops_turn = body.stops_turn or turn.stored_in is None
        if endpoint.streams or (endpoint.streams is None and _accepts_events(request)):
            return EventStream(turn, stops_turn=stops_turn, while_open=self._open_stream())
        await wait_for_end(turn, request.receive, stops_turn=stops_turn)
        return JSONResponse(reply_body(turn.started, turn.reply()))

    async def _export(self, request: Request) -> Response:
        """Send a conversation as a file, a page of messages at a time.

        If a page cannot be read, the response ends without its last chunk, so that no client takes
        it for complete.
        """
        id: str = request.path_params["conversation_id"]
        note_conversation(id)
        given = self._given(request, endpoints.EXPORT_QUERY)
        export = await arun(endpoints.export_conversation(given, conversation_id=id))
        first = await arun(export.next_part())

        async def parts() -> AsyncIterator[str]:
            if request.method == "HEAD":
                return
            yield first
            while not export.is_complete:
                yield await arun(export.next_part())

        return StreamingResponse(
            parts(),
            media_type=export.format.media_type,
            headers={"Content-Disposition": export.content_disposition},
        )

    async def _follow_reply(self, request: Request) -> Response:
        """Stream the last reply of the conversation, without what the client has of it already."""
        id: str = request.path_params["conversation_id"]
        note_conversation(id)
        read_last_turn = partial(
            endpoints.read_last_turn,
            self._given(request, endpoints.REPLY_QUERY),
            conversation_id=id,
        )
        last = await arun(read_last_turn())
        offset = endpoints.offset_in(last.reply_id, request.headers.get("last-event-id"))
        if offset is None:
            return Response(status_code=204)  # it tells browsers not to connect again
        turn = self._turns.find(id, last.reply_id)
        if turn is not None:
            return EventStream(turn, offset=offset, while_open=self._open_stream())
        if last.reply is not None:
            return stored_stream(id, last, offset=offset)
        return AwaitedStream(
            id, last, lambda: arun(read_last_turn()), offset=offset, while_open=self._open_stream()
        )

    def _open_stream(self) -> AbstractContextManager[object] | None:
        """Return a context in which a stream counts as open."""
        return None if self._metrics is None else self._metrics.open_streams.track_inprogress()

    def _given(self, request: Request, known: Sequence[api.Parameter]) -> Given:
        """Return a request without its body, whose query may have the ``known`` parameters."""
        user, pairs = request.scope.get(USER), request.query_params.multi_items()
        query = api.Query(pairs, known=known, signed_in_user=user)
        return Given(lambda: self._chat, self._rules, user, request.scope[CALLER], query)

    async def _parse(self, request: Request, endpoint: Endpoint | TurnEndpoint) -> Given:
        given, headers = self._given(request, endpoint.query), request.headers
        if endpoint.takes_key:
            key = api.parse_idempotency_key(headers.getlist("idempotency-key"))
            given = given._replace(idempotency_key=key)
        if endpoint.takes_version:
            given = given._replace(version=api.parse_if_match(headers.getlist("if-match")))
        if endpoint.body is not None:
            content_type = headers.get("content-type")
            most = endpoint.body.max_bytes
            if most > api.MAX_BODY_BYTES:
                most = self._rules.limits.largest_import(most)
            body = await self._read_body(request, most=most)
            parse = partial(
                api.parse_body, endpoint.body, body, content_type, signed_in_user=given.user
            )
            is_large = len(body) > api.MAX_BODY_BYTES
            given = given._replace(body=await asyncio.to_thread(parse) if is_large else parse())
        return given

    async def _read_body(self, request: Request, *, most: int) -> bytes:
        """Read the body; a large one counts as a large import until the request is answered."""
        body, is_large = bytearray(), False
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise api.body_too_large(most)
            if not is_large and len(body) > api.MAX_BODY_BYTES:
                is_large = True
                large_import = self._rules.limits.large_import(request.scope[CALLER])
                request.scope[WHILE_RUNNING].enter_context(large_import)
        return bytes(body)


def _accepts_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")
