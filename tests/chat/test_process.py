"""The label of a process tells others on its machine that it has ended, and nobody else."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from chatledger.chat.process import is_known_to_have_ended, label_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

PROGRAM = """
from chatledger.chat.process import label_process
print(label_process("turn 1"), flush=True)
input()
"""


class LabelledProcess:
    """Another process, and its label for "turn 1"."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.label = self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def process() -> Iterator[LabelledProcess]:
    process = LabelledProcess()
    yield process
    process.kill()


def test_a_process_has_ended_once_it_is_killed(process: LabelledProcess) -> None:
    assert not is_known_to_have_ended(process.label, "turn 1")
    process.kill()
    assert is_known_to_have_ended(process.label, "turn 1")


def test_a_process_whose_pid_another_one_has_now_has_ended() -> None:
    label = label_process("turn 1")
    assert label is not None
    machine, pid, start = label.split("-")
    assert not is_known_to_have_ended(label, "turn 1")
    assert is_known_to_have_ended(f"{machine}-{pid}-{int(start) - 1}", "turn 1")


def test_nothing_is_known_of_a_process_by_the_label_of_another_turn_or_machine(
    process: LabelledProcess,
) -> None:
    process.kill()
    machine, _, rest = process.label.partition("-")
    assert not is_known_to_have_ended(process.label, "turn 2")
    assert not is_known_to_have_ended(f"{machine[::-1]}-{rest}", "turn 1")


def test_on_aws_lambda_a_process_has_no_label_and_none_is_known_to_have_ended(
    process: LabelledProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.kill()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "chatbot")
    assert label_process("turn 1") is None
    assert not is_known_to_have_ended(process.label, "turn 1")


def test_a_label_is_short_and_reveals_no_boot_id() -> None:
    label = label_process("turn 1")
    assert label is not None
    assert len(label) <= 40
    assert label.split("-")[0] != str(label_process("turn 2")).split("-")[0]
