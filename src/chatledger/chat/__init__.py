"""One turn of a conversation: the user's message, the model's reply, both remembered."""

from chatledger.chat.chat import Chat
from chatledger.chat.events import Event, Reply, Started, whole, whole_sync
from chatledger.chat.hooks import Hook
from chatledger.chat.options import LEASE
from chatledger.chat.sync import SyncChat

__all__ = ["LEASE", "Chat", "Event", "Hook", "Reply", "Started", "SyncChat", "whole", "whole_sync"]
