"""Packages of the project in serverless/, and their function run as AWS Lambda runs it."""

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
LAMBDA_RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")
"""The packages that AWS Lambda provides to every Python function."""


SIGN_IN = {
    "CHATLEDGER_AUTH": "jwt",
    "CHATLEDGER_COGNITO_USER_POOL": "",
    "CHATLEDGER_JWT_AUDIENCE": "",
}
"""The settings of every stage that an operator has to complete, or to decide against."""


def build_project(folder: Path, part: str) -> Path:
    """Return a copy of serverless/ with one part built as ``make serverless`` builds it.

    Its operator has decided against sign-in. ``part`` is ``chalice`` or ``streaming``.
    """
    project = folder / "serverless"
    generated = shutil.ignore_patterns(
        "vendor", "deployed", "deployments", "package", "__pycache__"
    )
    shutil.copytree(SERVERLESS, project, ignore=generated)
    for stage in STAGES:
        configure_sign_in(project, stage, {"CHATLEDGER_ALLOW_UNAUTHENTICATED": "true"})
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"  # so that the package runs here
    script = str(ROOT / "scripts" / "serverless")
    proxies = {name: value for name, value in os.environ.items() if name.upper().endswith("_PROXY")}
    run_command([script, str(project), part], project, CHATLEDGER_PYTHON=python, **proxies)
    return project


def configure_sign_in(project: Path, stage: str, variables: dict[str, str]) -> None:
    """Replace the settings of a stage that decide who may use it."""
    path = project / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    environment = config["stages"][stage]["environment_variables"]
    for name in (*SIGN_IN, "CHATLEDGER_ALLOW_UNAUTHENTICATED"):
        environment.pop(name, None)
    environment |= variables
    path.write_text(json.dumps(config, indent=2))


def run_chalice(project: Path, *arguments: str, **variables: str) -> str:
    """Run the command ``chalice`` in the project, and return its output."""
    return run_command([*CHALICE, *arguments], project, **variables)


def lint_templates(*templates: Path) -> None:
    """Fail if cfn-lint reports anything about the templates."""
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", REGION, "--template"]
    run_command([*command, *map(str, templates)], ROOT)


def run_command(command: list[str], folder: Path, **variables: str) -> str:
    """Run a command in a clean environment, assert that it succeeds, and return its output."""
    completed = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment() | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def clean_environment() -> dict[str, str]:
    """Return the environment without AWS settings, proxies, a server or Python settings."""
    kept = {
        name: value
        for name, value in environment().items()
        if not name.upper().startswith(("AWS_", "PYTHON")) and not name.upper().endswith("_PROXY")
    }
    return kept | {
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
output, sys.stdout = sys.stdout, sys.stderr
sys.path[:0] = sys.argv[1:]  # as on AWS Lambda, the package comes before the runtime
from app import app

class Context:
    aws_request_id = "request"
    def __init__(self, millis): self.millis = millis
    def get_remaining_time_in_millis(self): return self.millis

routes = {path: {method: 0 for method in methods} for path, methods in app.routes.items()}
print(json.dumps(routes), file=output, flush=True)
for line in sys.stdin:
    event, millis = json.loads(line)
    print(json.dumps(app(event, Context(millis))), file=output, flush=True)
loaded = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
print(json.dumps([file for file in loaded if file]), file=output, flush=True)
"""


class PackagedFunction:
    """A stand-in for the app: a process that has only the package and Lambda's runtime."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.routes: dict[str, Any] = self._receive()

    def __call__(self, event: object, context: object) -> Any:
        assert isinstance(context, Context)
        self._send([event, context.get_remaining_time_in_millis()])
        return self._receive()

    def app(self) -> Chalice:
        """Return this object as the app that ``Gateway`` calls."""
        return cast(Chalice, self)

    def stop(self) -> list[Path]:
        """End the process, and return the files of all modules that it loaded."""
        self._stdin.close()
        loaded = [Path(file) for file in self._receive()]
        assert self._process.wait(20) == 0
        return loaded

    def _send(self, value: object) -> None:
        self._stdin.write(json.dumps(value) + "\n")
        self._stdin.flush()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "The process of the function has ended."
        return json.loads(line)

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin


@contextmanager
def running_package(package: Path, folder: Path, **variables: str) -> Iterator[PackagedFunction]:
    """Unpack a package below ``folder``, and yield its function."""
    task, runtime = folder / "task", folder / "runtime"
    with ZipFile(package) as archive:
        archive.extractall(task)
    runtime.mkdir()
    import boto3

    for name in LAMBDA_RUNTIME:
        (runtime / name).symlink_to(Path(boto3.__file__).parents[1] / name)
    with subprocess.Popen(
        # Isolated: without site-packages, the current folder and paths set by variables.
        [sys.executable, "-I", "-S", "-c", BOOTSTRAP, str(task), str(runtime)],
        cwd=folder,
        env=clean_environment()
        | {"AWS_EXECUTION_ENV": "AWS_Lambda_python", "AWS_LAMBDA_FUNCTION_NAME": "chatledger"}
        | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield PackagedFunction(process)
        finally:
            process.kill()
