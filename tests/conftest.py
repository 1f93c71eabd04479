"""Fixtures that start real servers."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.serving import Server, StartServer

pytest_plugins = [
    "chatledger.testing.dynamodb_local",
    "tests.browser",
    "tests.firefox",
    "tests.no_skips",
]

# How long an example takes depends on what else the machine does.
settings.register_profile("on any machine", settings(), deadline=None)
settings.load_profile("on any machine")

# Helpers that assert but are not test files; without this their failures show no values.
pytest.register_assert_rewrite("tests.http")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded for the end of the run."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "summary":
                terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def forget_default_session() -> None:
    """Make ``boto3.client()`` look up credentials anew, not use those that another test had set."""
    if boto3 := sys.modules.get("boto3"):
        vars(boto3)["DEFAULT_SESSION"] = None


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start a server: ``start_server(CHATLEDGER_WINDOW="2")``. Each has its own port and file."""
    with ExitStack() as stack:

        def start(**environment: str) -> Server:
            server = Server(tmp_path_factory.mktemp("server"), **environment)
            stack.callback(server.kill)
            server.start()
            return server

        yield start


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    """A server with default settings, shared by the tests of a module."""
    return start_server()
