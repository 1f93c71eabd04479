"""Items of whole conversations, equal to those the store writes, for tests that need more
messages than there is time to append.
"""

from collections.abc import Iterable
from datetime import datetime

from chatledger.messages import Message, encode
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.records import HEAD, LAYOUT, Record, encode_record, json_list, key
from chatledger.stores.dynamodb.ttl import base_at, ttl_for
from chatledger.values import milliseconds, new_id, to_datetime


def make_records(
    messages: Iterable[Message],
    *,
    owner: str | None,
    created_at: datetime,
    first: int = 1,
    previous_seq: int = 0,
    count: int = 0,
    lifetime: int | None = None,
) -> list[Record]:
    """Return one record per message, from position ``first`` on, of the generation that began at 1.

    ``previous_seq`` and ``count`` are the last seq and the number of the messages before them,
    ``lifetime`` is that of the conversation (ms).
    """
    created = milliseconds(created_at - to_datetime(0))
    records: list[Record] = []
    for position, message in enumerate(messages, first):
        count += 1
        updated = milliseconds(message.created_at - to_datetime(0))
        record = Record(
            position=position,
            token=new_id(updated),
            generation=1,
            owner=owner,
            created_at=created,
            updated_at=updated,
            previous_seq=previous_seq,
            messages=1,
            message_count=count,
            body=json_list([encode(message)]),
        )
        if lifetime is not None:
            record = record._replace(
                lifetime=lifetime,
                expiry=updated + lifetime,
                items=position,
                ttl_base=base_at(created, lifetime),
                ttl=ttl_for(created, lifetime, position),
            )
        records.append(record)
        previous_seq = position
    return records


def record_items(conversation_id: str, records: Iterable[Record]) -> list[Item]:
    return [encode_record(conversation_id, record) for record in records]


def head_item(conversation_id: str, last: Record) -> Item:
    item = key(conversation_id, HEAD) | {
        "v": {"N": str(LAYOUT)},
        "life": {"N": str(last.generation)},
        "created_at": {"N": str(last.created_at)},
        "updated_at": {"N": str(last.updated_at)},
        "message_count": {"N": str(last.message_count)},
        "revision": {"N": str(last.revision)},
    }
    if last.owner is not None:
        item["owner"] = {"S": last.owner}
    if last.expiry is not None:
        item["expiry"] = {"N": str(last.expiry)}
        item["expires_at"] = {"N": str(last.ttl)}
    return item
