"""LangChain's chat message histories, over a Chatledger store or over the table of the old class."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatledger.langchain.dropin import DynamoDBChatMessageHistory
    from chatledger.langchain.history import (
        OWNED_SESSION,
        ChatMessageHistory,
        MessagePage,
        owned_session_factory,
        session_factory,
    )
    from chatledger.langchain.migration import copy_langchain_table
    from chatledger.langchain.offline import OfflineChatModel
    from chatledger.langchain_messages import from_chatledger, to_chatledger

# Loaded when they are asked for: the drop-in needs boto3, which others need not have.
_MODULES = {
    "ChatMessageHistory": ".history",
    "DynamoDBChatMessageHistory": ".dropin",
    "MessagePage": ".history",
    "OWNED_SESSION": ".history",
    "OfflineChatModel": ".offline",
    "copy_langchain_table": ".migration",
    "from_chatledger": "chatledger.langchain_messages",
    "owned_session_factory": ".history",
    "session_factory": ".history",
    "to_chatledger": "chatledger.langchain_messages",
}
_EXTRAS = {"boto3": "dynamodb", "botocore": "dynamodb", "langchain_core": "langchain"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(_MODULES[name], __name__)
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise ModuleNotFoundError(
            f"{name} needs {package}; install it with pip install 'chatledger[{_EXTRAS[package]}]'.",
            name=missing.name,
        ) from missing
    return getattr(module, name)


__all__ = [
    "OWNED_SESSION",
    "ChatMessageHistory",
    "DynamoDBChatMessageHistory",
    "MessagePage",
    "OfflineChatModel",
    "copy_langchain_table",
    "from_chatledger",
    "owned_session_factory",
    "session_factory",
    "to_chatledger",
]
