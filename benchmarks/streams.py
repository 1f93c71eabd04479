"""Many streamed replies at once, compared with a Starlette application that streams the same."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.measurement import Elapsed, Figure, Ratio, benchmark
from chatledger.models.offline import reply_text

STREAMS = 1_000
PACE = 0.02
"""The seconds between two pieces."""
MESSAGE = " ".join(f"word{n}" for n in range(20))
PIECES = len(re.findall(r"\S+", reply_text([MESSAGE])))

BARE = f"""
import asyncio, json, re, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

async def stream(request):
    await request.json()

    async def events():
        yield 'event: start\\ndata: {{"conversation_id":"1"}}\\n\\n'
        for piece in re.findall(r"\\s*\\S+", {reply_text([MESSAGE])!r}):
            await asyncio.sleep({PACE})
            yield f"event: piece\\ndata: {{json.dumps(dict(text=piece))}}\\n\\n"
        yield 'event: done\\ndata: {{}}\\n\\n'

    return StreamingResponse(events(), media_type="text/event-stream")

app = Starlette(routes=[Route("/chat/stream", stream, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
"""


@benchmark(f"{STREAMS:,} streams of {PIECES} pieces at once on SQLite", rounds=5)
def many_streams(folder: Path) -> Iterator[Sequence[Figure]]:
    settings = {
        "CHATLEDGER_STORE": f"sqlite:///{folder}/chatledger.db",
        "CHATLEDGER_OFFLINE_PACE": str(PACE),
        "CHATLEDGER_LOG_LEVEL": "warning",  # as that of the other server
        "CHATLEDGER_TURNS_AT_ONCE": "off",
        "CHATLEDGER_ALL_TURNS_AT_ONCE": "off",
        "CHATLEDGER_TURNS_A_MINUTE": "off",
        "CHATLEDGER_TOKENS_A_DAY": "off",
        "CHATLEDGER_BYTES_A_DAY": "off",
        "CHATLEDGER_CONVERSATIONS": "off",
    }
    with (
        run_server([sys.executable, "-m", "chatledger", "serve"], settings) as chatledger,
        run_server([sys.executable, "-c", BARE], {}) as bare,
    ):
        yield [
            Ratio(
                "vs. a Starlette app that streams the same and stores nothing",
                partial(_stream, *chatledger),
                partial(_stream, *bare),
            )
        ]


@contextmanager
def run_server(command: Sequence[str], settings: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Run a server, and yield its process id and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | settings | {"CHATLEDGER_PORT": str(port)}
    arguments = [*command, *([] if settings else [str(port)])]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _stream(pid: int, port: int) -> Elapsed:
    cpu, wall = _cpu_seconds(pid), perf_counter()
    asyncio.run(_stream_all(port))
    return Elapsed(_cpu_seconds(pid) - cpu, perf_counter() - wall)


async def _stream_all(port: int) -> None:
    replies = await asyncio.gather(*(_read_stream(port, n) for n in range(STREAMS)))
    # Pieces that are ready together come as one event.
    texts = {"".join(re.findall(r'data: {"text": ?"(.*)"}', reply.decode())) for reply in replies}
    assert texts == {reply_text([MESSAGE])}
    assert all(b"event: done" in reply for reply in replies)


async def _read_stream(port: int, number: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"message": MESSAGE, "user_id": f"user {number}"}).encode()
    writer.write(
        b"POST /chat/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    reply = await reader.read()
    writer.close()
    return reply


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time that the process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
