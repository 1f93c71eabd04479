"""What conversations should be, kept as plain lists."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from chatledger.conversations import Appended, Conversation
from chatledger.messages import Message, new_id
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import Seen, seq_of

DAY = timedelta(days=1)


@dataclass
class Life:
    """A conversation from its start to its end."""

    conversation: Conversation
    lifetime: timedelta | None
    messages: list[Message] = field(default_factory=list)
    answers: dict[str, tuple[Appended, datetime]] = field(default_factory=dict)
    deleted_at: datetime | None = None
    listed_late: bool = False
    """A reply was to follow its last append: until another does, a list may not show it."""

    @property
    def ended_at(self) -> datetime | None:
        return self.deleted_at or self.conversation.expires_at

    @property
    def seqs(self) -> list[int]:
        return [seq_of(message) for message in self.messages]

    @property
    def seen(self) -> Seen:
        return Seen(self.conversation, self.messages, self.seqs)

    def mark(self, number: int) -> int:
        """Some place worth asking for: the revision, a message, nothing, or ahead."""
        revision = self.conversation.revision
        places = [revision, *self.seqs, 0, revision + 1, revision - 1, revision + 1_000]
        return places[number % len(places)]


class Lives:
    """The conversations of two owners and nobody.

    Their revisions are the store's to choose, within its promises, which are checked here;
    everything else can be foretold, as long as the clock stands still between its advances.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lives: dict[str, Life] = {}
        self.starts: Counter[str] = Counter()
        self.ids = [new_id() for _ in range(3)]
        self.owners = [None, new_id(), new_id()]

    def living(self, conversation_id: str) -> Life | None:
        life = self._lives.get(conversation_id)
        if life is None or (life.ended_at is not None and life.ended_at <= self._clock()):
            return None
        return life

    def find(self, place: int, caller: int) -> tuple[str, str | None, Life | None]:
        """A conversation's id, who asks for it, and what there is for them."""
        # Living ones come up twice, or else most operations would find nothing to work on.
        candidates = [*filter(self.living, self.ids), *self.ids]
        conversation_id, owner = candidates[place % len(candidates)], self.owners[caller]
        life = self.living(conversation_id)
        if life and owner not in (None, life.conversation.owner):
            life = None
        return conversation_id, owner, life

    def owned(self, owner: str) -> list[Life]:
        lives = [life for life in map(self.living, self.ids) if life]
        return [life for life in lives if life.conversation.owner == owner]

    def floor(self, conversation_id: str) -> int:
        """What every further revision and seq must lie above; nothing a day after the end."""
        life = self._lives.get(conversation_id)
        if life is None or (life.ended_at is not None and life.ended_at + DAY <= self._clock()):
            return 0
        return life.conversation.revision

    def begin(
        self, conversation_id: str, revision: int, lifetime: timedelta | None = None, **parts: Any
    ) -> Life:
        """A new life is there, with those parts and else empty."""
        assert revision > self.floor(conversation_id)
        self.starts[conversation_id] += 1
        now = self._clock()
        empty = Conversation(
            id=conversation_id,
            owner=None,
            title=None,
            metadata={},
            created_at=now,
            updated_at=now,
            message_count=0,
            revision=revision,
            expires_at=now + lifetime if lifetime else None,
        )
        life = self._lives[conversation_id] = Life(replace(empty, **parts), lifetime)
        return life

    def change(self, life: Life, messages: list[Message], revision: int) -> None:
        """The life's messages are now these, and that was activity."""
        assert revision > life.conversation.revision
        now = self._clock()
        life.messages = messages
        life.listed_late = False
        life.conversation = replace(
            life.conversation,
            message_count=len(messages),
            revision=revision,
            updated_at=now,
            expires_at=now + life.lifetime if life.lifetime else None,
        )

    def keep(self, life: Life, messages: list[Message], revision: int) -> None:
        """Only these of the life's messages remain; where that is all of them, nothing changes."""
        if len(messages) < len(life.messages):
            self.change(life, messages, revision)

    def end(self, life: Life) -> None:
        life.deleted_at = self._clock()
