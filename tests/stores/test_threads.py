"""What an async store over threads does when its process forks, and when it was closed."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from chatledger import Message, StoreUnavailable, open_async_store

FORKS = """
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


def test_a_store_that_was_used_may_be_used_in_a_forked_child(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chatledger.db"
    done = subprocess.run(
        [sys.executable, "-c", FORKS, url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["parent", "child"], done.stderr


def test_a_store_that_was_closed_says_so() -> None:
    async def used_after_it_was_closed() -> None:
        store = open_async_store("sqlite:///:memory:")
        await store.close()
        await store.close()
        await store.append("talk", [Message.user("Hi")])

    with pytest.raises(StoreUnavailable, match="closed"):
        asyncio.run(used_after_it_was_closed())
