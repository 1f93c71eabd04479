"""The operations that clients call: their arguments, and the plan of each."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from chatledger.conversations import DESCRIPTION_FIELDS, Appended, Conversation, Listing, Page, Tail
from chatledger.entries import Entries, Entry
from chatledger.messages import Message
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.plans.repair import repair
from chatledger.stores.dynamodb.table import DAY, HOUR, SECOND, Table
from chatledger.values import to_datetime
from tests.stores.dynamodb.plan_store import plans_on

OWNERS = ("ada", "bob")
COPY = "c"
"""The conversation that only forks and copies create."""
LONG = 300
"""Additional characters of a long message; ``SMALL_LIMITS`` makes such a message not fit its
record, so that it is stored in parts."""
WHOLE_CONVERSATION = {"after": None, "before": None, "limit": 1_000, "owner": None}
"""The arguments of a ``page`` that holds every message."""
_CREATED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Kind(NamedTuple):
    """A kind of operation, as schedules draw it."""

    weight: float
    """Its relative frequency, which schedules vary."""
    is_read: bool = False
    """True if it changes nothing. ``repair`` changes nothing, because nothing is ever damaged."""
    may_be_stale: bool = False
    """True if it may miss the latest changes in a store that was opened for that."""


KINDS = {
    "create": Kind(1.0),
    "append": Kind(6.0),
    "get": Kind(1.0, is_read=True, may_be_stale=True),
    "tail": Kind(2.0, is_read=True, may_be_stale=True),
    "page": Kind(1.5, is_read=True, may_be_stale=True),
    "list": Kind(0.7, is_read=True),
    "update": Kind(1.0),
    "truncate": Kind(1.2),
    "pop": Kind(1.0),
    "replace": Kind(1.2),
    "remove": Kind(1.0),
    "claim": Kind(0.5),
    "fork": Kind(0.8),
    "delete": Kind(1.0),
    "delete_owner": Kind(0.3),
    "sweep": Kind(0.3),
    "restore": Kind(0.5),
    "scan": Kind(0.4, is_read=True, may_be_stale=True),
    "copy": Kind(0.3),
    "repair": Kind(0.3, is_read=True),
    "put_entry": Kind(1.5),
    "entry": Kind(0.7, is_read=True),
    "entries": Kind(0.5, is_read=True),
    "delete_entry": Kind(0.6),
}
ENTRY_KINDS = ("put_entry", "entry", "entries", "delete_entry")
LASTING_ENTRY = "w"
"""An entry that is put before the schedule proper only, so that its TTL must be renewed."""
ENTRY_NAMES = (LASTING_ENTRY, "x", "xy", "z")
OWNER_PLACES = tuple(f"o#{owner}" for owner in OWNERS)
"""What stands in the place of a conversation if an entry belongs to an owner."""


@dataclass(slots=True)
class KnownNumbers:
    """The revisions and seqs that clients have been answered, from which arguments are drawn."""

    revisions: dict[str, list[int]] = field(default_factory=dict)
    seqs: dict[str, list[int]] = field(default_factory=dict)
    metadata_revisions: dict[str, int] = field(default_factory=dict)
    """The metadata revision last seen of each conversation."""
    texts: int = 0
    """The number of message texts made so far."""
    entry_revisions: dict[str, list[int]] = field(default_factory=dict)
    """The revisions seen of the entries of each conversation or owner."""
    texts_of_keys: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """The texts first appended to each conversation with each idempotency key."""

    def add(self, conversation: str, answer: object) -> None:
        """Add the numbers in the answer of an operation."""
        match answer:
            case Appended():
                self._add(conversation, answer.revision, answer.seqs)
            case Conversation():
                self._add(answer.id, answer.revision, ())
                self.metadata_revisions[answer.id] = answer.metadata_revision
            case Tail():
                conversation = answer.conversation.id
                self.metadata_revisions[conversation] = answer.conversation.metadata_revision
                seqs = [message.seq for message in answer.messages if message.seq]
                self._add(conversation, answer.conversation.revision, seqs)
            case Entry():
                self.entry_revisions.setdefault(conversation, []).append(answer.revision)
            case Entries():
                seen = [entry.revision for entry in answer]
                self.entry_revisions.setdefault(conversation, []).extend(seen)
            case Page():
                self.seqs.setdefault(conversation, []).extend(
                    message.seq for message in answer.messages if message.seq
                )

    def _add(self, conversation: str, revision: int, seqs: "range | list[int] | tuple[()]") -> None:
        self.revisions.setdefault(conversation, []).append(revision)
        self.seqs.setdefault(conversation, []).extend(seqs)

    def draw_revision(self, conversation: str, random: Random) -> int:
        """Draw a revision of the conversation, most often the latest known one."""
        revisions = self.revisions.get(conversation)
        chance = random.random()
        if revisions is None or chance < 0.1:
            return 0
        if chance < 0.7:
            return max(revisions[-3:])
        return max(random.choice(revisions) + random.choice((-1, 0, 0, 1, 2)), 0)

    def draw_entry_revision(self, place: str, random: Random) -> int:
        """Draw a revision of an entry, most often one of the last known ones."""
        revisions = self.entry_revisions.get(place)
        if not revisions or random.random() < 0.3:
            return 0
        return random.choice(revisions[-3:]) + random.choice((0, 0, 0, 1))

    def draw_seq(self, conversation: str, random: Random) -> int:
        """Draw a seq of the conversation, most often one of the last known ones."""
        seqs = self.seqs.get(conversation)
        if not seqs:
            return random.randrange(4)
        if random.random() < 0.8:
            return random.choice(seqs[-6:])
        return max(random.choice(seqs) + random.choice((-1, 1, 2)), 0)

    def draw_text(self, random: Random, long_messages: float) -> str:
        """Return a new text, which is long with that probability."""
        self.texts += 1
        label = f"m{self.texts}"
        return label + "." * LONG if random.random() < long_messages else label

    def draw_value(self, random: Random, long_messages: float) -> str:
        """Return a new value of an entry; a long one does not fit its item either."""
        return self.draw_text(random, long_messages) * 2


@dataclass(slots=True)
class Workload:
    """The choices from which the operations of a schedule are drawn."""

    weights: dict[str, float]
    """The relative frequency of each kind of operation."""
    conversations: tuple[str, ...]
    owners: tuple[str | None, ...]
    """The owner of the conversations made beforehand comes first, and is the one used most."""
    idempotency_keys: tuple[str, ...]
    entry_names: tuple[str, ...]
    """The names of entries that are put."""
    long_messages: float
    """The probability that a message, or the value of an entry, is long."""
    lifetimes: tuple[int | None, ...]
    """The lifetimes (ms) with which conversations are created; None: the store's default."""
    lifetimes_of_copies: tuple[int | None, ...]
    """The lifetimes (ms) given to forks; None: that of the original."""
    lifetimes_of_restored: tuple[int | None, ...]
    """The lifetimes (ms) of restored conversations; None: they do not expire."""

    @property
    def all_conversations(self) -> tuple[str, ...]:
        """The conversations, including the one that only forks and copies create."""
        is_copied = self.weights["fork"] or self.weights["copy"]
        return (*self.conversations, COPY) if is_copied else self.conversations

    def choose_kind(self, random: Random) -> str:
        return random.choices(tuple(self.weights), tuple(self.weights.values()))[0]


