"""Stopping a turn that runs in another process."""

from functools import partial

from chatledger.chat import turn_metadata
from chatledger.chat.options import Terms
from chatledger.conversations import Tail
from chatledger.errors import Conflict
from chatledger.sansio import Steps
from chatledger.stores.contract import AsyncStore, Store


def free(
    store: Store | AsyncStore, terms: Terms, conversation_id: str, owner: str | None
) -> Steps[bool]:
    """Free the conversation from the turn that holds it; whether one did.

    That turn ends when it next says that it still runs, within a third of its lease.
    """
    while True:
        tail: Tail = yield lambda: store.tail(conversation_id, terms.reads, owner=owner)
        n = turn_metadata.last_asked(tail.messages)
        if n is None or turn_metadata.held_until(tail.messages) <= terms.clock():
            return False
        question = tail.messages[n]
        assert question.seq is not None
        try:
            yield partial(
                store.replace,
                conversation_id,
                question.seq,
                turn_metadata.ended(question, "stopped"),
                revision=tail.conversation.revision,
                owner=owner,
            )
        except Conflict:
            continue
        return True
