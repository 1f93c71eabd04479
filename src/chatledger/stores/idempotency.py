"""Idempotency keys, and fingerprints that identify a call, so that repeating it has no further
effect.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from chatledger.errors import KeyReused
from chatledger.messages import Message
from chatledger.values import new_id, uuid_from_key


def fingerprint(*values: object) -> str:
    """Return a short text that is the same for equal values, which must be JSON or timedelta."""
    text = json.dumps(values, sort_keys=True, default=str)
    return urlsafe_b64encode(sha256(text.encode()).digest()[:15]).decode()


def fingerprint_of_messages(messages: Sequence[Message]) -> str:
    """Return the fingerprint of the messages of an append.

    It leaves out ids, times and metadata: a caller that repeats an append may make the messages
    anew.
    """
    return fingerprint(*([m.role, m.content, m.extra] for m in messages))


def check_key_use(first: str, repeated: str, *, seqs: range | None = None) -> None:
    """Raise ``KeyReused`` unless two calls with one idempotency key have the same fingerprint.

    Args:
        first: The fingerprint of the first call; empty if that was made before there were any.
        repeated: The fingerprint of the other call.
        seqs: The seqs of the messages that the first call appended, if it was an append.
    """
    if first and first != repeated:
        raise KeyReused(
            "The idempotency key was used for another call; use a new key for each call, and the "
            "same key only to repeat it.",
            seqs=seqs,
        )


class Creation(NamedTuple):
    """Fingerprints of the call that created a conversation with an idempotency key."""

    key: str
    call: str

    @classmethod
    def of(cls, idempotency_key: str | None, *arguments: object) -> "Creation | None":
        """Return the fingerprints of a call with these arguments; None if it has no key."""
        if idempotency_key is None:
            return None
        return cls(fingerprint(idempotency_key), fingerprint(*arguments))

    def is_repeated_by(self, other: "Creation | None") -> bool:
        """Return whether the other call repeats this one.

        Raises:
            KeyReused: It has the same key, but other arguments.
        """
        if other is None or other.key != self.key:
            return False
        check_key_use(self.call, other.call)
        return True


def new_id_for(creation: Creation | None, *scope: str | None) -> str:
    """Return an id for a new conversation; with a key, it depends on scope and key alone."""
    return new_id() if creation is None else uuid_from_key(json.dumps([*scope, creation.key]))
