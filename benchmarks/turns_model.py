"""The model of the turns: the fake of Bedrock, in a process of its own, until its input ends."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from chatledger.testing.bedrock_server import BedrockServer, Request, Says
from tests.stores.dynamodb.prose import prose

PROMPT, SLOW = "amazon.nova-micro-v1:0", "amazon.nova-lite-v1:0"
"""The one that says all at once, and the one that thinks first, and pauses between the pieces."""
DELAY, PAUSE = 0.2, 0.001
"""Seconds. Without the pauses the pieces come in one read, and no first piece before others."""
LENGTH, PIECES = 1_000, 40
"""Of a reply: its characters, and the pieces that it comes in."""


def replies() -> list[list[str]]:
    size = LENGTH // PIECES
    texts = [prose(n, LENGTH - 1) + "." for n in range(100, 150)]
    return [[text[at : at + size] for at in range(0, LENGTH, size)] for text in texts]


@contextmanager
def served() -> Iterator[str]:
    """The endpoint of a process that serves both."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint, "the model did not start"
        yield endpoint


def serve() -> None:
    following = cycle(replies())

    def answer(request: Request) -> Says:
        server.requests.clear()  # nobody looks at them
        if request.model_id == SLOW:
            return Says(next(following), delay=DELAY, pause=PAUSE)
        return Says(next(following))

    with BedrockServer(answering=answer) as server:
        print(server.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve()
