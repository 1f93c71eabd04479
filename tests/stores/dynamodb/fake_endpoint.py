"""A server that replies as DynamoDB might, drops the connection, or does not reply."""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes

    @classmethod
    def of(cls, **body: Any) -> "Reply":
        return cls(200, json.dumps(body).encode())

    @classmethod
    def error(cls, code: str, status: int = 400) -> "Reply":
        body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "Not now."}
        return cls(status, json.dumps(body).encode())


DROP_CONNECTION = "drop the connection"
NO_REPLY = "no reply"
Outcome: TypeAlias = Reply | str
"""A reply, ``DROP_CONNECTION`` (once the request was read), or ``NO_REPLY``."""
Responder: TypeAlias = Callable[[str, bytes], Outcome]
"""Decides the outcome of a request from its operation, such as ``PutItem``, and its body."""


class FakeEndpoint:
    """A context manager that serves ``endpoint`` with the outcomes that ``respond`` decides.

    ``operations`` are those received so far. If ``dated``, its replies have the header ``Date``.
    """

    def __init__(self, respond: Responder, *, dated: bool = True) -> None:
        self.operations: list[str] = []
        self._end = Event()
        end, operations = self._end, self.operations

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operations.append(operation)
                outcome = respond(operation, body)
                if not isinstance(outcome, Reply):
                    if outcome == NO_REPLY:
                        end.wait()
                    self.close_connection = True
                    return
                self.send_response_only(outcome.status)
                if dated:
                    self.send_header("Date", self.date_time_string())
                is_page = outcome.body.startswith(b"<")
                content_type = "text/html" if is_page else "application/x-amz-json-1.0"
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(outcome.body)))
                self.end_headers()
                self.wfile.write(outcome.body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()


def reply_to_writes(outcome: Outcome) -> Responder:
    """Return a responder that gives every write this outcome; queries find nothing."""
    return lambda operation, _: Reply.of(Items=[]) if operation == "Query" else outcome


def reply_to_all(outcome: Outcome) -> Responder:
    """Return a responder that gives every request this outcome."""
    return lambda *_: outcome


def forward(endpoint: str, operation: str, body: bytes) -> Reply:
    """Send the request to the server at ``endpoint`` and return its reply."""
    request = urllib.request.Request(
        endpoint,
        body,
        {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Authorization": AUTHORIZATION,
        },
    )
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with directly.open(request, timeout=10) as reply:
            return Reply(reply.status, reply.read())
    except urllib.error.HTTPError as refused:
        return Reply(refused.code, refused.read())


AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=chatledger/20260101/us-east-1/dynamodb/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
"""A header that DynamoDB Local accepts, which does not check signatures."""
