"""Conversations as the store itself would have written them, made without it, for tests that need
more of them than there is time to append.
"""

from collections.abc import Iterable
from datetime import datetime

from chatledger.messages import Message, encode, new_id
from chatledger.stores.dynamodb.calls import Item
from chatledger.stores.dynamodb.compression import listed
from chatledger.stores.dynamodb.records import HEAD, LAYOUT, Record, encode_record, key
from chatledger.stores.dynamodb.table import milliseconds, moment, stamp_at


def records(
    messages: Iterable[Message],
    *,
    owner: str | None,
    created_at: datetime,
    first: int = 1,
    after: int = 0,
    count: int = 0,
    expiry: int | None = None,
) -> list[Record]:
    """A record a message, from position ``first`` on, of the life that began at 1.

    ``after`` and ``count`` are the seq and the number of the messages before them, ``expiry`` is
    when all of it expires.
    """
    began = milliseconds(created_at - moment(0))
    made: list[Record] = []
    for position, message in enumerate(messages, first):
        count += 1
        record = Record(
            position=position,
            token=new_id(),
            life=1,
            owner=owner,
            created_at=began,
            updated_at=milliseconds(message.created_at - moment(0)),
            expiry=expiry,
            floor=None if expiry is None else stamp_at(expiry),
            stamp=None if expiry is None else stamp_at(expiry),
            after=after,
            messages=1,
            message_count=count,
            body=listed([encode(message)]),
        )
        made.append(record)
        after = position
    return made


def items(conversation_id: str, made: Iterable[Record]) -> list[Item]:
    return [encode_record(conversation_id, record) for record in made]


def head(conversation_id: str, last: Record) -> Item:
    item = key(conversation_id, HEAD) | {
        "v": {"N": str(LAYOUT)},
        "life": {"N": str(last.life)},
        "created_at": {"N": str(last.created_at)},
        "updated_at": {"N": str(last.updated_at)},
        "message_count": {"N": str(last.message_count)},
        "revision": {"N": str(last.revision)},
    }
    if last.owner is not None:
        item["owner"] = {"S": last.owner}
    if last.expiry is not None:
        item["expiry"] = {"N": str(last.expiry)}
        item["expires_at"] = {"N": str(last.stamp)}
    return item
