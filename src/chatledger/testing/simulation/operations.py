"""Which operations clients try, and the plan for each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any

from chatledger.conversations import Appended, Conversation, Page, Tail
from chatledger.messages import Message
from chatledger.stores.dynamodb import plans
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.table import Table

OWNERS = ("ada", "bob")
LONG = 300
"""Characters of a long message; limits are set so that it does not fit its record."""
_THEN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Known:
    """What clients know of the conversations, to ask for what is worth asking for."""

    revisions: dict[str, list[int]] = field(default_factory=dict)
    seqs: dict[str, list[int]] = field(default_factory=dict)
    texts: int = 0

    def learn(self, conversation: str, answer: object) -> None:
        match answer:
            case Appended():
                self._add(conversation, answer.revision, answer.seqs)
            case Conversation():
                self._add(answer.id, answer.revision, ())
            case Tail():
                seqs = [message.seq for message in answer.messages if message.seq]
                self._add(conversation, answer.conversation.revision, seqs)
            case Page():
                self.seqs.setdefault(conversation, []).extend(
                    message.seq for message in answer.messages if message.seq
                )

    def _add(self, conversation: str, revision: int, seqs: "range | list[int] | tuple[()]") -> None:
        self.revisions.setdefault(conversation, []).append(revision)
        self.seqs.setdefault(conversation, []).extend(seqs)

    def revision(self, conversation: str, random: Random) -> int:
        """Mostly the latest."""
        revisions = self.revisions.get(conversation)
        chance = random.random()
        if revisions is None or chance < 0.1:
            return 0
        if chance < 0.7:
            return max(revisions[-3:])
        return max(random.choice(revisions) + random.choice((-1, 0, 0, 1, 2)), 0)

    def seq(self, conversation: str, random: Random) -> int:
        seqs = self.seqs.get(conversation)
        if not seqs:
            return random.randrange(4)
        if random.random() < 0.8:
            return random.choice(seqs[-6:])
        return max(random.choice(seqs) + random.choice((-1, 1, 2)), 0)

    def text(self, random: Random, longs: float) -> str:
        self.texts += 1
        label = f"m{self.texts}"
        return label + "." * LONG if random.random() < longs else label


@dataclass(slots=True)
class Taste:
    """What kind of operations a schedule is made of."""

    weights: dict[str, float]
    conversations: tuple[str, ...]
    owners: tuple[str | None, ...]
    """Whose the conversations are, mostly, and others."""
    keys: tuple[str, ...]
    longs: float
    lifetimes: tuple[int | None, ...]

    @property
    def everywhere(self) -> tuple[str, ...]:
        """The conversations, and one that only forks begin."""
        return (*self.conversations, "c") if self.weights["fork"] else self.conversations

    def kind(self, random: Random) -> str:
        return random.choices(tuple(self.weights), tuple(self.weights.values()))[0]


def arguments(
    kind: str, conversation: str, taste: Taste, known: Known, random: Random
) -> dict[str, Any]:
    """Arguments for an operation, drawn so that most of them mean something."""
    chance = random.random()
    owner = None if chance < 0.55 else taste.owners[0]
    if chance > 0.93:
        owner = random.choice(OWNERS)
    given: dict[str, Any] = {"owner": owner}
    match kind:
        case "create":
            given["title"] = random.choice((None, "one", "two"))
            given["metadata"] = random.choice((None, {"n": 1}))
            given["lifetime"] = random.choice(taste.lifetimes)
        case "append":
            many = random.choice((1, 1, 1, 2, 3))
            given["texts"] = [known.text(random, taste.longs) for _ in range(many)]
            given["after"] = (
                known.revision(conversation, random) if random.random() < 0.25 else None
            )
            given["idempotency_key"] = (
                random.choice(taste.keys) if taste.keys and random.random() < 0.4 else None
            )
            given["truncate_after"] = (
                known.seq(conversation, random) if random.random() < 0.15 else None
            )
            given["reply_follows"] = random.random() < 0.2
        case "tail":
            given["n"] = random.choice((1, 2, 3, 100))
        case "page":
            given["after"] = known.seq(conversation, random) if random.random() < 0.4 else None
            given["before"] = known.seq(conversation, random) if random.random() < 0.4 else None
            given["limit"] = random.choice((1, 2, 3, 100))
        case "update":
            given["title"] = random.choice((None, "", "red", "green", "blue"))
            given["metadata"] = random.choice((None, None, {}, {"n": known.texts}))
            given["revision"] = (
                known.revision(conversation, random) if random.random() < 0.3 else None
            )
        case "truncate":
            given["after"] = known.seq(conversation, random) if random.random() < 0.8 else 0
        case "pop":
            given["n"] = random.choice((1, 1, 2, 3))
        case "replace":
            given["seq"] = max(known.seq(conversation, random), 1)
            given["text"] = known.text(random, taste.longs)
            given["revision"] = (
                known.revision(conversation, random) if random.random() < 0.3 else None
            )
        case "fork":
            given["at"] = known.seq(conversation, random) if random.random() < 0.5 else None
            given["new_id"] = random.choice((*taste.everywhere, "c"))
        case "list" | "delete_owner":
            given["owner"] = random.choice(OWNERS)
        case "sweep":
            given.clear()
    return given


def plan(kind: str, table: Table, conversation: str, given: dict[str, Any]) -> Plan[Any]:
    return _PLANS[kind](table, conversation, given)


@lru_cache(10_000)
def message(text: str) -> Message:
    return Message.user(text, id=text[:9], created_at=_THEN)


_PLANS: dict[str, Callable[[Table, str, dict[str, Any]], Plan[Any]]] = {
    "create": lambda table, conversation, given: plans.create(
        table,
        conversation,
        owner=given["owner"],
        title=given["title"],
        metadata=given["metadata"],
        expires_in=_timedelta(given["lifetime"]),
    ),
    "append": lambda table, conversation, given: plans.append(
        table,
        conversation,
        [message(text) for text in given["texts"]],
        owner=given["owner"],
        after=given["after"],
        idempotency_key=given["idempotency_key"],
        truncate_after=given["truncate_after"],
        reply_follows=given["reply_follows"],
    ),
    "get": lambda table, conversation, given: plans.get(table, conversation, **given),
    "tail": lambda table, conversation, given: plans.tail(
        table, conversation, given["n"], owner=given["owner"]
    ),
    "page": lambda table, conversation, given: plans.page(table, conversation, **given),
    "update": lambda table, conversation, given: plans.update(table, conversation, **given),
    "truncate": lambda table, conversation, given: plans.truncate(table, conversation, **given),
    "pop": lambda table, conversation, given: plans.pop(
        table, conversation, given["n"], owner=given["owner"]
    ),
    "replace": lambda table, conversation, given: plans.replace(
        table,
        conversation,
        given["seq"],
        message(given["text"]),
        revision=given["revision"],
        owner=given["owner"],
    ),
    "fork": lambda table, conversation, given: plans.fork(table, conversation, **given),
    "delete": lambda table, conversation, given: plans.delete(table, conversation, **given),
    "list": lambda table, conversation, given: plans.list_owned(
        table, given["owner"], limit=100, cursor=None
    ),
    "delete_owner": lambda table, conversation, given: plans.delete_owner(table, given["owner"]),
    "sweep": lambda table, conversation, given: plans.sweep(table),
}

EVERYTHING = {"after": None, "before": None, "limit": 1_000, "owner": None}


def _timedelta(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)
