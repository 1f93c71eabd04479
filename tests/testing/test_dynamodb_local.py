"""DynamoDB Local, which the DynamoDB tests need: it starts, runs and ends without traces."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chatledger.testing import dynamodb_local as module
from chatledger.testing.dynamodb_local import ENDPOINT_VARIABLE, CannotRun, DynamoDBLocal
from chatledger.testing.dynamodb_local_jars import cache_folder, install

COMMAND = [sys.executable, "-m", "chatledger.testing.dynamodb_local"]


def test_an_item_put_into_a_table_can_be_read(dynamodb_local: DynamoDBLocal) -> None:
    client = dynamodb_local.client()
    table = "what-is-put"
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    try:
        client.put_item(TableName=table, Item={"pk": {"S": "bob"}, "n": {"N": "1"}})
        read = client.get_item(TableName=table, Key={"pk": {"S": "bob"}}, ConsistentRead=True)
        assert read["Item"] == {"pk": {"S": "bob"}, "n": {"N": "1"}}
    finally:
        client.delete_table(TableName=table)


def test_a_given_endpoint_is_used_and_no_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:8000")
    with DynamoDBLocal() as running:
        assert running.endpoint == "http://127.0.0.1:8000"
        assert running.pid is None


# Servers that the tests start ---------------------------------------------------------------------


@pytest.fixture
def needs_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get(ENDPOINT_VARIABLE):
        pytest.skip(f"{ENDPOINT_VARIABLE} is used here, so nothing is started")


@pytest.mark.usefixtures("needs_own_server")
def test_two_servers_run_side_by_side_and_end_with_their_blocks() -> None:
    with DynamoDBLocal() as one:
        with DynamoDBLocal() as other:
            pids = one.pid, other.pid
            ports = port_of(one.endpoint), port_of(other.endpoint)
            assert ports[0] != ports[1]
            other.client().create_table(
                TableName="only-here",
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            assert one.client().list_tables()["TableNames"] == []
        assert not is_running(pids[1])
        assert not is_listening(ports[1])
        assert one.client().list_tables()["TableNames"] == [], "the first server still answers"
    assert not is_running(pids[0])
    assert not is_listening(ports[0])


@pytest.mark.usefixtures("needs_own_server")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_sends_no_telemetry(dynamodb_local: DynamoDBLocal) -> None:
    process = Path(f"/proc/{dynamodb_local.pid}")
    arguments = (process / "cmdline").read_bytes().split(b"\0")
    assert b"-disableTelemetry" in arguments
    assert b"-inMemory" in arguments
    assert b"-sharedDb" in arguments
    assert b"DDB_LOCAL_TELEMETRY=0" in (process / "environ").read_bytes().split(b"\0")


@pytest.mark.usefixtures("needs_own_server")
def test_the_server_ends_if_its_parent_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal\n"
        "from chatledger.testing.dynamodb_local import DynamoDBLocal\n"
        "with DynamoDBLocal() as running:\n"
        "    print(running.pid, running.endpoint, flush=True)\n"
        "    signal.pause()\n"
    )
    temporary = {"TMPDIR": str(tmp_path), "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={tmp_path}"}
    with parent_process([sys.executable, "-c", program], **temporary) as tests:
        assert tests.stdout
        pid, endpoint = tests.stdout.readline().split()
        assert is_listening(port_of(endpoint))
        tests.kill()
        assert is_gone(int(pid), port_of(endpoint), within=10)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def control_c_enabled() -> Iterator[None]:
    """Enable Ctrl-C for programs started now; shells disable it for programs run with ``&``."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("needs_own_server", "control_c_enabled")
def test_the_command_prints_its_endpoint_and_serves_until_control_c() -> None:
    with parent_process(COMMAND) as process:
        assert process.stdout
        endpoint = process.stdout.readline().strip()
        assert is_listening(port_of(endpoint))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert not is_listening(port_of(endpoint))


@pytest.mark.usefixtures("needs_own_server")
def test_another_port_is_tried_if_a_program_takes_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("", 0)) as rival:
        taken: int = rival.getsockname()[1]
        attempts: list[int] = []

        @contextmanager
        def reserve_taken_port_first() -> Iterator[int]:
            with reserve_port() as port:
                attempts.append(port if attempts else taken)
                yield attempts[-1]

        reserve_port = module.reserve_port
        monkeypatch.setattr(module, "reserve_port", reserve_taken_port_first)
        with DynamoDBLocal() as running:
            assert port_of(running.endpoint) == attempts[1]
    assert len(attempts) == 2