def description_choices(number: int) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return the choices for each field of a description, by kind of operation.

    ``number`` makes the metadata of an update differ from those of others.
    """
    return {
        "title": {
            "create": (None, "one", "two"),
            "append": (None, None, "three"),
            "update": (None, "", "red", "green", "blue"),
            "restore": (None, "old"),
        },
        "metadata": {
            "create": (None, {"n": 1}),
            "append": (None, None, {"n": 3}),
            "update": (None, None, {}, {"n": number}),
            "restore": ({}, {"n": 0}),
        },
    }


def draw_arguments(
    kind: str,
    conversation: str,
    workload: Workload,
    known_numbers: KnownNumbers,
    random: Random,
    now: int,
) -> dict[str, Any]:
    """Draw the arguments of an operation, most of them such that the operation can succeed.

    ``now`` is the true time in ms since 1970.
    """

    def draw_revision() -> int:
        return known_numbers.draw_revision(conversation, random)

    def draw_seq() -> int:
        return known_numbers.draw_seq(conversation, random)

    def draw_text() -> str:
        return known_numbers.draw_text(random, workload.long_messages)

    def draw_key() -> str | None:
        keys = workload.idempotency_keys
        return random.choice(keys) if keys and random.random() < 0.4 else None

    def draw_description() -> None:
        for name, choices in description_choices(known_numbers.texts).items():
            arguments[name] = random.choice(choices[kind])

    chance = random.random()
    owner = None if chance < 0.55 else workload.owners[0]
    if chance > 0.93:
        owner = random.choice(OWNERS)
    arguments: dict[str, Any] = {"owner": owner}
    match kind:
        case "create":
            draw_description()
            arguments["lifetime"] = random.choice(workload.lifetimes)
            arguments["idempotency_key"] = draw_key()
        case "append":
            many = random.choice((1, 1, 1, 2, 3))
            arguments["texts"] = [draw_text() for _ in range(many)]
            arguments["revision"] = draw_revision() if random.random() < 0.25 else None
            key = arguments["idempotency_key"] = draw_key()
            if key is not None and random.random() < 0.8:
                first_texts = known_numbers.texts_of_keys.setdefault(
                    (conversation, key), arguments["texts"]
                )
                arguments["texts"] = first_texts
            arguments["truncate_after"] = draw_seq() if random.random() < 0.15 else None
            arguments["reply_follows"] = random.random() < 0.2
            draw_description()
            arguments["lifetime"] = random.choice(workload.lifetimes)
        case "tail":
            arguments["limit"] = random.choice((1, 2, 3, 100))
        case "page":
            arguments["after"] = draw_seq() if random.random() < 0.4 else None
            arguments["before"] = draw_seq() if random.random() < 0.4 else None
            arguments["limit"] = random.choice((1, 2, 3, 100))
        case "update":
            draw_description()
            arguments["revision"] = draw_revision() if random.random() < 0.3 else None
            arguments["metadata_revision"] = (
                known_numbers.metadata_revisions.get(conversation, 0)
                if random.random() < 0.3
                else None
            )
        case "claim":
            arguments["owner"] = random.choice(OWNERS)
        case "remove":
            arguments["seq"] = max(draw_seq(), 1)
            arguments["revision"] = draw_revision() if random.random() < 0.3 else None
        case "truncate":
            arguments["after"] = draw_seq() if random.random() < 0.8 else 0
        case "delete":
            arguments["revision"] = draw_revision() if random.random() < 0.3 else None
        case "pop":
            arguments["limit"] = random.choice((1, 1, 2, 3))
        case "replace":
            arguments["seq"] = max(draw_seq(), 1)
            arguments["text"] = draw_text()
            arguments["revision"] = draw_revision() if random.random() < 0.3 else None
        case "fork":
            arguments["at"] = draw_seq() if random.random() < 0.5 else None
            arguments["new_id"] = random.choice((*workload.all_conversations, COPY))
            arguments["lifetime"] = random.choice(workload.lifetimes_of_copies)
            arguments["idempotency_key"] = draw_key()
        case "restore":
            arguments["owner"] = workload.owners[0]
            arguments["after"] = 0 if random.random() < 0.5 else draw_revision()
            arguments["texts"] = [draw_text() for _ in range(random.choice((0, 1, 1, 2)))]
            least = arguments["after"] + max(len(arguments["texts"]), 1)
            arguments["revision"] = least + random.choice((0, 0, 1, 3))
            draw_description()
            # The same for days, so that one id may have two generations that began alike.
            arguments["created_at"] = now - now % (10 * DAY)
            arguments["updated_at"] = now - random.choice((0, 40, HOUR))
            lifetime = random.choice(workload.lifetimes_of_restored)
            arguments["expires_at"] = (
                None if lifetime is None else arguments["updated_at"] + lifetime
            )
        case "scan":
            arguments["owner"] = None
            arguments["limit"] = random.choice((1, 2, 100))
        case "put_entry" | "entry" | "delete_entry":
            arguments["name"] = random.choice(workload.entry_names)
            if kind != "put_entry" and random.random() < 0.1:
                arguments["name"] = LASTING_ENTRY
            if kind == "put_entry":
                arguments["value"] = known_numbers.draw_value(random, workload.long_messages)
                arguments["lifetime"] = random.choice((None, None, None, SECOND, HOUR, 3 * DAY))
            if kind != "entry":
                revision = known_numbers.draw_entry_revision(conversation, random)
                arguments["revision"] = revision if random.random() < 0.4 else None
        case "entries":
            arguments["prefix"] = random.choice(("", "", "x"))
            arguments["limit"] = random.choice((1, 2, 100))
        case "list" | "delete_owner":
            arguments["owner"] = random.choice(OWNERS)
        case "sweep":
            arguments.clear()
    if conversation in OWNER_PLACES:
        arguments["owner"] = OWNERS[OWNER_PLACES.index(conversation)]
    return arguments


def plan_for(kind: str, table: Table, conversation: str, arguments: dict[str, Any]) -> Any:
    """Return the store's plan for that operation."""
    store, given = plans_on(table), dict(arguments)
    if "lifetime" in given:
        given["expires_in"] = _timedelta(given.pop("lifetime"))
    match kind:
        case "append":
            messages = [_message(text) for text in given.pop("texts")]
            return store.append(conversation, messages, **given)
        case "replace":
            message = _message(given.pop("text"))
            return store.replace(conversation, given.pop("seq"), message, **given)
        case "restore":
            messages = [
                _message(text).with_seq(seq)
                for seq, text in enumerate(given["texts"], given["after"] + 1)
            ]
            return store.restore(_restored(conversation, given), messages, revision=given["after"])
        case "repair":
            return repair(table, conversation, **given)
        case "scan":
            return _scan(table, given["limit"])
        case "put_entry" | "entry" | "delete_entry":
            return getattr(store, kind)(_conversation_of(conversation), **given)
        case "entries":
            return _list_entries(table, _conversation_of(conversation), **given)
        case "list":
            return store.list(given["owner"], limit=100)
        case "delete_owner" | "sweep":
            return getattr(store, kind)(**given)
        case _:
            return getattr(store, kind)(conversation, **given)


