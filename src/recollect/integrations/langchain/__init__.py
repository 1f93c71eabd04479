"""LangChain's chat message histories, over a Recollect store or over the table of the old class."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recollect.integrations.langchain.dropin import DynamoDBChatMessageHistory
    from recollect.integrations.langchain.history import (
        OWNED_SESSION,
        ChatMessageHistory,
        MessagePage,
        owned_session_factory,
        session_factory,
    )
    from recollect.integrations.langchain.migration import copy_langchain_table
    from recollect.integrations.langchain.offline import OfflineChatModel
    from recollect.langchain_messages import from_recollect, to_recollect

# Loaded when they are asked for: the drop-in needs boto3, which others need not have.
_MODULES = {
    "ChatMessageHistory": ".history",
    "DynamoDBChatMessageHistory": ".dropin",
    "MessagePage": ".history",
    "OWNED_SESSION": ".history",
    "OfflineChatModel": ".offline",
    "copy_langchain_table": ".migration",
    "from_recollect": "recollect.langchain_messages",
    "owned_session_factory": ".history",
    "session_factory": ".history",
    "to_recollect": "recollect.langchain_messages",
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
            f"{name} needs {package}; install it with pip install 'recollect[{_EXTRAS[package]}]'.",
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
    "from_recollect",
    "owned_session_factory",
    "session_factory",
    "to_recollect",
]
