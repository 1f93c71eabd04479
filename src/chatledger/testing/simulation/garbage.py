"""What of a table nobody needs: of all that is checked here, the one thing that no caller sees."""

from collections.abc import Iterable, Mapping

from chatledger.conversations import Tail
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.records import HEAD, Record, conversation_of, decode_record
from chatledger.stores.dynamodb.table import HOUR, stamp_at


def needless(items: Iterable[Item], living: Mapping[str, Tail], time: int) -> list[str]:
    """Items, each with the reason, that should be gone after a sweep.

    ``living`` is what there is to be read. What TTL is yet to delete does not count.
    """
    found: list[str] = []
    named: set[str] = set()
    parts: list[tuple[str, str]] = []
    for item in items:
        conversation, sort = conversation_of(item["pk"]["S"]), item["sk"]["S"]
        place = f"{conversation} {sort}"
        if "expires_at" in item and int(item["expires_at"]["N"]) < stamp_at(time - 2 * HOUR):
            found.append(f"{place} should have been deleted by TTL")
        tail = living.get(conversation)
        record = decode_record(item) if sort.startswith("m#") else None
        if isinstance(record, Record):
            named.add(record.parts)
        if sort.startswith("b#"):
            parts.append((sort.split("#")[1], place))
        if tail is None:
            if "expires_at" not in item:
                found.append(f"{place} is of no conversation")
        elif isinstance(record, Record):
            seqs = {message.seq for message in tail.messages}
            held = set(range(record.position, record.position + record.messages))
            if not held <= seqs:
                found.append(f"{place} holds messages that were removed")
        elif sort == HEAD and int(item["revision"]["N"]) != tail.conversation.revision:
            found.append(f"{place} lags behind")
    found += [f"{place} is named by no record" for token, place in parts if token not in named]
    return found
