"""The records of a thread, checkpoints and pending writes, and the messages that hold them.

A thread is a conversation that no list shows, and a record is a message of it. A record of more
than ``PIECE_CHARACTERS`` is split over several messages, which are appended together.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

import ormsgpack
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from chatledger.errors import InvalidArgument, MessageTooLarge, StoreMismatch
from chatledger.langgraph.dictionary import DICTIONARY
from chatledger.langgraph.values import Leaf, Node
from chatledger.messages import Message, Role
from chatledger.stores.arguments import checked_id
from chatledger.values import to_datetime

PREFIX: Final = "chatledger:langgraph:"
PIECE_CHARACTERS: Final = 12 * 1024 * 1024
"""The most characters of a record in one message; a message may have 16 MiB as JSON."""
MAX_PIECES: Final = 5
"""The most messages of one record; an append may have 64 MiB as JSON."""
RAW: Final = -15
"""The format of zlib without a header and a checksum, which would take 10 bytes."""
HIGHEST_LEVEL_BYTES: Final = 64 * 1024
"""Records up to this size are compressed as far as zlib can; for larger ones that takes long."""

# The role of a message says which piece of a record it holds.
WHOLE: Final = "user"
FIRST_PIECE: Final = "system"
MIDDLE_PIECE: Final = "assistant"
LAST_PIECE: Final = "tool"
_TIME = to_datetime(0)  # a checkpoint has its own, and DynamoDB bills every byte


@dataclass(slots=True, eq=False, kw_only=True)
class StoredCheckpoint:
    """A checkpoint as the thread stores it.

    Attributes:
        seq: The seq of its record.
        namespace: Its namespace.
        id: Its id.
        parent: The checkpoint before it.
        latest_id: The latest of its own id and those of its ancestors. Ids sort by the clocks of
            their processes, which differ, but a checkpoint is newer than its parent.
        rest: The checkpoint without its id and the values of its channels.
        metadata: Its metadata.
        channels: The value of each channel that has one.
        is_hidden: True if it was pruned, and is only kept because values of delta channels are
            built from it.
    """

    seq: int
    namespace: str
    id: str
    parent: "StoredCheckpoint | None"
    rest: Leaf
    metadata: Leaf
    channels: dict[str, Node]
    is_hidden: bool = False
    latest_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.latest_id = self.id if self.parent is None else max(self.id, self.parent.latest_id)


@dataclass(slots=True, eq=False, kw_only=True)
class StoredWrites:
    """The writes of one task, as the thread stores them.

    Attributes:
        seq: The seq of its record.
        namespace: The namespace of the checkpoint after which the task ran.
        checkpoint_id: That checkpoint, whose own record may follow later.
        task_id: The task.
        task_path: Its path.
        writes: The index, the channel and the value of each write.
        run: The run that wrote them; empty if rivals are not refused, or it began without a
            checkpoint.
    """

    seq: int
    namespace: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: list[tuple[int, str, Node]]
    run: str


StoredRecord = StoredCheckpoint | StoredWrites


def conversation_of(thread_id: object) -> str:
    """Return the id of the conversation that is the thread.

    Raises:
        InvalidArgument: ``thread_id`` is not a text, is empty or is too long.
    """
    if not isinstance(thread_id, str):
        raise InvalidArgument(
            f"thread_id is of type {type(thread_id).__name__}; pass a str in the config, as in "
            '{"configurable": {"thread_id": "1"}}.'
        )
    checked_id(thread_id, "thread_id")
    return checked_id(PREFIX + thread_id, "thread_id")


def shorten(id: str) -> bytes | str:
    """Return the bytes of a UUID in its usual form; any other id as it is."""
    try:
        uuid = UUID(id)
    except ValueError:
        return id
    return uuid.bytes if str(uuid) == id else id


def lengthen(id: bytes | str) -> str:
    """Return the id that ``shorten`` shortened."""
    return id if isinstance(id, str) else str(UUID(bytes=id))


def leaf_serde(serde: SerializerProtocol) -> SerializerProtocol:
    """Return the serde of single values: that within an ``EncryptedSerializer``.

    A record is encrypted as a whole. Encrypted values would each be new, even if equal.
    """
    return serde.serde if isinstance(serde, EncryptedSerializer) else serde


# Messages -----------------------------------------------------------------------------------------


def encode_record(record: object, serde: SerializerProtocol) -> list[Message]:
    """Return the messages that hold the record.

    Raises:
        InvalidArgument: A name in it is no valid text.
        MessageTooLarge: It has more than ``MAX_PIECES`` pieces.
    """
    try:
        plain = ormsgpack.packb(record)
    except ormsgpack.MsgpackEncodeError as failed:
        raise InvalidArgument(
            "The name of a channel, task or key, or an id, cannot be encoded as UTF-8; give it "
            "another one."
        ) from failed
    level = 9 if len(plain) <= HIGHEST_LEVEL_BYTES else 6
    compressor = zlib.compressobj(level, wbits=RAW, zdict=DICTIONARY)
    type_, data = serde.dumps_typed(compressor.compress(plain) + compressor.flush())
    text = b64encode(data).decode()
    if type_ != "bytes":
        text = f"{type_} {text}"
    pieces = [text[n : n + PIECE_CHARACTERS] for n in range(0, len(text), PIECE_CHARACTERS)]
    if len(pieces) > MAX_PIECES:
        raise MessageTooLarge(
            "The state or write of the graph",
            size=len(text),
            limit=MAX_PIECES * PIECE_CHARACTERS,
            advice="keep large values elsewhere and put links to them into the state",
        )
    roles: list[Role] = [WHOLE]
    if len(pieces) > 1:
        middle: list[Role] = [MIDDLE_PIECE] * (len(pieces) - 2)
        roles = [FIRST_PIECE, *middle, LAST_PIECE]
    return [
        Message(role=role, content=piece, id="-", created_at=_TIME)
        for role, piece in zip(roles, pieces, strict=True)
    ]


def contents_of(messages: Sequence[Message]) -> list[str]:
    """Return the contents of the messages of a record, which are texts."""
    return [cast(str, message.content) for message in messages]


def decode_record(contents: Sequence[str], serde: SerializerProtocol, *, thread_id: str) -> Any:
    """Return the record whose messages have these contents.

    Raises:
        StoreMismatch: ``serde`` is not the one that wrote it, or it is damaged.
    """
    text = "".join(contents)
    type_, separator, encoded = text.partition(" ")
    if not separator:
        type_, encoded = "bytes", text
    try:
        data = serde.loads_typed((type_, b64decode(encoded)))
        return ormsgpack.unpackb(
            zlib.decompressobj(RAW, DICTIONARY).decompress(data), option=ormsgpack.OPT_NON_STR_KEYS
        )
    except Exception as failed:
        raise StoreMismatch(
            f"A record of thread {thread_id!r} cannot be read; open the saver with the serde, and "
            "the key, with which it was written."
        ) from failed


def checkpoint_without_values(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the checkpoint without its id and the values of its channels."""
    return {
        name: value for name, value in checkpoint.items() if name not in ("id", "channel_values")
    }
