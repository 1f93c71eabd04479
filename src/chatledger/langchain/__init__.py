"""LangChain chat message histories, on a Chatledger store or on ``langchain_community``'s table."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chatledger.extras import missing_package_error

if TYPE_CHECKING:
    from chatledger.langchain.dropin import DynamoDBChatMessageHistory
    from chatledger.langchain.history import (
        OWNED_SESSION,
        ChatMessageHistory,
        MessagePage,
        owned_session_factory,
        session_factory,
    )
    from chatledger.langchain.offline import OfflineChatModel
    from chatledger.langchain.table import LangChainTable
    from chatledger.langchain_messages import from_chatledger, to_chatledger

# Imported on first use: the drop-in needs boto3, which users of the others may not have.
_MODULES = {
    "ChatMessageHistory": ".history",
    "DynamoDBChatMessageHistory": ".dropin",
    "LangChainTable": ".table",
    "MessagePage": ".history",
    "OWNED_SESSION": ".history",
    "OfflineChatModel": ".offline",
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
            missing_package_error(name, missing, _EXTRAS[package]), name=missing.name
        ) from missing
    return getattr(module, name)


__all__ = [
    "OWNED_SESSION",
    "ChatMessageHistory",
    "DynamoDBChatMessageHistory",
    "LangChainTable",
    "MessagePage",
    "OfflineChatModel",
    "from_chatledger",
    "owned_session_factory",
    "session_factory",
    "to_chatledger",
]


def __dir__() -> list[str]:
    return __all__
