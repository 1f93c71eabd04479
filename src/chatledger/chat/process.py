"""The process that holds a lease: another one on the same machine can see that it has ended.

This works where the system tells for certain, on Linux with ``/proc``, and not on AWS Lambda, whose
machines may be copies of one that was running. Everywhere else a process is never known to have
ended.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

PROC = Path("/proc")


def label_process(turn: str) -> str | None:
    """Return the label of this process for the turn, or None if nobody could check it.

    It reveals nothing about the machine, and is meaningless for any other ``turn``.
    """
    pid = os.getpid()
    machine, start = _machine_digest(turn), _own_start_time(pid)
    return None if machine is None or start is None else f"{machine}-{pid}-{start}"


def is_known_to_have_ended(label: str, turn: str) -> bool:
    """Return whether the process that labelled itself so for the turn is certain to have ended."""
    machine, _, process = label.partition("-")
    if machine != _machine_digest(turn):
        return False
    pid, _, start = process.partition("-")
    try:
        os.kill(int(pid), 0)  # sends nothing; /proc may hide the processes of other users
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _start_time(int(pid)) not in (start, None)  # another process has the pid now


def _machine_digest(turn: str) -> str | None:
    """Return a digest of the turn and of all within which a pid and a start time are unique."""
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ or (machine := _machine(os.getpid())) is None:
        return None
    return hashlib.sha256(f"{machine}\n{turn}".encode()).hexdigest()[:12]


@lru_cache(maxsize=1)  # a child process has another pid
def _machine(own_pid: int) -> str | None:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text()
        namespaces = [os.readlink(PROC / "self/ns" / kind) for kind in ("pid", "time")]
        if os.readlink(PROC / "self") != str(own_pid):
            return None  # /proc shows another namespace than the process is in
    except OSError:
        return None
    return "\n".join([boot, *namespaces])


@lru_cache(maxsize=1)
def _own_start_time(own_pid: int) -> str | None:
    return _start_time(own_pid)


def _start_time(pid: int) -> str | None:
    """Return when the process started, in clock ticks since the system did, or None."""
    try:
        status = (PROC / f"{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name of the program, in parentheses, may contain spaces and parentheses.
    return status.rpartition(b")")[2].split()[19].decode()
