"""An async store over threads: forks of its process, and use after it was closed."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from chatledger import Message, StoreUnavailable, open_async_store

USE_AFTER_FORK = """
import asyncio, os, sys
from chatledger import Message, open_async_store

store = open_async_store(sys.argv[1])
asyncio.run(store.append("talk", [Message.user("parent")]))
child = os.fork()
if not child:
    asyncio.run(store.append("talk", [Message.user("child")]))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
tail = asyncio.run(store.tail("talk", 2))
print(*(message.text for message in tail.messages))
asyncio.run(store.close())
"""


def test_a_store_that_was_used_can_be_used_in_a_forked_child(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chatledger.db"
    done = subprocess.run(
        [sys.executable, "-c", USE_AFTER_FORK, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["parent", "child"], done.stderr


def test_a_closed_store_reports_that_it_was_closed() -> None:
    async def use_after_close() -> None:
        store = open_async_store("sqlite:///:memory:")
        await store.close()
        await store.close()
        await store.append("talk", [Message.user("Hi")])

    with pytest.raises(StoreUnavailable, match="closed"):
        asyncio.run(use_after_close())
