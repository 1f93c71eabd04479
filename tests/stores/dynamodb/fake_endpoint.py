"""A server that answers as DynamoDB might, or does not answer."""

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
        said = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "Not now."}
        return cls(status, json.dumps(said).encode())


DROP = "drop"
SILENCE = "silence"
Answer: TypeAlias = Callable[[str, bytes], "Reply | str"]
"""What comes of an operation, such as ``PutItem``, and its body: a reply, the connection dropped
once all was read, or nothing at all."""


class Answering:
    """A context manager: within it, ``endpoint`` answers so; ``seen`` are the operations."""

    def __init__(self, answer: Answer) -> None:
        self.seen: list[str] = []
        self._end = Event()
        end, seen = self._end, self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append(operation)
                reply = answer(operation, body)
                if not isinstance(reply, Reply):
                    if reply == SILENCE:
                        end.wait()
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                is_page = reply.body.startswith(b"<")
                kind = "text/html" if is_page else "application/x-amz-json-1.0"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

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


def writes(answer: "Reply | str") -> Answer:
    """Every write comes to that; reads find nothing."""
    return lambda operation, _: Reply.of(Items=[]) if operation == "Query" else answer


def everything(answer: "Reply | str") -> Answer:
    return lambda *_: answer


def passed_on(endpoint: str, operation: str, body: bytes) -> Reply:
    """What the server at ``endpoint`` answers."""
    request = urllib.request.Request(
        endpoint,
        body,
        {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Authorization": SIGNED,
        },
    )
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with directly.open(request, timeout=10) as reply:
            return Reply(reply.status, reply.read())
    except urllib.error.HTTPError as refused:
        return Reply(refused.code, refused.read())


SIGNED = (
    "AWS4-HMAC-SHA256 Credential=chatledger/20260101/us-east-1/dynamodb/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
"""As DynamoDB Local takes it, which looks at no signature."""
