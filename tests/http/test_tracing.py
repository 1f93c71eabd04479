"""Spans: of requests, and within them of the turn and the calls of the store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags, Tracer

from chatledger import ModelThrottled, open_async_store
from chatledger.chat import Chat
from chatledger.http.fastapi import create_app
from chatledger.http.tracing import Tracing, open_tracing
from chatledger.models import Models
from tests.chat.scripted_models import DONE, ScriptedModel
from tests.http.client import MARKER

pytestmark = pytest.mark.anyio

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Span(NonRecordingSpan):
    """A span that keeps what it is told."""

    def __init__(self, name: str, parent: trace.Span, start_time: int | None, number: int) -> None:
        flags = TraceFlags(TraceFlags.SAMPLED)
        trace_id = parent.get_span_context().trace_id or 1
        super().__init__(SpanContext(trace_id, number, is_remote=False, trace_flags=flags))
        self.name = name
        self.parent_id = parent.get_span_context().span_id
        self.start_time = start_time
        self.end_time: int | None = None
        self.attributes: dict[str, Any] = {}
        self.status: object = None

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def update_name(self, name: str) -> None:
        self.name = name

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.status = status

    def end(self, end_time: int | None = None) -> None:
        self.end_time = end_time


class RecordingTracer(Tracer):
    """A tracer that keeps its spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def start_span(self, name: str, context: Any = None, *args: Any, **options: Any) -> Span:
        parent = trace.get_current_span(context)
        span = Span(name, parent, options.get("start_time"), len(self.spans) + 1)
        span.attributes.update(options.get("attributes") or {})
        self.spans.append(span)
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # the type of the result is private
        self, name: str, *args: Any, **options: Any
    ) -> Iterator[Span]:
        span = self.start_span(name, *args, **options)
        with trace.use_span(span, record_exception=options["record_exception"]):
            yield span


async def spans_of(model: Any, requests: Sequence[tuple[str, str, dict[str, Any]]]) -> list[Span]:
    """Return the spans of requests, given by method, path and further arguments."""
    tracer = RecordingTracer()
    tracing = Tracing(tracer)
    store = open_async_store("sqlite:///:memory:", on_call=tracing.record_store_call)
    models = Models(["offline"], open=lambda _: model)
    app = create_app(Chat(store, model), models, tracing=tracing)
    transport = httpx.ASGITransport(app=app)
    async with store, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for method, path, arguments in requests:
            await client.request(method, path, **arguments)
    return tracer.spans


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_a_turn_and_the_calls_of_the_store_are_in_the_span_of_their_request(
    path: str,
) -> None:
    body = {"message": MARKER, "user_id": MARKER}
    traced = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
    model = ScriptedModel("Hello", DONE)
    request, *children = await spans_of(model, [("POST", path, {"json": body, "headers": traced})])
    assert request.name == f"POST {path}"
    assert request.parent_id == int(SPAN_ID, 16)
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["chatledger.conversation_id"]
    assert {"turn", "store Append"} <= {child.name for child in children}
    (turn,) = [child for child in children if child.name == "turn"]
    assert turn.attributes["outcome"] == "completed"
    for child in children:
        assert child.parent_id == request.get_span_context().span_id
        assert child.get_span_context().trace_id == int(TRACE_ID, 16)
        assert child.start_time is not None
        assert child.end_time is not None
        assert child.start_time <= child.end_time
    assert MARKER not in str([span.attributes for span in (request, *children)])


async def test_a_span_has_the_error_and_not_its_text_or_the_query() -> None:
    model = ScriptedModel(ModelThrottled(MARKER), DONE)
    failed, *_ = await spans_of(model, [("POST", "/chat", {"json": {"message": "Hi"}})])
    assert failed.attributes["error.type"] == "model_throttled"
    (unknown,) = await spans_of(model, [("GET", f"/{MARKER}?user_id={MARKER}", {})])
    assert unknown.name == "GET unknown"
    assert unknown.status is None
    assert MARKER not in str([failed.attributes, unknown.attributes, unknown.name])


async def test_a_server_error_is_the_status_of_the_span(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(MARKER)

    monkeypatch.setattr("chatledger.http.api.parse_body", fail)
    (span,) = await spans_of(ScriptedModel(DONE), [("POST", "/chat", {"json": {"message": "Hi"}})])
    assert span.status is StatusCode.ERROR
    assert span.attributes["error.type"] == "internal_error"


class RecordingProvider(trace.TracerProvider):
    """A provider that is configured, with one tracer."""

    def __init__(self) -> None:
        self.tracer = RecordingTracer()

    def get_tracer(self, *args: Any, **options: Any) -> Tracer:
        return self.tracer


async def test_fastapi_makes_no_spans_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = RecordingProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    (span,) = await spans_of(ScriptedModel(DONE), [("GET", f"/?user_id={MARKER}", {})])
    assert span.name == "GET /"
    assert provider.tracer.spans == []
    tracing = open_tracing()
    assert tracing is not None
    assert tracing.tracer is provider.tracer


def test_without_a_configured_provider_there_is_no_tracing() -> None:
    assert open_tracing() is None
