"""Turns of a conversation: store the user's message, get the model's reply, store the reply."""

from chatledger.chat.chat import Chat, SyncChat
from chatledger.chat.lease import LastTurn
from chatledger.chat.protocol import (
    DEFAULT_LEASE,
    Event,
    Hook,
    Reply,
    Started,
    collect,
    collect_sync,
)

__all__ = [
    "DEFAULT_LEASE",
    "Chat",
    "Event",
    "Hook",
    "LastTurn",
    "Reply",
    "Started",
    "SyncChat",
    "collect",
    "collect_sync",
]
