"""Durable, ordered memory for AI applications, on DynamoDB or one SQLite file."""

from recollect.conversations import Appended, Conversation, Listing, Page, Tail
from recollect.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    InvalidMessage,
    MessageTooLarge,
    ModelUnavailable,
    NotFound,
    RecollectError,
    StoreMismatch,
    StoreUnavailable,
    UnknownModel,
)
from recollect.messages import Message
from recollect.stores.contract import AsyncStore, Store
from recollect.stores.urls import open_async_store, open_store

__all__ = [
    "AlreadyExists",
    "Appended",
    "AsyncStore",
    "Conflict",
    "Conversation",
    "InvalidArgument",
    "InvalidMessage",
    "Listing",
    "Message",
    "MessageTooLarge",
    "ModelUnavailable",
    "NotFound",
    "Page",
    "RecollectError",
    "Store",
    "StoreMismatch",
    "StoreUnavailable",
    "Tail",
    "UnknownModel",
    "open_async_store",
    "open_store",
]
