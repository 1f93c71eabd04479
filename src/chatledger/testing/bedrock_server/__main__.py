"""``python -m chatledger.testing.bedrock_server``: the server by hand."""

import argparse
import signal
import sys
from collections.abc import Sequence
from threading import Event

from chatledger.testing.bedrock_server.authorizing import API_KEY
from chatledger.testing.bedrock_server.server import BedrockServer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chatledger.testing.bedrock_server",
        description="Run a fake of Amazon Bedrock Runtime, with Chatledger's offline model behind "
        "it, until Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1, for this machine alone"
    )
    parser.add_argument(
        "--pace", type=float, default=0.0, help="seconds between the pieces of a reply"
    )
    wanted = parser.parse_args(arguments)
    end = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    try:
        with BedrockServer(pace=wanted.pace, host=wanted.host, port=wanted.port) as running:
            print(running.endpoint)
            for name, value in running.environment.items():
                print(f"export {name}={value}")
            # boto3 sends none without TLS; other clients do.
            print(f"# or, with an API key: export AWS_BEARER_TOKEN_BEDROCK={API_KEY}", flush=True)
            end.wait()
    except OSError as failed:
        sys.exit(f"The server did not start: {failed}")


if __name__ == "__main__":
    main()
