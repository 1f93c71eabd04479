"""The command ``python -m chatledger.testing.bedrock_server``."""

import argparse
import signal
import sys
from collections.abc import Sequence
from threading import Event

from chatledger.testing.bedrock_server.authentication import API_KEY
from chatledger.testing.bedrock_server.server import BedrockServer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a server until SIGINT or SIGTERM, after printing its address and its credentials."""
    parser = argparse.ArgumentParser(
        prog="python -m chatledger.testing.bedrock_server",
        description="Run a fake of Amazon Bedrock Runtime that answers with Chatledger's offline "
        "model, until Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, reachable from this machine only)",
    )
    parser.add_argument(
        "--pace", type=float, default=0.0, help="seconds between the pieces of a reply (default: 0)"
    )
    options = parser.parse_args(arguments)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with BedrockServer(pace=options.pace, host=options.host, port=options.port) as server:
            print(server.endpoint)
            for name, value in server.environment.items():
                print(f"export {name}={value}")
            # A comment only, because boto3 sends no API key without TLS; other clients do.
            print(f"# or, with an API key: export AWS_BEARER_TOKEN_BEDROCK={API_KEY}", flush=True)
            stop.wait()
    except OSError as error:
        sys.exit(f"The server did not start: {error}")


if __name__ == "__main__":
    main()
