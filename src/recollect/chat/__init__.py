"""One turn of a conversation: the user's message, the model's reply, both remembered."""

from recollect.chat.chat import Chat
from recollect.chat.events import Event, Reply, Started, whole, whole_sync
from recollect.chat.hooks import Hook
from recollect.chat.sync import SyncChat
from recollect.chat.terms import LEASE

__all__ = ["LEASE", "Chat", "Event", "Hook", "Reply", "Started", "SyncChat", "whole", "whole_sync"]
