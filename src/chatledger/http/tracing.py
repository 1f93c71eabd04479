"""Spans of requests, turns and calls of the store, by OpenTelemetry.

Only this module needs the package ``opentelemetry-api``.
"""

from time import time_ns

from opentelemetry import propagate, trace
from opentelemetry.trace import ProxyTracerProvider, SpanKind, StatusCode, Tracer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from chatledger.http.requests import RECORD, RequestRecord, TurnRecord
from chatledger.stores.operations import StoreCall

SECOND = 1_000_000_000
"""A second in nanoseconds."""


class Tracing:
    """Makes the spans of a server; they have no text that a client chose, only ids.

    Args:
        tracer: OpenTelemetry's tracer.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def record_store_call(self, call: StoreCall) -> None:
        """Make the span of a call of the store; this is an ``on_call`` function."""
        end = time_ns()
        attributes = {"outcome": call.outcome, "attempt": call.attempt}
        start = end - int(call.seconds * SECOND)
        name = f"store {call.operation}"
        span = self.tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, start_time=start
        )
        span.end(end)

    def record_turn(self, turn: TurnRecord) -> None:
        """Make the span of a turn that has ended, within the span of its request."""
        attributes: dict[str, str | float] = {"outcome": turn.outcome}
        if turn.first_piece_seconds is not None:
            attributes["first_piece_seconds"] = turn.first_piece_seconds
        end = time_ns()
        start = end - int(turn.seconds * SECOND)
        span = self.tracer.start_span("turn", attributes=attributes, start_time=start)
        span.end(end)


def open_tracing() -> Tracing | None:
    """Return the tracing, or None if OpenTelemetry has not been configured to record spans."""
    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        return None
    return Tracing(trace.get_tracer("chatledger"))


class TracingMiddleware:
    """Makes the span of each request, within the trace of the client, if it names one.

    Args:
        app: The application to wrap, which contains ``RequestMiddleware``.
        tracing: Makes the spans.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time_ns()
        with self._tracing.tracer.start_as_current_span(
            "request",
            context=propagate.extract(dict(Headers(scope=scope))),
            kind=SpanKind.SERVER,
            start_time=start,
            record_exception=False,  # its text may quote a message
            set_status_on_exception=False,
        ) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                request: RequestRecord = scope[RECORD]
                span.update_name(f"{request.method} {request.route}")
                span.set_attribute("http.request.method", request.method)
                span.set_attribute("http.route", request.route)
                span.set_attribute("http.response.status_code", request.status)
                span.set_attribute("chatledger.request_id", request.id)
                if request.conversation_id is not None:
                    span.set_attribute("chatledger.conversation_id", request.conversation_id)
                if request.error is not None:
                    span.set_attribute("error.type", request.error.code)
                if request.status is not None and request.status >= 500:
                    span.set_status(StatusCode.ERROR)
