"""langchain-community's history class, to test that it and the drop-in read each other's items.

The package is sunset and not a dependency. It is installed in a folder of its own, without its
dependencies, because its DynamoDB history does not need them.
"""

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory

COMMUNITY = Path(__file__).parents[2] / ".cache" / "langchain-community"
"""Installed by ``scripts/test-programs``."""


def community_history(*arguments: Any, **options: Any) -> BaseChatMessageHistory:
    """Return a ``DynamoDBChatMessageHistory`` of langchain-community."""
    if str(COMMUNITY) not in sys.path:
        sys.path.append(str(COMMUNITY))  # last, so that only the package comes from there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = import_module("langchain_community.chat_message_histories.dynamodb")
    history: BaseChatMessageHistory = module.DynamoDBChatMessageHistory(*arguments, **options)
    return history
