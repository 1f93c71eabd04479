"""A small server with OpenAI's Chat Completions API, streamed, for tests of its clients."""

import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Literal, Self

KEY = "sk-of-the-test"


def piece(text: str) -> dict[str, Any]:
    """Return a chunk that adds ``text`` to the reply."""
    return delta(content=text)


def delta(**fields: Any) -> dict[str, Any]:
    return _chunk([{"index": 0, "delta": fields, "finish_reason": None}])


def end(reason: str = "stop") -> dict[str, Any]:
    return _chunk([{"index": 0, "delta": {}, "finish_reason": reason}])


def usage(prompt: int = 7, completion: int = 5, **details: int) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    counts["total_tokens"] = prompt + completion
    return _chunk([], usage=counts | {"prompt_tokens_details": details})


def call(index: int, arguments: str, *, id: str | None = None, name: str | None = None) -> Any:
    """Return a chunk that adds ``arguments`` to the tool call at ``index``."""
    function = {"arguments": arguments} | ({"name": name} if name else {})
    fragment = {"index": index, "function": function} | ({"id": id} if id else {})
    return delta(tool_calls=[fragment])


def _chunk(choices: list[Any], **fields: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return head | {"choices": choices} | fields


@dataclass(frozen=True)
class Streams:
    """A response of these chunks, or lines of data; then the end, a cut or nothing at all."""

    chunks: Sequence[dict[str, Any] | str]
    then: Literal["end", "cut", "silence"] = "end"


@dataclass(frozen=True)
class Fails:
    """An error response."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)


HELLO = Streams([piece("Hello,"), piece(" Bob!"), end(), usage()])


class OpenAIServer:
    """A server that gives each request the next response of its script, and ``HELLO`` after it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.connections: set[tuple[str, int]] = set()
        """The addresses of the clients' ends of all connections."""
        self.asked = Event()
        """Set once a request has arrived."""
        self.client_left = Event()
        """Set if a client closes its connection during a silence."""
        self._script: deque[Streams | Fails] = deque()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def script(self, *responses: Streams | Fails) -> None:
        self._script.extend(responses)

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(outer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.connections.add(self.client_address)
                outer.paths.append(self.path)
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                outer.bodies.append(json.loads(body))
                outer.asked.set()
                response = outer._script.popleft() if outer._script else HELLO
                if isinstance(response, Fails):
                    self._fail(response)
                else:
                    self._stream(response)

            def _fail(self, failure: Fails) -> None:
                body = json.dumps(failure.body).encode()
                self.send_response(failure.status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
                for name, value in (headers | failure.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def _stream(self, response: Streams) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in response.chunks:
                    self._send(chunk if isinstance(chunk, str) else json.dumps(chunk))
                if response.then == "end":
                    self._send("[DONE]")
                    with suppress(ConnectionError):  # some clients leave at the last event
                        self.wfile.write(b"0\r\n\r\n")
                    return
                self.close_connection = True
                if response.then == "silence":
                    self.connection.settimeout(30)
                    if not self.connection.recv(1):
                        outer.client_left.set()

            def _send(self, data: str) -> None:
                event = f"data: {data}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

            def log_message(self, *_: object) -> None: ...

        return Handler
