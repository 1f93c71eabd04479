"""The project in serverless/ as Chalice packages it, and its function as AWS Lambda runs it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZipFile

from chalice.app import Chalice

from tests.serverless.gateway import SERVERLESS, Context
from tests.serving import environment

ROOT = SERVERLESS.parent
STAGES = ("dev", "prod")
REGION = "eu-west-1"
CHALICE = [sys.executable, "-c", "from chalice.cli import main; raise SystemExit(main())"]
RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")
"""What AWS Lambda has for every function of Python's."""


def new_project(folder: Path, part: str) -> Path:
    """A copy of serverless/, with that part made ready as ``make serverless`` does it."""
    project = folder / "serverless"
    made = shutil.ignore_patterns("vendor", "deployed", "deployments", "package", "__pycache__")
    shutil.copytree(SERVERLESS, project, ignore=made)
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"  # by which it can be run here
    script = str(ROOT / "scripts" / "serverless")
    proxies = {name: each for name, each in os.environ.items() if name.upper().endswith("_PROXY")}
    run([script, str(project), part], project, CHATLEDGER_PYTHON=ours, **proxies)
    return project


def chalice(project: Path, *arguments: str, **variables: str) -> str:
    """What the command says, which must not fail."""
    return run([*CHALICE, *arguments], project, **variables)


def lint(*templates: Path) -> None:
    """Fails where cfn-lint finds anything in these."""
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", REGION, "--template"]
    run([*command, *map(str, templates)], ROOT)


def run(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean() | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def clean() -> dict[str, str]:
    """Our environment without an account, a proxy, a server or a Python of somebody's."""
    ours = {
        name: value
        for name, value in environment().items()
        if not name.upper().startswith(("AWS_", "PYTHON")) and not name.upper().endswith("_PROXY")
    }
    return ours | {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "chatledger",
        "AWS_SECRET_ACCESS_KEY": "chatledger",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }


# The function -----------------------------------------------------------------------------------

BOOTSTRAP = """
import json, sys
answers, sys.stdout = sys.stdout, sys.stderr
sys.path[:0] = sys.argv[1:]  # the package before what the runtime has, as on AWS Lambda
from app import app

class Context:
    aws_request_id = "request"
    def __init__(self, left): self.left = left
    def get_remaining_time_in_millis(self): return self.left

routes = {path: {method: 0 for method in methods} for path, methods in app.routes.items()}
print(json.dumps(routes), file=answers, flush=True)
for line in sys.stdin:
    event, left = json.loads(line)
    print(json.dumps(app(event, Context(left))), file=answers, flush=True)
loaded = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
print(json.dumps([file for file in loaded if file]), file=answers, flush=True)
"""


class Function:
    """What ``Gateway`` takes for the app: a process that has the package and the runtime only."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.routes: dict[str, Any] = self._answer()

    def __call__(self, event: object, context: object) -> Any:
        assert isinstance(context, Context)
        self._say([event, context.get_remaining_time_in_millis()])
        return self._answer()

    def app(self) -> Chalice:
        return cast(Chalice, self)

    def end(self) -> list[Path]:
        """End it; the files of all that it had loaded."""
        self._stdin.close()
        loaded = [Path(file) for file in self._answer()]
        assert self._process.wait(20) == 0
        return loaded

    def _say(self, what: object) -> None:
        self._stdin.write(json.dumps(what) + "\n")
        self._stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "The function has ended."
        return json.loads(line)

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin


@contextmanager
def running(package: Path, folder: Path, **variables: str) -> Iterator[Function]:
    """The function of a package, unpacked into a new folder of ``folder``."""
    task, runtime = folder / "task", folder / "runtime"
    with ZipFile(package) as archive:
        archive.extractall(task)
    runtime.mkdir()
    import boto3

    for name in RUNTIME:
        (runtime / name).symlink_to(Path(boto3.__file__).parents[1] / name)
    with subprocess.Popen(
        # Without site-packages, the current folder and what variables may add to the path.
        [sys.executable, "-I", "-S", "-c", BOOTSTRAP, str(task), str(runtime)],
        cwd=folder,
        env=clean() | {"AWS_EXECUTION_ENV": "AWS_Lambda_python"} | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Function(process)
        finally:
            process.kill()
