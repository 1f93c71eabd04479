"""LangChain chat message histories, on a Chatledger store or on ``langchain_community``'s table."""

from typing import TYPE_CHECKING

from chatledger.extras import import_on_first_use

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


__getattr__ = import_on_first_use(__name__, _MODULES, _EXTRAS)


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
