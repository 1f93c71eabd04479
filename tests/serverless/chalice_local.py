"""A real ``chalice local`` for tests: a process on loopback, over the project in serverless/."""

import subprocess
import sys

from tests.serverless.gateway import SERVERLESS
from tests.serving import Server, environment

CHALICE = [sys.executable, "-c", "from chalice.cli import main; main()"]


class ChaliceLocal(Server):
    """As ``Server``; one process, which a kill ends whole."""

    def _launch(self) -> None:
        options = ["--no-autoreload", "--stage", "local", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*CHALICE, "--project-dir", str(SERVERLESS), "local", *options],
                cwd=self.folder,
                env=environment(**self._given),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
