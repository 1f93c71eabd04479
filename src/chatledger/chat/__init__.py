"""Turns of a conversation: store the user's message, get the model's reply, store the reply."""

from chatledger.chat.chat import Chat, SyncChat
from chatledger.chat.events import Event, Reply, Started, collect, collect_sync
from chatledger.chat.options import DEFAULT_LEASE, Hook

__all__ = [
    "DEFAULT_LEASE",
    "Chat",
    "Event",
    "Hook",
    "Reply",
    "Started",
    "SyncChat",
    "collect",
    "collect_sync",
]
