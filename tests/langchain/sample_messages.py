"""A short conversation, the sync methods of a history, and stores that record calls."""

import threading
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from chatledger.langchain import ChatMessageHistory

CONVERSATION: list[BaseMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("Hi! I'm bob"),
    AIMessage("Hello, bob!"),
    HumanMessage("Whats my name"),
    AIMessage("bob"),
]
SYNC_METHODS: list[Callable[[ChatMessageHistory], object]] = [
    lambda history: history.messages,
    lambda history: history.add_messages(CONVERSATION),
    lambda history: history.add_message(CONVERSATION[0]),
    lambda history: history.add_user_message("Hi"),
    lambda history: history.add_ai_message("Hello"),
    lambda history: history.clear(),
    lambda history: history.page(),
    lambda history: history.conversation,
    str,
]


class RecordingStore:
    """A store that records the methods called, and the threads that call them."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: list[str] = []
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        def recorded_call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            self.threads.add(threading.get_ident())
            return getattr(self._store, name)(*arguments, **options)

        return recorded_call

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class AsyncRecordingStore(RecordingStore):
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...
