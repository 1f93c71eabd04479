"""The model of the turns: the fake Bedrock server, in a process of its own, until stdin ends."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from chatledger.testing.bedrock_server import BedrockServer, Request, Says
from tests.stores.dynamodb.sample_text import sample_text

FAST, SLOW = "amazon.nova-micro-v1:0", "amazon.nova-lite-v1:0"
"""A model that sends its reply at once, and one that thinks first and pauses between pieces."""
DELAY, PAUSE = 0.2, 0.001
"""In seconds. Without pauses all pieces arrive in one read, and there is no first piece to time."""
LENGTH, PIECES = 1_000, 40
"""The characters of a reply, and the number of its pieces."""


def replies() -> list[list[str]]:
    size = LENGTH // PIECES
    texts = [sample_text(n, LENGTH - 1) + "." for n in range(100, 150)]
    return [[text[at : at + size] for at in range(0, LENGTH, size)] for text in texts]


@contextmanager
def run_model_server() -> Iterator[str]:
    """Yield the endpoint of a process that serves both models."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint, "the model server did not start"
        yield endpoint


def serve() -> None:
    next_replies = cycle(replies())

    def respond(request: Request) -> Says:
        server.requests.clear()  # they are not needed
        if request.model_id == SLOW:
            return Says(next(next_replies), delay=DELAY, pause=PAUSE)
        return Says(next(next_replies))

    with BedrockServer(responder=respond) as server:
        print(server.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve()
