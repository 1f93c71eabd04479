"""What answers look like."""

from typing import Any

from chatledger.chat import Reply
from chatledger.conversations import Conversation, Listing, Page, Tail
from chatledger.messages import Message
from chatledger.models.protocol import Finished

WELCOME = {
    "message": "Welcome to the Chatledger chatbot API",
    "documentation": "/openapi.json",
    "health": "/health",
}
HEALTHY = {"status": "healthy"}
DELETED = {"message": "Conversation deleted successfully"}

BROKEN_OFF = ("stopped", "failed", "timed_out")
"""How a reply ended that is not all that the model had to say."""


def replied(reply: Reply) -> dict[str, Any]:
    """The reply as a whole; ``stop_reason`` is there where it was cut short."""
    body: dict[str, Any] = {"response": reply.text, "conversation_id": reply.conversation_id}
    if reply.finished.stop_reason != "end_turn":
        body["stop_reason"] = reply.finished.stop_reason
    return body


def done(finished: Finished) -> dict[str, Any]:
    """How a reply ended that was streamed."""
    usage = finished.usage
    return {"stop_reason": finished.stop_reason, "usage": None if usage is None else usage.counts}


def shown_tail(tail: Tail) -> dict[str, Any]:
    """A conversation with its last messages."""
    newest_first = tail.messages[::-1]
    more = len(newest_first) < tail.conversation.message_count
    return shown(tail.conversation, Page(newest_first, newest_first[-1].seq if more else None))


def shown(conversation: Conversation, page: Page) -> dict[str, Any]:
    """A conversation with the messages of ``page``, a page that was read newest first."""
    body: dict[str, Any] = {
        "conversation_id": conversation.id,
        "user_id": conversation.owner,
        "title": conversation.title,
        "created_at": conversation.created_at.isoformat(timespec="milliseconds"),
        "updated_at": conversation.updated_at.isoformat(timespec="milliseconds"),
        "messages": [_message(message) for message in reversed(page.messages)],
        "metadata": {"message_count": conversation.message_count},
    }
    # Only where there are earlier ones: pass it as ``before``.
    if page.next is not None:
        body["next"] = page.next
    return {"conversation": body}


def listed(listing: Listing) -> dict[str, Any]:
    return {
        "conversations": [
            {
                "conversation_id": conversation.id,
                "title": conversation.title,
                "created_at": conversation.created_at.isoformat(timespec="milliseconds"),
                "updated_at": conversation.updated_at.isoformat(timespec="milliseconds"),
                "message_count": conversation.message_count,
            }
            for conversation in listing.conversations
        ],
        "cursor": listing.cursor,
    }


def _message(message: Message) -> dict[str, Any]:
    body = {
        "role": message.role,
        "content": message.content,
        "timestamp": message.created_at.isoformat(timespec="milliseconds"),
        "id": message.id,
        "seq": message.seq,
    }
    if (reason := message.extra.get("stop_reason")) in BROKEN_OFF:
        body["stop_reason"] = reason
    return body
