"""What a Python developer meets first: names, versions, and values that explain themselves."""

from dataclasses import FrozenInstanceError, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import chatledger
from chatledger import InvalidArgument, Message, StoredMessage, open_async_store, open_store

PACKAGES = [
    "chatledger",
    "chatledger.langchain",
    "chatledger.models.bedrock",
    "chatledger.stores.dynamodb",
    "chatledger.stores.sqlite",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_dir_shows_what_is_public_and_nothing_else(package: str) -> None:
    module: Any = import_module(package)
    names = dir(module)
    assert set(module.__all__) <= set(names)
    assert all(hasattr(module, name) for name in names)
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []


def test_the_package_has_its_version() -> None:
    assert chatledger.__version__ == version("chatledger")


@pytest.mark.parametrize("open", [open_store, open_async_store])
@pytest.mark.parametrize("url", [None, Path("chatledger.db"), b"sqlite:///chatledger.db", 7])
def test_a_store_that_is_not_named_by_text_is_refused_with_the_form_of_a_url(
    open: Any, url: Any
) -> None:
    with pytest.raises(InvalidArgument, match=r"pass its URL as text, such as sqlite:///"):
        open(url)


@pytest.mark.parametrize("message", [Message.user("Hi"), Message.user("Hi").with_seq(1)])
@pytest.mark.parametrize("name", ["content", "text", "seq", "unknown"])
def test_setting_a_field_of_a_message_says_how_to_make_a_changed_one(
    message: Any, name: str
) -> None:
    with pytest.raises(FrozenInstanceError, match=rf"{name} cannot be set.*dataclasses\.replace"):
        setattr(message, name, "Hello")
    with pytest.raises(FrozenInstanceError, match="cannot be set"):
        delattr(message, name)
    assert replace(message, content="Hello").text == "Hello"


def test_tails_pages_and_listings_can_be_iterated() -> None:
    with open_store("sqlite:///:memory:") as store:
        store.create("trip", owner="bob")
        store.append("trip", [Message.user("1"), Message.assistant("2")])
        assert [message.text for message in store.tail("trip")] == ["1", "2"]
        assert [message.text for message in store.page("trip", limit=1)] == ["1"]
        assert [conversation.id for conversation in store.list("bob")] == ["trip"]
        assert [conversation.id for conversation in store.scan()] == ["trip"]


def test_a_tail_has_twenty_messages_by_default() -> None:
    with open_store("sqlite:///:memory:") as store:
        store.append("trip", [Message.user(str(number)) for number in range(30)])
        assert len(store.tail("trip").messages) == 20


def test_the_seq_of_a_stored_message_is_an_int_for_type_checkers_too() -> None:
    with open_store("sqlite:///:memory:") as store:
        store.append("trip", [Message.user("1")])
        message: StoredMessage = store.tail("trip").messages[0]
        seq: int = message.seq  # ``make check`` fails here if the type is optional
        assert seq == 1
        assert message == Message.user("1", id=message.id, created_at=message.created_at)
