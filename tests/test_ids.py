"""Ids are unique across copies of a process's memory, and sort by time."""

import ctypes
import os
import re
from itertools import pairwise

import pytest

from chatledger.values import new_id, time_of_id

COPIES = 4
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_an_id_is_a_uuid_of_version_7() -> None:
    assert all(UUID7.fullmatch(new_id()) for _ in range(1_000))


def test_ids_of_one_process_sort_in_the_order_in_which_they_are_made() -> None:
    ids = [new_id()]
    while len(ids) < 200:
        if (made := new_id())[:18] != ids[-1][:18]:  # a quarter of a microsecond later
            ids.append(made)
    assert all(earlier < later for earlier, later in pairwise(ids))


def test_an_id_carries_the_time_it_is_given() -> None:
    assert time_of_id(new_id(1_900_000_000_123)) == 1_900_000_000_123


def test_an_id_carries_the_current_time_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_900_000_000_123_456_789)
    assert time_of_id(new_id()) == 1_900_000_000_123


def test_copies_of_a_process_make_different_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """``fork()`` from C runs none of Python's hooks, like a restored image of a Lambda function."""
    monkeypatch.setattr("time.time_ns", lambda: 1_900_000_000_000_000_000)  # the same for all
    new_id()  # whatever state there is, it is set up before the copies are made
    libc = ctypes.CDLL(None)
    pipes = [os.pipe() for _ in range(COPIES)]
    children = []
    for _, write in pipes:
        child = libc.fork()
        if child == 0:
            os.write(write, "".join(new_id() for _ in range(100)).encode())
            os._exit(0)
        children.append(child)
    made = [new_id() for _ in range(100)]
    for (read, write), child in zip(pipes, children, strict=True):
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        made += [text[n : n + 36] for n in range(0, len(text), 36)]
    assert len(set(made)) == len(made) == 100 * (COPIES + 1)
