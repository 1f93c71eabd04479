"""LangGraph's checkpoints and its long-term memory on a Chatledger store."""

from typing import TYPE_CHECKING

from chatledger.extras import import_on_first_use

if TYPE_CHECKING:
    from chatledger.langgraph.saver import ChatledgerSaver
    from chatledger.langgraph.store import ChatledgerStore
    from chatledger.langgraph.table import DynamoDBSaverTable, copy_threads

__all__ = ["ChatledgerSaver", "ChatledgerStore", "DynamoDBSaverTable", "copy_threads"]

# Imported on first use: only copies of tables need boto3.
_MODULES = {
    "ChatledgerSaver": ".saver",
    "ChatledgerStore": ".store",
    "DynamoDBSaverTable": ".table",
    "copy_threads": ".table",
}
_EXTRAS = {
    **dict.fromkeys(("boto3", "botocore"), "dynamodb"),
    **dict.fromkeys(("langgraph", "langchain_core", "ormsgpack"), "langgraph"),
}


__getattr__ = import_on_first_use(__name__, _MODULES, _EXTRAS)


def __dir__() -> list[str]:
    return __all__