# Machines on which it cannot run ------------------------------------------------------------------


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a machine without Java, Maven and jars; return the folder of its programs."""
    find_programs = tmp_path / "bin"
    find_programs.mkdir()
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(find_programs))
    return find_programs


def add_program(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    program.chmod(0o755)


FAKE_MAVEN = """\
for argument; do case $argument in -DoutputDirectory=*) lib=${argument#*=};; esac; done
mkdir "$lib" && : >"$lib/DynamoDBLocal-2.6.1.jar"
"""


def test_the_error_names_the_packages_to_install_if_java_or_maven_is_missing(
    bare_machine: Path,
) -> None:
    with (
        pytest.raises(CannotRun, match="apt-get install default-jre-headless maven"),
        DynamoDBLocal(),
    ):
        pass
    add_program(bare_machine, "java", "exit 1")
    with pytest.raises(CannotRun, match="apt-get install maven"), DynamoDBLocal():
        pass


def test_the_error_quotes_a_server_that_does_not_start(bare_machine: Path) -> None:
    add_program(bare_machine, "java", "echo 'UnsupportedClassVersionError: no, thank you'; exit 3")
    add_program(bare_machine, "mvn", FAKE_MAVEN)
    with pytest.raises(CannotRun, match="no, thank you") as refused, DynamoDBLocal():
        pass
    assert "ended with 3" in str(refused.value)
    assert "17 or newer" in str(refused.value)


def test_the_error_quotes_a_failed_download_which_is_not_taken_for_complete(
    bare_machine: Path,
) -> None:
    add_program(bare_machine, "java", "exit 1")
    add_program(bare_machine, "mvn", f"{FAKE_MAVEN}\necho 'connection lost'; exit 1")
    with pytest.raises(CannotRun, match="connection lost"):
        install()
    assert not cache_folder().exists()
    add_program(bare_machine, "mvn", FAKE_MAVEN)
    assert list(install().iterdir()) == [cache_folder() / "lib" / "DynamoDBLocal-2.6.1.jar"]
    (bare_machine / "mvn").unlink()
    install()  # no longer needs Maven


def test_an_interrupted_download_starts_again(bare_machine: Path) -> None:
    (part := cache_folder().with_name(f"{cache_folder().name}.part")).mkdir(parents=True)
    (part / "half.jar").touch()
    add_program(bare_machine, "java", "exit 1")
    add_program(bare_machine, "mvn", FAKE_MAVEN)
    install()
    assert not part.exists()
    assert sorted(path.name for path in cache_folder().iterdir()) == ["lib", "pom.xml"]


def test_the_error_names_the_variable_for_a_cache_that_is_not_writable(
    bare_machine: Path, tmp_path: Path
) -> None:
    add_program(bare_machine, "java", "exit 1")
    add_program(bare_machine, "mvn", FAKE_MAVEN)
    (tmp_path / "cache").touch()  # not even root can create a folder in a file
    with pytest.raises(CannotRun, match="XDG_CACHE_HOME"):
        install()


def test_the_module_imports_neither_boto3_nor_pytest_until_they_are_used() -> None:
    program = (
        "import sys\n"
        "sys.modules['boto3'] = sys.modules['pytest'] = None\n"
        "import chatledger.testing.dynamodb_local\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# Processes and ports ------------------------------------------------------------------------------


@contextmanager
def parent_process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def is_running(pid: int | None) -> bool:
    assert pid, "this test did not start the server"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_gone(pid: int, port: int, *, within: float) -> bool:
    end = time.monotonic() + within
    while is_listening(port) or (is_running(pid) and not is_zombie(pid)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_zombie(pid: int) -> bool:
    """Return whether the process has ended but was not reaped; some containers reap no orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def port_of(endpoint: str) -> int:
    port = urlsplit(endpoint).port
    assert port
    return port


def is_listening(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.settimeout(5)
        return attempt.connect_ex(("127.0.0.1", port)) == 0
