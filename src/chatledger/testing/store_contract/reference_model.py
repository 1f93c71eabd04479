"""The reference model: what conversations should be, kept as plain lists."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from chatledger.conversations import Appended, Conversation
from chatledger.entries import Entry
from chatledger.messages import StoredMessage
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import Snapshot
from chatledger.values import new_id

DAY = timedelta(days=1)


class KeyedAppend(NamedTuple):
    """An append with an idempotency key."""

    texts: list[str]
    result: Appended
    time: datetime


class KeyedCreation(NamedTuple):
    """A call of ``create`` or ``fork`` with an idempotency key."""

    key: str
    arguments: tuple[object, ...]


@dataclass
class OwnEntries:
    """The entries of one conversation or owner."""

    last_revisions: dict[str, int] = field(default_factory=dict)
    """The highest revision that each name has had, also of conversations before this one."""
    live: dict[str, Entry] = field(default_factory=dict)
    """The entries that were not deleted; some may have expired."""

    def find(self, name: str, now: datetime) -> Entry | None:
        entry = self.live.get(name)
        is_live = entry and (entry.expires_at is None or entry.expires_at > now)
        return entry if is_live else None

    def all(self, now: datetime) -> list[Entry]:
        """Return the entries in the order of their names."""
        return [entry for name in sorted(self.live) if (entry := self.find(name, now))]

    def put(self, entry: Entry) -> None:
        self.live[entry.name] = entry
        self.last_revisions[entry.name] = entry.revision

    def number(self, name: str, choice: int | None) -> int | None:
        """Return by ``choice`` the last revision of the name, 0, or a number next to it."""
        last = self.last_revisions.get(name, 0)
        return None if choice is None else [0, last, last, last + 1][choice]


@dataclass
class Generation:
    """One life of a conversation id, from creation to deletion."""

    conversation: Conversation
    lifetime: timedelta | None
    messages: list[StoredMessage] = field(default_factory=list)
    appends: dict[str, KeyedAppend] = field(default_factory=dict)
    """The appends with an idempotency key, by their keys."""
    creation: KeyedCreation | None = None
    """The call that created it, if that had an idempotency key."""
    entries: OwnEntries = field(default_factory=OwnEntries)
    deleted_at: datetime | None = None
    is_listed_late: bool = False
    """True if the last append said that a reply follows: a list may not show it yet."""

    @property
    def ended_at(self) -> datetime | None:
        return self.deleted_at or self.conversation.expires_at

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.messages]

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.conversation, self.messages, self.seqs)

    def find_repeated(
        self, creation: KeyedCreation | None, owner: str | None
    ) -> KeyedCreation | None:
        """Return the call that created it, if that had the same key and ``owner`` sees it."""
        if self.creation is None or creation is None or self.creation.key != creation.key:
            return None
        return self.creation if owner in (None, self.conversation.owner) else None

    def metadata_revision(self, choice: int) -> int:
        """Return the metadata revision, or by ``choice`` a number near it."""
        revision = self.conversation.metadata_revision
        return max(0, revision + [0, 0, 0, 1, -1, 1_000][choice % 6])

    def number(self, choice: int) -> int:
        """Return a number on the conversation's number line that is worth testing.

        By ``choice``, it is the revision, a seq, 0, or a number near or far beyond the revision.
        """
        revision = self.conversation.revision
        numbers = [revision, *self.seqs, 0, revision + 1, revision - 1, revision + 1_000]
        return numbers[choice % len(numbers)]


class ReferenceModel:
    """The conversations of two owners, and anonymous ones.

    Their revisions are the store's choice within its promises, which are checked here. Everything
    else is predictable while the clock is stopped between its advances.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._generations: dict[str, Generation] = {}
        self.starts: Counter[str] = Counter()
        """The number of generations that each id has had."""
        self.ids = [new_id() for _ in range(3)]
        self.ids_from_keys: dict[tuple[str | None, ...], str] = {}
        """The ids that the store derived from idempotency keys, by what they depend on."""
        self.owners = [None, new_id(), new_id()]
        self.entries_of_owners = {owner: OwnEntries() for owner in self.owners[1:]}
        self.keys = [new_id() for _ in range(2)]

    def find_live(self, conversation_id: str) -> Generation | None:
        """Return the live conversation with this id, or None."""
        generation = self._generations.get(conversation_id)
        if generation is None:
            return None
        if generation.ended_at is not None and generation.ended_at <= self._clock():
            return None
        return generation

    def choose(self, choice: int, caller: int) -> tuple[str, str | None, Generation | None]:
        """Return an id, the caller's owner, and the conversation that this caller sees, if any."""
        # Live ones are listed twice, as otherwise most operations would find no conversation.
        candidates = [*filter(self.find_live, self.ids), *self.ids]
        conversation_id, owner = candidates[choice % len(candidates)], self.owners[caller]
        generation = self.find_live(conversation_id)
        if generation and owner not in (None, generation.conversation.owner):
            generation = None
        return conversation_id, owner, generation

    def owned_by(self, owner: str) -> list[Generation]:
        """Return the live conversations of ``owner``."""
        live = [generation for generation in map(self.find_live, self.ids) if generation]
        return [generation for generation in live if generation.conversation.owner == owner]

    def last_revision(self, conversation_id: str) -> int:
        """Return the number that every new revision and seq of this id must exceed.

        That is 0 from a day after the conversation's end.
        """
        generation = self._generations.get(conversation_id)
        if generation is None:
            return 0
        if generation.ended_at is not None and generation.ended_at + DAY <= self._clock():
            return 0
        return generation.conversation.revision

    def start(
        self, conversation_id: str, revision: int, lifetime: timedelta | None = None, **fields: Any
    ) -> Generation:
        """Record a new conversation with these fields, and otherwise empty."""
        assert revision > self.last_revision(conversation_id)
        self.starts[conversation_id] += 1
        now = self._clock()
        empty = Conversation(
            id=conversation_id,
            owner=None,
            created_at=now,
            updated_at=now,
            message_count=0,
            revision=revision,
            expires_at=now + lifetime if lifetime else None,
        )
        generation = Generation(replace(empty, **fields), lifetime)
        if conversation_id in self._generations:
            former = self._generations[conversation_id].entries
            generation.entries.last_revisions = former.last_revisions
        self._generations[conversation_id] = generation
        return generation

    def set_messages(
        self, generation: Generation, messages: list[StoredMessage], revision: int
    ) -> None:
        """Record a change of the messages, which counts as activity."""
        assert revision > generation.conversation.revision
        now = self._clock()
        generation.messages = messages
        generation.is_listed_late = False
        generation.conversation = replace(
            generation.conversation,
            message_count=len(messages),
            revision=revision,
            updated_at=now,
            expires_at=now + generation.lifetime if generation.lifetime else None,
        )

    def keep_messages(
        self, generation: Generation, messages: list[StoredMessage], revision: int
    ) -> None:
        """Record that only ``messages`` remain; if those are all, nothing changes."""
        if len(messages) < len(generation.messages):
            self.set_messages(generation, messages, revision)

    def delete(self, generation: Generation) -> None:
        """Record that the conversation was deleted."""
        generation.deleted_at = self._clock()