@lru_cache(10_000)
def _message(text: str) -> Message:
    return Message.user(text, id=text[:9], created_at=_CREATED_AT)


def _restored(conversation: str, arguments: dict[str, Any]) -> Conversation:
    """Return the conversation that ``restore`` is given."""
    expires_at = arguments["expires_at"]
    return Conversation(
        id=conversation,
        owner=arguments["owner"],
        **{name: arguments[name] for name in DESCRIPTION_FIELDS},
        created_at=to_datetime(arguments["created_at"]),
        updated_at=to_datetime(arguments["updated_at"]),
        message_count=0,  # is not used
        revision=arguments["revision"],
        expires_at=None if expires_at is None else to_datetime(expires_at),
    )


def _scan(table: Table, limit: int) -> Plan[Listing]:
    """Scan the whole table, and return all that was listed at once."""
    found: list[Conversation] = []
    cursor: str | None = None
    while True:
        listing = yield from plans_on(table).scan(limit=limit, cursor=cursor)
        found += listing.conversations
        cursor = listing.cursor
        if cursor is None:
            assert len({conversation.id for conversation in found}) == len(found)
            return Listing(found, None)


def _conversation_of(place: str) -> str | None:
    return None if place in OWNER_PLACES else place


def _list_entries(
    table: Table, conversation: str | None, *, owner: str | None, prefix: str, limit: int
) -> Plan[Entries]:
    """List all entries with the prefix, and return all that was listed at once."""
    found: list[Entry] = []
    cursor: str | None = None
    while True:
        page = yield from plans_on(table).entries(
            conversation, owner=owner, prefix=prefix, limit=limit, cursor=cursor
        )
        found += page.entries
        cursor = page.cursor
        if cursor is None:
            names = [entry.name for entry in found]
            assert names == sorted(set(names))
            return Entries(found, None)


def restored_lifetime(updated_at: int, expires_at: int) -> int:
    """Return the lifetime (ms) of a conversation restored with these times."""
    return max(expires_at - updated_at, SECOND)


def _timedelta(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)
