"""The numbers of a server, in Prometheus' text format.

Only this module needs the package ``prometheus-client``.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from chatledger.http.errors import CLIENT_LEFT
from chatledger.http.requests import RequestRecord, TurnRecord
from chatledger.stores.operations import StoreCall

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The type of ``Metrics.text``."""

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STORE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TURN_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300)


class Metrics:
    """The numbers of one server in one process.

    No label is an id or a text that a client chose.
    """

    def __init__(self) -> None:
        # The time at which each series began would double their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "chatledger_http_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "chatledger_http_request_seconds",
            "Time from a request to the end of its response.",
            ["method", "route"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.open_streams = Gauge(
            "chatledger_open_streams", "Replies that are being streamed.", registry=registry
        )
        self._errors = Counter(
            "chatledger_errors",
            "Errors that were sent to clients, by their code.",
            ["code"],
            registry=registry,
        )
        self._refusals = Counter(
            "chatledger_refusals",
            "Requests that were refused because they exceed a limit.",
            ["limit"],
            registry=registry,
        )
        self._turns = Counter(
            "chatledger_turns",
            "Turns that started, by how they ended.",
            ["outcome"],
            registry=registry,
        )
        self._turn_seconds = Histogram(
            "chatledger_turn_seconds",
            "Time from a request to the end of its turn.",
            buckets=_TURN_BUCKETS,
            registry=registry,
        )
        self._first_piece_seconds = Histogram(
            "chatledger_first_piece_seconds",
            "Time from a request to the first piece of the reply.",
            buckets=_TURN_BUCKETS,
            registry=registry,
        )
        self._tokens = Counter(
            "chatledger_tokens",
            "Tokens of replies that ended, as the model counts them.",
            ["direction"],
            registry=registry,
        )
        self._store_calls = Counter(
            "chatledger_store_calls",
            "Requests to DynamoDB, or transactions in SQLite.",
            ["operation", "outcome"],
            registry=registry,
        )
        self._store_call_seconds = Histogram(
            "chatledger_store_call_seconds",
            "Time of a request to DynamoDB, or a transaction in SQLite.",
            ["operation"],
            buckets=_STORE_BUCKETS,
            registry=registry,
        )
        self._store_retries = Counter(
            "chatledger_store_retries",
            "Requests to DynamoDB that were repetitions of one that failed.",
            ["operation"],
            registry=registry,
        )
        self._store_units = Counter(
            "chatledger_store_units",
            "Capacity units that DynamoDB reported.",
            ["operation"],
            registry=registry,
        )

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)

    def record_request(self, request: RequestRecord) -> None:
        """Count a request that was answered."""
        self._requests.labels(request.method, request.route, str(request.status)).inc()
        self._request_seconds.labels(request.method, request.route).observe(request.seconds)
        if request.error is not None and request.error.status != CLIENT_LEFT:
            self._errors.labels(request.error.code).inc()
            if request.error.limit is not None:
                self._refusals.labels(request.error.limit).inc()

    def record_store_call(self, call: StoreCall) -> None:
        """Count a call of the store; this is an ``on_call`` function."""
        self._store_calls.labels(call.operation, call.outcome).inc()
        self._store_call_seconds.labels(call.operation).observe(call.seconds)
        if call.attempt > 1:
            self._store_retries.labels(call.operation).inc()
        if call.units:
            self._store_units.labels(call.operation).inc(call.units)

    def record_turn(self, turn: TurnRecord) -> None:
        """Count a turn that has ended."""
        self._turns.labels(turn.outcome).inc()
        self._turn_seconds.observe(turn.seconds)
        if turn.first_piece_seconds is not None:
            self._first_piece_seconds.observe(turn.first_piece_seconds)
        if turn.usage is not None:
            self._tokens.labels("input").inc(turn.usage.input_tokens)
            self._tokens.labels("output").inc(turn.usage.output_tokens)
