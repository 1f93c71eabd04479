"""Durable, ordered memory for AI applications, on DynamoDB or one SQLite file."""

from typing import TYPE_CHECKING

from chatledger.conversations import Appended, Conversation, Found, Listing, Match, Page, Span, Tail
from chatledger.entries import Entries, Entry
from chatledger.errors import (
    AlreadyExists,
    ChatledgerError,
    ClockSkewed,
    Conflict,
    ConversationDamaged,
    DiskFull,
    InvalidArgument,
    InvalidMessage,
    KeyReused,
    MessageTooLarge,
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    ReplyNotStored,
    StoreMismatch,
    StoreUnavailable,
    TurnInProgress,
    UnknownModel,
)
from chatledger.extras import import_on_first_use
from chatledger.messages import Message, StoredMessage
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.operations import StoreCall
from chatledger.stores.urls import open_async_store, open_store

if TYPE_CHECKING:
    __version__: str

    from chatledger.copying import Copied, Problem, Progress, Source, acopy, copy

    # Left out of ``__all__``, because they need boto3 and ``import *`` must work without it.
    from chatledger.copying.tutorial_table import ROLE_NAMES as ROLE_NAMES
    from chatledger.copying.tutorial_table import TutorialTable as TutorialTable

# Imported on first use: few programs copy data, and this code would slow down every other one.
_LAZY = {
    "Copied": "chatledger.copying",
    "Problem": "chatledger.copying",
    "Progress": "chatledger.copying",
    "ROLE_NAMES": "chatledger.copying.tutorial_table",
    "Source": "chatledger.copying",
    "TutorialTable": "chatledger.copying.tutorial_table",
    "acopy": "chatledger.copying",
    "copy": "chatledger.copying",
}
_import = import_on_first_use(__name__, _LAZY, extras={})

__all__ = [
    "AlreadyExists",
    "Appended",
    "AsyncStore",
    "ChatledgerError",
    "ClockSkewed",
    "Conflict",
    "Conversation",
    "ConversationDamaged",
    "Copied",
    "DiskFull",
    "Entries",
    "Entry",
    "Found",
    "InvalidArgument",
    "InvalidMessage",
    "KeyReused",
    "Listing",
    "Match",
    "Message",
    "MessageTooLarge",
    "ModelError",
    "ModelRefused",
    "ModelThrottled",
    "ModelTimeout",
    "ModelUnavailable",
    "NotFound",
    "Page",
    "Problem",
    "Progress",
    "ReplyNotStored",
    "Source",
    "Span",
    "Store",
    "StoreCall",
    "StoreMismatch",
    "StoreUnavailable",
    "StoredMessage",
    "Tail",
    "TurnInProgress",
    "UnknownModel",
    "acopy",
    "copy",
    "open_async_store",
    "open_store",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("chatledger")
    return _import(name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY, "__version__"})
