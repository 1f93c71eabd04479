"""The response bodies of the API, and the headers of every response."""

from typing import Any

from chatledger.chat import Reply
from chatledger.conversations import Conversation, Listing, Page, Tail
from chatledger.messages import Message
from chatledger.models.protocol import Finished

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

WELCOME = {
    "message": "Welcome to the Chatledger chatbot API",
    "documentation": "/openapi.json",
    "health": "/health",
}
HEALTHY = {"status": "healthy"}
DELETED = {"message": "Conversation deleted successfully"}

INTERRUPTED = ("stopped", "failed", "timed_out")
"""The stop reasons of replies that ended before the model had finished."""


def reply_body(reply: Reply) -> dict[str, Any]:
    """Return the body for a reply; it has a ``stop_reason`` unless that is ``end_turn``."""
    body: dict[str, Any] = {"response": reply.text, "conversation_id": reply.conversation_id}
    if reply.finished.stop_reason != "end_turn":
        body["stop_reason"] = reply.finished.stop_reason
    return body


def done_body(finished: Finished) -> dict[str, Any]:
    """Return the data of the ``done`` event that ends a streamed reply."""
    usage = finished.usage
    return {"stop_reason": finished.stop_reason, "usage": None if usage is None else usage.counts}


def tail_body(tail: Tail) -> dict[str, Any]:
    """Return the body for a conversation and its last messages."""
    newest_first = tail.messages[::-1]
    has_more = len(newest_first) < tail.conversation.message_count
    page = Page(newest_first, newest_first[-1].seq if has_more else None)
    return conversation_body(tail.conversation, page)


def conversation_body(conversation: Conversation, page: Page) -> dict[str, Any]:
    """Return the body for a conversation and a page of its messages, read newest first."""
    body: dict[str, Any] = {
        "conversation_id": conversation.id,
        "user_id": conversation.owner,
        "title": conversation.title,
        "created_at": conversation.created_at.isoformat(timespec="milliseconds"),
        "updated_at": conversation.updated_at.isoformat(timespec="milliseconds"),
        "messages": [_message_body(message) for message in reversed(page.messages)],
        "metadata": {"message_count": conversation.message_count},
    }
    # Included only if there are earlier messages; to get them, clients send it as ``before``.
    if page.next is not None:
        body["next"] = page.next
    return {"conversation": body}


def listing_body(listing: Listing) -> dict[str, Any]:
    """Return the body for a list of conversations."""
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


def _message_body(message: Message) -> dict[str, Any]:
    body = {
        "role": message.role,
        "content": message.content,
        "timestamp": message.created_at.isoformat(timespec="milliseconds"),
        "id": message.id,
        "seq": message.seq,
    }
    if (reason := message.extra.get("stop_reason")) in INTERRUPTED:
        body["stop_reason"] = reason
    return body
