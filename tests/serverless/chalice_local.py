"""A real ``chalice local`` for tests: a process on loopback that serves serverless/."""

import subprocess
import sys

from tests.serverless.gateway import SERVERLESS
from tests.serving import Server, environment

# Without Nagle's algorithm: http.server sends head and body apart, so that each response on a
# connection that is kept alive would wait 40 ms for the client's delayed acknowledgement.
PROGRAM = """
from socketserver import StreamRequestHandler
from chalice.cli import main

StreamRequestHandler.disable_nagle_algorithm = True
main()
"""
CHALICE = [sys.executable, "-c", PROGRAM]


class ChaliceLocal(Server):
    """A ``Server`` that runs ``chalice local``, without child processes."""

    def _launch(self) -> None:
        options = ["--no-autoreload", "--stage", "local", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*CHALICE, "--project-dir", str(SERVERLESS), "local", *options],
                cwd=self.folder,
                env=environment(**self._variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
