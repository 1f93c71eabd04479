"""langchain-community's own class, whose items ours reads and which reads ours.

The package is sunset and no dependency: it lies in a folder of its own, without the others that it
asks for, of which its DynamoDB history needs none.
"""

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory

COMMUNITY = Path(__file__).parents[2] / ".cache" / "langchain-community"
"""Put there by ``scripts/test-programs``."""


def old_history(*arguments: Any, **options: Any) -> BaseChatMessageHistory:
    """The old class's ``DynamoDBChatMessageHistory``."""
    if str(COMMUNITY) not in sys.path:
        sys.path.append(str(COMMUNITY))  # behind all else: nothing but the package is from there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = import_module("langchain_community.chat_message_histories.dynamodb")
    history: BaseChatMessageHistory = module.DynamoDBChatMessageHistory(*arguments, **options)
    return history
