"""The server that the DynamoDB tests stand on: it runs, alone, and leaves nothing behind."""

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
from chatledger.testing.dynamodb_local import ENDPOINT, CannotRun, DynamoDBLocal
from chatledger.testing.dynamodb_local_jars import folder, install

BY_HAND = [sys.executable, "-m", "chatledger.testing.dynamodb_local"]


def test_what_is_put_into_a_table_is_read_from_it(dynamodb_local: DynamoDBLocal) -> None:
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


def test_an_endpoint_that_is_given_is_used_and_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:8000")
    with DynamoDBLocal() as running:
        assert running.endpoint == "http://127.0.0.1:8000"
        assert running.pid is None


# Servers of our own -------------------------------------------------------------------------------


@pytest.fixture
def no_endpoint_given(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get(ENDPOINT):
        pytest.skip(f"{ENDPOINT} is used here, so nothing is started")


@pytest.mark.usefixtures("no_endpoint_given")
def test_two_run_side_by_side_and_end_with_their_context() -> None:
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
        assert not lives(pids[1])
        assert not listens(ports[1])
        assert one.client().list_tables()["TableNames"] == [], "the other one still answers"
    assert not lives(pids[0])
    assert not listens(ports[0])


@pytest.mark.usefixtures("no_endpoint_given")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_tells_nobody_what_it_is_used_for(dynamodb_local: DynamoDBLocal) -> None:
    process = Path(f"/proc/{dynamodb_local.pid}")
    arguments = (process / "cmdline").read_bytes().split(b"\0")
    assert b"-disableTelemetry" in arguments
    assert b"-inMemory" in arguments
    assert b"-sharedDb" in arguments
    assert b"DDB_LOCAL_TELEMETRY=0" in (process / "environ").read_bytes().split(b"\0")


@pytest.mark.usefixtures("no_endpoint_given")
def test_a_killed_parent_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import signal\n"
        "from chatledger.testing.dynamodb_local import DynamoDBLocal\n"
        "with DynamoDBLocal() as running:\n"
        "    print(running.pid, running.endpoint, flush=True)\n"
        "    signal.pause()\n"
    )
    temporary = {"TMPDIR": str(tmp_path), "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={tmp_path}"}
    with parent([sys.executable, "-c", program], **temporary) as tests:
        assert tests.stdout
        pid, endpoint = tests.stdout.readline().split()
        assert listens(port_of(endpoint))
        tests.kill()
        assert gone(int(pid), port_of(endpoint), within=10)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def control_c() -> Iterator[None]:
    """Heard by programs that are started now; a shell has those it starts with ``&`` ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("no_endpoint_given", "control_c")
def test_by_hand_it_prints_its_endpoint_and_serves_until_control_c() -> None:
    with parent(BY_HAND) as by_hand:
        assert by_hand.stdout
        endpoint = by_hand.stdout.readline().strip()
        assert listens(port_of(endpoint))
        by_hand.send_signal(signal.SIGINT)
        assert by_hand.wait(20) == 0
        assert not listens(port_of(endpoint))


@pytest.mark.usefixtures("no_endpoint_given")
def test_a_port_that_somebody_else_took_meanwhile_costs_an_attempt_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("", 0)) as rival:
        taken: int = rival.getsockname()[1]
        attempts: list[int] = []

        @contextmanager
        def taken_at_first() -> Iterator[int]:
            with reserved_port() as port:
                attempts.append(port if attempts else taken)
                yield attempts[-1]

        reserved_port = module.reserved_port
        monkeypatch.setattr(module, "reserved_port", taken_at_first)
        with DynamoDBLocal() as running:
            assert port_of(running.endpoint) == attempts[1]
    assert len(attempts) == 2


# Where it cannot run ------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java, Maven and jars; programs can be put into the folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.delenv(ENDPOINT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(programs))
    return programs


def put(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    program.chmod(0o755)


MAVEN = """\
for argument; do case $argument in -DoutputDirectory=*) lib=${argument#*=};; esac; done
mkdir "$lib" && : >"$lib/DynamoDBLocal-2.6.1.jar"
"""


def test_without_java_and_maven_it_says_what_to_install(bare: Path) -> None:
    with (
        pytest.raises(CannotRun, match="apt-get install default-jre-headless maven"),
        DynamoDBLocal(),
    ):
        pass
    put(bare, "java", "exit 1")
    with pytest.raises(CannotRun, match="apt-get install maven"), DynamoDBLocal():
        pass


def test_a_server_that_does_not_start_is_quoted(bare: Path) -> None:
    put(bare, "java", "echo 'UnsupportedClassVersionError: no, thank you'; exit 3")
    put(bare, "mvn", MAVEN)
    with pytest.raises(CannotRun, match="no, thank you") as refused, DynamoDBLocal():
        pass
    assert "ended with 3" in str(refused.value)
    assert "17 or newer" in str(refused.value)


def test_a_download_that_failed_is_quoted_and_not_taken_for_complete(bare: Path) -> None:
    put(bare, "java", "exit 1")
    put(bare, "mvn", f"{MAVEN}\necho 'the network went away'; exit 1")
    with pytest.raises(CannotRun, match="the network went away"):
        install()
    assert not folder().exists()
    put(bare, "mvn", MAVEN)
    assert list(install().iterdir()) == [folder() / "lib" / "DynamoDBLocal-2.6.1.jar"]
    (bare / "mvn").unlink()
    install()  # needs nothing any more


def test_a_download_that_was_killed_is_begun_anew(bare: Path) -> None:
    (part := folder().with_name(f"{folder().name}.part")).mkdir(parents=True)
    (part / "half.jar").touch()
    put(bare, "java", "exit 1")
    put(bare, "mvn", MAVEN)
    install()
    assert not part.exists()
    assert sorted(path.name for path in folder().iterdir()) == ["lib", "pom.xml"]


def test_a_cache_that_cannot_be_written_is_named(bare: Path, tmp_path: Path) -> None:
    put(bare, "java", "exit 1")
    put(bare, "mvn", MAVEN)
    (tmp_path / "cache").touch()  # even root makes no folder in a file
    with pytest.raises(CannotRun, match="XDG_CACHE_HOME"):
        install()


def test_it_imports_neither_boto3_nor_pytest_until_they_are_used() -> None:
    program = (
        "import sys\n"
        "sys.modules['boto3'] = sys.modules['pytest'] = None\n"
        "import chatledger.testing.dynamodb_local\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# Processes and ports ------------------------------------------------------------------------------


@contextmanager
def parent(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
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


def lives(pid: int | None) -> bool:
    assert pid, "it was started by somebody else"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int, port: int, *, within: float) -> bool:
    end = time.monotonic() + within
    while listens(port) or (lives(pid) and not zombie(pid)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def zombie(pid: int) -> bool:
    """Dead, and left to whoever adopts orphans here; in a container that may be nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def port_of(endpoint: str) -> int:
    port = urlsplit(endpoint).port
    assert port
    return port


def listens(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.settimeout(5)
        return attempt.connect_ex(("127.0.0.1", port)) == 0
