"""A short conversation, what may be asked of its history, and stores that watch who asks."""

import threading
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from chatledger.langchain import ChatMessageHistory

TALK: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("Hi! I'm bob"),
    AIMessage("Hello, bob!"),
    HumanMessage("Whats my name"),
    AIMessage("bob"),
]
SYNC_METHODS: list[Callable[[ChatMessageHistory], object]] = [
    lambda history: history.messages,
    lambda history: history.add_messages(TALK),
    lambda history: history.add_message(TALK[0]),
    lambda history: history.add_user_message("Hi"),
    lambda history: history.add_ai_message("Hello"),
    lambda history: history.clear(),
    lambda history: history.page(),
    lambda history: history.conversation,
    str,
]


class Watched:
    """A store that remembers what it was asked, and in which threads."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked: list[str] = []
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        def asked(*arguments: Any, **options: Any) -> Any:
            self.asked.append(name)
            self.threads.add(threading.get_ident())
            return getattr(self._store, name)(*arguments, **options)

        return asked

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class WatchedAsync(Watched):
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...
