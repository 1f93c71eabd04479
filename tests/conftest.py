"""Real servers for whichever test asks for one."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.serving import Server, StartServer

pytest_plugins = ["chatledger.testing.dynamodb_local", "tests.browser", "tests.no_skips"]

# These assert, and are no test files: without this a failure would not say what it saw.
pytest.register_assert_rewrite("tests.http")


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """``start_server(CHATLEDGER_WINDOW="2")``: one more server, on a port and file of its own."""
    with ExitStack() as ends:

        def start(**environment: str) -> Server:
            server = Server(tmp_path_factory.mktemp("server"), **environment)
            ends.callback(server.kill)
            server.start()
            return server

        yield start


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    """One for the whole module: ``url``, ``log()``, ``kill()``, ``restart()``, ``stop()``."""
    return start_server()
