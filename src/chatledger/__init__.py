"""Durable, ordered memory for AI applications, on DynamoDB or one SQLite file."""

from typing import TYPE_CHECKING

from chatledger.conversations import Appended, Conversation, Listing, Page, Tail
from chatledger.errors import (
    AlreadyExists,
    ChatledgerError,
    Conflict,
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
    StoreMismatch,
    StoreUnavailable,
    TurnInProgress,
    UnknownModel,
)
from chatledger.messages import Message
from chatledger.stores.contract import AsyncStore, Store
from chatledger.stores.urls import open_async_store, open_store

if TYPE_CHECKING:
    from chatledger.copying import Copied, Mismatch, Progress, acopy, copy

__all__ = [
    "AlreadyExists",
    "Appended",
    "AsyncStore",
    "ChatledgerError",
    "Conflict",
    "Conversation",
    "Copied",
    "InvalidArgument",
    "InvalidMessage",
    "KeyReused",
    "Listing",
    "Message",
    "MessageTooLarge",
    "Mismatch",
    "ModelError",
    "ModelRefused",
    "ModelThrottled",
    "ModelTimeout",
    "ModelUnavailable",
    "NotFound",
    "Page",
    "Progress",
    "Store",
    "StoreMismatch",
    "StoreUnavailable",
    "Tail",
    "TurnInProgress",
    "UnknownModel",
    "acopy",
    "copy",
    "open_async_store",
    "open_store",
]


def __getattr__(name: str) -> object:
    # With the first use: few programs move data, and all pay for what is imported.
    if name in ("Copied", "Mismatch", "Progress", "acopy", "copy"):
        from chatledger import copying

        return getattr(copying, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
