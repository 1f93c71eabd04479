"""The values of channels as trees, of which a thread stores each part once.

A list is stored element by element. An element that the thread already holds is referred to, and a
list that shares its beginning or end with an earlier one refers to that list. So a list of messages
that grows by one costs one message, whoever has stored it before: a checkpoint, a write or a
snapshot of a delta channel.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from chatledger.errors import InvalidArgument

MAX_DEPTH: Final = 6
"""The levels of dicts and lists that are taken apart; deeper ones are serialized whole."""
LONG_TEXT: Final = 200
"""A dict with a text of this many characters is taken apart, such as one of files by path."""
SHARED_BYTES: Final = 32
"""The least size of a leaf that others refer to; a reference to a smaller one saves nothing."""
MAX_SPLITS: Final = 32
"""The most splits of lists that build on one another, before one is stored in full: a read
follows each piece by itself."""


class Leaf:
    """A serialized value, and where the thread stores it.

    Attributes:
        type: The type that the serde named.
        data: The serialized value.
        seq: The seq of the record that holds it; 0 if none does yet.
        index: Its number among the shared leaves of that record.
    """

    __slots__ = ("_digest", "data", "index", "seq", "type")

    def __init__(self, type: str, data: bytes, seq: int = 0, index: int = 0) -> None:
        self.type, self.data, self.seq, self.index = type, data, seq, index
        self._digest: bytes | None = None

    @property
    def is_shared(self) -> bool:
        """True if other values may refer to it."""
        return len(self.data) >= SHARED_BYTES

    @property
    def digest(self) -> bytes:
        """Identifies the type and the data."""
        if self._digest is None:
            content = self.type.encode() + b"\0" + self.data
            self._digest = blake2b(content, digest_size=16).digest()
        return self._digest

    def is_same(self, other: object) -> bool:
        """Return whether both hold the same."""
        return self is other or (
            isinstance(other, Leaf) and (self.type, self.data) == (other.type, other.data)
        )


class ListNode:
    """A list: the first ``prefix`` and the last ``suffix`` elements of ``base`` around others.

    Attributes:
        seq: The seq of the record that holds it; 0 if none does yet.
        index: Its number among the lists of that record.
        length: The number of elements.
        splits: How often this list and its bases were split.
        first: The first element, if it is known without reading ``base``.
    """

    __slots__ = (
        *("base", "first", "index", "length", "middle"),
        *("prefix", "seq", "splits", "suffix"),
    )

    def __init__(
        self,
        middle: "tuple[Node, ...]",
        base: "ListNode | None" = None,
        *,
        prefix: int = 0,
        suffix: int = 0,
        seq: int = 0,
        index: int = 0,
    ) -> None:
        self.middle, self.base, self.prefix, self.suffix = middle, base, prefix, suffix
        self.seq, self.index = seq, index
        self.length = prefix + len(middle) + suffix
        self.splits: int = 0 if base is None else base.splits + (prefix > 0 and suffix > 0)
        self.first: Node | None = middle[0] if middle else None
        if base is not None and prefix:
            self.first = base.first

    def elements(self) -> "list[Node]":
        """Return the elements; the time is linear in their number and that of the bases."""
        found: list[Node] = []
        ranges: list[tuple[ListNode, int, int]] = [(self, 0, self.length)]
        while ranges:  # not recursive, since each turn may have added a base
            node, start, end = ranges.pop()
            if node.base is None:
                found += node.middle[start:end]
                continue
            tail = node.length - node.suffix
            if end > tail:
                shift = node.base.length - node.length
                ranges.append((node.base, max(start, tail) + shift, end + shift))
            if middle := node.middle[max(start - node.prefix, 0) : max(end - node.prefix, 0)]:
                ranges.append((ListNode(middle), 0, len(middle)))
            if start < node.prefix:  # pushed last, so that it is taken first
                ranges.append((node.base, start, min(end, node.prefix)))
        return found


@dataclass(slots=True, eq=False)
class DictNode:
    """A dict, whose values are stored one by one."""

    items: "dict[str, Node]"


@dataclass(slots=True, eq=False)
class SnapshotNode:
    """The snapshot of a delta channel."""

    value: "Node"


@dataclass(slots=True, eq=False)
class SendNode:
    """A ``Send``, whose argument is stored by itself."""

    send: Leaf
    argument: "Node"


Node: TypeAlias = Leaf | ListNode | DictNode | SnapshotNode | SendNode


def take_apart(value: Any, serde: SerializerProtocol, *, name: str, depth: int = MAX_DEPTH) -> Node:
    """Return the value as a tree of leaves that the thread does not store yet.

    Args:
        value: The value.
        serde: Serializes the leaves.
        name: What the value is, for the error.
        depth: The levels that may still be taken apart.

    Raises:
        InvalidArgument: ``serde`` cannot serialize a part of the value.
    """
    kind = type(value)
    if kind is _DeltaSnapshot:
        return SnapshotNode(take_apart(value.value, serde, name=name, depth=depth))
    if depth and kind is list:
        return ListNode(
            tuple(
                take_apart(each, serde, name=name, depth=depth - 1)
                if type(each).__name__ == "Send"
                else serialize(each, serde, name=name)
                for each in value
            )
        )
    if depth and kind.__name__ == "Send" and hasattr(value, "arg"):
        # Its argument may be the whole state.
        send = copy.copy(value)
        send.arg = None
        argument = take_apart(value.arg, serde, name=name, depth=depth - 1)
        return SendNode(serialize(send, serde, name=name), argument)
    if depth and kind is dict and _has_parts(value):
        return DictNode(
            {
                key: take_apart(part, serde, name=name, depth=depth - 1)
                for key, part in value.items()
            }
        )
    return serialize(value, serde, name=name)


def _has_parts(value: dict[Any, Any]) -> bool:
    return all(type(key) is str for key in value) and any(
        type(part) in (list, dict, _DeltaSnapshot)
        or (isinstance(part, str) and len(part) >= LONG_TEXT)
        for part in value.values()
    )


def serialize(value: Any, serde: SerializerProtocol, *, name: str) -> Leaf:
    """Return the value as one leaf; raise ``InvalidArgument`` if ``serde`` cannot serialize it."""
    try:
        type_, data = serde.dumps_typed(value)
    except Exception as failed:
        raise InvalidArgument(
            f"{name} holds a value of type {type(value).__name__} that the serde cannot serialize; "
            "keep it out of the state, or pass a serde that can, such as "
            "JsonPlusSerializer(pickle_fallback=True)."
        ) from failed
    return Leaf(type_, bytes(data))


def restore(node: Node, serde: SerializerProtocol) -> Any:
    """Return the value that ``take_apart`` took apart; each call makes a new copy."""
    match node:
        case Leaf():
            return serde.loads_typed((node.type, node.data))
        case ListNode():
            return [restore(element, serde) for element in node.elements()]
        case DictNode():
            return {key: restore(part, serde) for key, part in node.items.items()}
        case SnapshotNode():
            return _DeltaSnapshot(restore(node.value, serde))
        case SendNode():
            send = restore(node.send, serde)
            send.arg = restore(node.argument, serde)
            return send


# Encoding -----------------------------------------------------------------------------------------

USUAL_TYPE: Final = "msgpack"


class Tag(IntEnum):
    """The first item of an encoded node, unless that is a leaf of the usual type: bytes alone."""

    LEAF = 0
    SHARED = 1
    LIST = 2
    BUILT_LIST = 3
    DICT = 4
    SNAPSHOT = 5
    SEND = 6


class Stored:
    """The leaves and lists that a thread stores, by their place and by what they hold."""

    def __init__(self) -> None:
        self.leaves: dict[bytes, Leaf] = {}
        self.leaves_of: dict[int, list[Leaf]] = {}
        self.lists_of: dict[int, list[ListNode]] = {}
        self._lists: dict[bytes, tuple[ListNode, ListNode]] = {}
        """By the digest of their first element, the list that was stored last, and the longest."""

    def add_parts(self, seq: int, leaves: list[Leaf], lists: list[ListNode]) -> None:
        """Add those of the record ``seq``."""
        self.leaves_of[seq], self.lists_of[seq] = leaves, lists
        for leaf in leaves:
            self.leaves.setdefault(leaf.digest, leaf)
        for node in lists:
            if isinstance(node.first, Leaf):
                _, longest = self._lists.get(node.first.digest, (node, node))
                if node.length >= longest.length:
                    longest = node
                self._lists[node.first.digest] = node, longest

    def lists_like(self, elements: Sequence[Node]) -> Sequence[ListNode]:
        """Return lists with the same first element, which may have others in common."""
        if not elements or not isinstance(elements[0], Leaf):
            return ()
        return self._lists.get(elements[0].digest, ())


class Encoder:
    """Encodes the nodes of one record; what the thread stores already becomes a reference.

    Args:
        stored: What the thread stores.
        batch_seq: The place of the record in the batch to which all of ``stored`` belongs, if its
            seqs are not known yet; then references are relative to it.
    """

    def __init__(self, stored: Stored, batch_seq: int = 0) -> None:
        self._stored = stored
        self._batch_seq = batch_seq
        self._new: dict[bytes, int] = {}

    def encode(self, node: Node, base: Node | None = None) -> Any:
        """Return the node as a value for MessagePack.

        Args:
            node: The node.
            base: The value that it replaces, with which it probably has elements in common.
        """
        match node:
            case Leaf():
                return self._encode_leaf(node)
            case ListNode():
                return self._encode_list(node, base if isinstance(base, ListNode) else None)
            case DictNode():
                old = base.items if isinstance(base, DictNode) else {}
                parts = {key: self.encode(part, old.get(key)) for key, part in node.items.items()}
                return [Tag.DICT, parts]
            case SnapshotNode():
                old_value = base.value if isinstance(base, SnapshotNode) else base
                return [Tag.SNAPSHOT, self.encode(node.value, old_value)]
            case SendNode():
                send = self.encode(node.send)
                return [Tag.SEND, send, self.encode(node.argument)]

    def reference(self, seq: int) -> int:
        """Return how the record refers to that with this seq: by the seq, or by how far it is."""
        return seq - self._batch_seq

    def _encode_leaf(self, leaf: Leaf) -> Any:
        if leaf.is_shared:
            known = self._stored.leaves.get(leaf.digest)
            if known is not None:
                return [Tag.SHARED, self.reference(known.seq), known.index]
            if leaf.digest in self._new:
                return [Tag.SHARED, 0, self._new[leaf.digest]]
            self._new[leaf.digest] = len(self._new)
        return leaf.data if leaf.type == USUAL_TYPE else [Tag.LEAF, leaf.type, leaf.data]

    def _encode_list(self, node: ListNode, base: ListNode | None) -> Any:
        elements = node.elements()
        prefix = suffix = 0
        for candidate in (base, *self._stored.lists_like(elements)):
            if candidate is None or prefix + suffix + 2 >= len(elements) > 2:
                continue
            common = _common(elements, candidate.elements())
            if sum(common) > prefix + suffix:
                base, (prefix, suffix) = candidate, common
        if base is not None and prefix + suffix >= 2:
            # The earliest list will do that has these elements: a read follows fewer of them.
            while base.base is not None and prefix <= base.prefix and suffix <= base.suffix:
                base = base.base
            if base.splits + (prefix > 0 and suffix > 0) <= MAX_SPLITS:
                middle = elements[prefix : len(elements) - suffix]
                encoded = [self.encode(element) for element in middle]
                seq = self.reference(base.seq)
                return [Tag.BUILT_LIST, seq, base.index, prefix, suffix, encoded]
        return [Tag.LIST, [self.encode(element) for element in elements]]


def _common(new: Sequence[Node], old: Sequence[Node]) -> tuple[int, int]:
    """Return how many elements the two lists have in common at their beginnings and ends."""
    shorter = min(len(new), len(old))
    prefix = 0
    while prefix < shorter and _is_same(new[prefix], old[prefix]):
        prefix += 1
    suffix = 0
    while suffix < shorter - prefix and _is_same(new[-1 - suffix], old[-1 - suffix]):
        suffix += 1
    return prefix, suffix


def _is_same(one: Node, other: Node) -> bool:
    return isinstance(one, Leaf) and one.is_same(other)


class Decoder:
    """Decodes the nodes of the record ``seq``, in the order in which they were encoded."""

    def __init__(self, stored: Stored, seq: int) -> None:
        self._stored = stored
        self._seq = seq
        self.leaves: list[Leaf] = []
        self.lists: list[ListNode] = []

    def decode(self, value: Any) -> Node:
        """Return the node that ``Encoder.encode`` encoded as ``value``."""
        match value:
            case bytes():
                return self._add_leaf(USUAL_TYPE, value)
            case [Tag.LEAF, str(type_), bytes(data)]:
                return self._add_leaf(type_, data)
            case [Tag.SHARED, seq, index]:
                leaves = self._stored.leaves_of[self.resolve(seq)] if seq else self.leaves
                shared: Leaf = leaves[index]
                return shared
            case [Tag.LIST, middle]:
                return self._add_list(middle, None)
            case [Tag.BUILT_LIST, seq, index, prefix, suffix, middle]:
                base = self._stored.lists_of[self.resolve(seq)][index]
                return self._add_list(middle, base, prefix, suffix)
            case [Tag.DICT, parts]:
                return DictNode({key: self.decode(part) for key, part in parts.items()})
            case [Tag.SNAPSHOT, part]:
                return SnapshotNode(self.decode(part))
            case [Tag.SEND, send, argument]:
                leaf = self.decode(send)
                assert isinstance(leaf, Leaf)
                return SendNode(leaf, self.decode(argument))
        raise ValueError("The value is not an encoded node.")

    def resolve(self, reference: int) -> int:
        """Return the seq of the record to which this one refers."""
        return reference if reference > 0 else self._seq + reference

    def _add_leaf(self, type: str, data: bytes) -> Leaf:
        leaf = Leaf(type, data, self._seq, len(self.leaves))
        if leaf.is_shared:
            self.leaves.append(leaf)
        return leaf

    def _add_list(
        self, middle: Any, base: ListNode | None, prefix: int = 0, suffix: int = 0
    ) -> ListNode:
        decoded = tuple(self.decode(element) for element in middle)
        node = ListNode(
            decoded, base, prefix=prefix, suffix=suffix, seq=self._seq, index=len(self.lists)
        )
        self.lists.append(node)
        return node
