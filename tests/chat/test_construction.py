"""A chat that is given something wrong says so at once, and what to pass instead."""

import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from chatledger.chat import Chat, SyncChat
from chatledger.errors import InvalidArgument
from chatledger.models.offline import OfflineModel
from chatledger.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from chatledger.windows import last
from tests.chat.scripted_models import EchoModel

pytestmark = pytest.mark.anyio

MODEL = OfflineModel()
NewChat: TypeAlias = Callable[..., Chat | SyncChat]


@pytest.fixture(params=[Chat, SyncChat])
async def new_chat(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[NewChat]:
    """Make a chat of either kind, over the right kind of store."""
    async with AsyncSQLiteStore(path) as async_store:
        with SQLiteStore(path) as store:
            yield partial(request.param, async_store if request.param is Chat else store)


def repr_without_address(value: object) -> str:
    return re.sub(r" at 0x\w+", "", repr(value))


class NoId:
    def stream(self, messages: object, *, system_prompt: str | None = None) -> None: ...
    def stream_sync(self, messages: object, *, system_prompt: str | None = None) -> None: ...


async def test_a_sync_store_is_no_store_of_a_chat(path: Path) -> None:
    with SQLiteStore(path) as store:
        given: Any = store
        with pytest.raises(InvalidArgument, match=r"sync store; .*open_async_store.* SyncChat"):
            Chat(given, MODEL)
        SyncChat(store, MODEL)


async def test_an_async_store_is_no_store_of_a_sync_chat(path: Path) -> None:
    async with AsyncSQLiteStore(path) as store:
        given: Any = store
        with pytest.raises(InvalidArgument, match=r"async store; .*open_store.* a Chat"):
            SyncChat(given, MODEL)
        Chat(store, MODEL)


@pytest.mark.parametrize(
    ("store", "named"),
    [
        ("sqlite:///chatledger.db", "type str"),
        (None, "type NoneType"),
        (SQLiteStore, "the class SQLiteStore"),
        (AsyncSQLiteStore, "the class AsyncSQLiteStore"),
    ],
    ids=str,
)
def test_what_is_no_store_is_rejected(store: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"store is .*{named}.* open_async_store"):
        Chat(store, MODEL)
    with pytest.raises(InvalidArgument, match=rf"store is .*{named}.* open_store"):
        SyncChat(store, MODEL)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("offline", "not the name of one; .*open_model"),
        (None, "NoneType; .*open_model"),
        (OfflineModel, "the class OfflineModel"),
        (NoId(), "no id; set its id"),
    ],
    ids=["a name", "None", "a class", "no id"],
)
async def test_what_is_no_model_is_rejected(new_chat: NewChat, model: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"model\b.*{named}"):
        new_chat(model)
    if model is None:
        return  # in a turn, None stands for the chat's model
    chat = new_chat(MODEL)
    starts: list[Callable[[], object]] = [
        lambda: chat.stream("Hi", owner="bob", model=model),
        lambda: chat.regenerate("talk", model=model),
        lambda: chat.edit("talk", 1, "Hi", model=model),
        lambda: chat.stream_without_saving("Hi", model=model),
    ]
    for start in starts:
        with pytest.raises(InvalidArgument, match=rf"model\b.*{named}"):
            start()


def test_a_model_without_a_method_for_the_chat_is_rejected(path: Path) -> None:
    given: Any = EchoModel()  # only async
    with (
        SQLiteStore(path) as store,
        pytest.raises(InvalidArgument, match=r"type EchoModel; .*method stream_sync"),
    ):
        SyncChat(store, given)


class HalfAHook:
    def before_model(self, window: object) -> object:
        return window


class WholeHook(HalfAHook):
    def after_reply(self, reply: object) -> None: ...


@pytest.mark.parametrize(
    "hooks",
    [None, 7, print, [print], [HalfAHook()], WholeHook(), [WholeHook]],
    ids=["None", "7", "a function", "functions", "half a hook", "one hook", "a class"],
)
async def test_what_is_no_list_of_hooks_is_rejected(new_chat: NewChat, hooks: Any) -> None:
    with pytest.raises(InvalidArgument, match="hooks must be a list of objects with the methods"):
        new_chat(MODEL, hooks=hooks)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"window": window} for window in (0, 20, "last(20)", list, last)),
        *({"lease": lease} for lease in (None, 0, 30)),
        *({"time_limit": limit} for limit in (0, 30)),
    ],
    ids=repr_without_address,
)
async def test_invalid_options_are_rejected(new_chat: NewChat, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=rf"{next(iter(wrong))} must be a"):
        new_chat(MODEL, **wrong)


async def test_a_store_whose_methods_are_wrapped_is_known_by_its_class(path: Path) -> None:
    class TracedStore(AsyncSQLiteStore):
        def tail(self, *args: Any, **options: Any) -> Any:  # not a coroutine function
            return super().tail(*args, **options)

    async with TracedStore(path) as store:
        reply = await Chat(store, EchoModel()).send("Hi", owner="bob")
        assert reply.text


async def test_a_turn_of_no_conversation_is_rejected(new_chat: NewChat) -> None:
    chat: Any = new_chat(MODEL)
    for start in (partial(chat.regenerate, None), partial(chat.edit, None, 1, "Hi")):
        with pytest.raises(InvalidArgument, match="conversation_id is None"):
            start()
