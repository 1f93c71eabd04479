"""A turn in a process that a test kills: ``python -m tests.chat.crash_process URL``."""

import asyncio
import sys

from chatledger.chat import Chat
from chatledger.stores.urls import open_async_store
from tests.chat.scripted_models import DONE, Gate, ScriptedModel


async def run_turn_until_killed(url: str) -> None:
    async with open_async_store(url) as store:
        chat = Chat(store, ScriptedModel("Well, ", Gate(), DONE))
        async for event in chat.stream("Hi", conversation_id="talk", owner="bob"):
            print(repr(event), flush=True)


if __name__ == "__main__":
    asyncio.run(run_turn_until_killed(sys.argv[1]))
