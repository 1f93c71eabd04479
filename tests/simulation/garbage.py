"""Find garbage in a table: items that nobody needs and that no caller can see.

This is the only check that looks at the table instead of at answers.
"""

from collections.abc import Iterable, Mapping

from chatledger.conversations import Tail
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.entry_items import decode_entry
from chatledger.stores.dynamodb.records import HEAD, Record, conversation_of, decode_record
from chatledger.stores.dynamodb.table import HOUR, ttl_at
from chatledger.values import loads
from tests.simulation.operations import OWNER_PLACES


def find_garbage(
    items: Iterable[Item], live: Mapping[str, Tail], entries: Mapping[str, set[str]], time: int
) -> list[str]:
    """Return a description of each item that should not exist after a complete sweep.

    Args:
        items: All items of the table.
        live: The whole of each live conversation, by id.
        entries: The names of the entries of each conversation and owner.
        time: The true time, in ms since 1970. Items with a TTL in the future are not garbage.
    """
    found: list[str] = []
    named_tokens: set[str] = set()
    body_parts: list[tuple[str, str]] = []
    for item in items:
        conversation, sort = conversation_of(item["pk"]["S"]), item["sk"]["S"]
        name = f"{conversation} {sort}"
        if "expires_at" in item and int(item["expires_at"]["N"]) < ttl_at(time - 2 * HOUR):
            found.append(f"{name} should have been deleted by TTL")
        tail = live.get(conversation)
        record = decode_record(item) if sort.startswith("m#") else None
        if isinstance(record, Record):
            named_tokens.update(record.body_tokens)
        if sort.startswith("e#"):
            entry = decode_entry(item)
            named_tokens.add(entry.body_token)
            if entry.is_deleted or entry.name in entries[conversation]:
                continue
            # One that has expired by itself has a TTL.
            if "expires_at" not in item or (entry.expiry is None and conversation in live):
                found.append(f"{name} is an entry that nobody sees")
            continue
        if sort.startswith("b#"):
            body_parts.append((sort.split("#")[1], name))
        if tail is None and conversation not in OWNER_PLACES:
            if "expires_at" not in item:
                found.append(f"{name} belongs to no conversation")
        elif tail is not None and isinstance(record, Record):
            seqs = {message.seq for message in tail.messages}
            if not _held_seqs(record) <= seqs:
                found.append(f"{name} holds messages that were removed")
            if record.truncated and record.revision == tail.conversation.revision:
                found.append(f"{name} still names what was removed")
        elif (
            tail is not None
            and sort == HEAD
            and int(item["revision"]["N"]) != tail.conversation.revision
        ):
            found.append(f"{name} is not up to date")
    found += [
        f"{name} is named by nothing" for token, name in body_parts if token not in named_tokens
    ]
    return found


def _held_seqs(record: Record) -> set[int]:
    """Return the seqs of the messages whose text the record, or its parts, should still hold."""
    seqs = range(record.position, record.position + record.messages)
    if record.body is not None:
        return {seq for seq, value in zip(seqs, loads(record.body), strict=True) if value}
    removed = {seq for first, last in record.removed for seq in range(first, last + 1)}
    return set(seqs) - removed
