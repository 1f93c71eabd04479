"""The operations on entries in random histories, as rules of a hypothesis state machine."""

from datetime import timedelta
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from chatledger.entries import Entry
from chatledger.errors import ChatledgerError, Conflict, NotFound
from chatledger.testing.store_contract.entries import find_entry, read_entries
from chatledger.testing.store_contract.read_rules import (
    ReadRules,
    callers,
    conversations,
    expect,
    lifetimes,
)
from chatledger.testing.store_contract.reference_model import OwnEntries

places = st.none() | conversations
names = st.sampled_from(["a", "ab", "b"])
revisions = st.none() | st.integers(0, 3)


class EntryRules(ReadRules):
    """Callers who put, read and delete entries of the conversations and owners."""

    @rule(
        place=places,
        caller=callers,
        name=names,
        value=st.sampled_from([None, 1, ["x" * 100_000]]),
        revision=revisions,
        lifetime=lifetimes,
    )
    def put_an_entry(
        self,
        place: int | None,
        caller: int,
        name: str,
        value: Any,
        revision: int | None,
        lifetime: timedelta | None,
    ) -> None:
        given, entries = self.choose_entries(place, caller)
        before = None if entries is None else entries.find(name, self.clock())
        expected = entries.number(name, revision) if entries else revision
        with expect(self._error(entries, before, expected)):
            put = self.store.put_entry(
                name=name, value=value, revision=expected, expires_in=lifetime, **given
            )
            assert entries is not None
            expires_at = self.clock() + lifetime if lifetime else None
            assert put == Entry(name, value, put.revision, self.clock(), expires_at)
            if before:
                assert put.revision == before.revision + 1
            else:
                assert put.revision > entries.last_revisions.get(name, 0)
            entries.put(put)

    @rule(place=places, caller=callers, name=names, revision=revisions)
    def delete_an_entry(
        self, place: int | None, caller: int, name: str, revision: int | None
    ) -> None:
        given, entries = self.choose_entries(place, caller)
        before = None if entries is None else entries.find(name, self.clock())
        expected = entries.number(name, revision) if entries else revision
        error = self._error(entries, before, expected) if before else NotFound
        with expect(error):
            self.store.delete_entry(name=name, revision=expected, **given)
            assert entries is not None
            entries.live.pop(name)

    @rule(
        place=places,
        caller=callers,
        prefix=st.sampled_from(["", "a", "b", "c"]),
        limit=st.sampled_from([1, 2, 100]),
    )
    def read_all_entries(self, place: int | None, caller: int, prefix: str, limit: int) -> None:
        given, entries = self.choose_entries(place, caller)
        with expect(None if entries is not None else NotFound):
            assert read_entries(self.store, prefix=prefix, limit=limit, **given) == [
                entry
                for entry in cast(OwnEntries, entries).all(self.clock())
                if entry.name.startswith(prefix)
            ]

    @invariant()
    def every_entry_is_as_expected(self) -> None:
        for owner in self.model.owners[1:]:
            entries = self.model.entries_of_owners[owner]
            read = read_entries(self.store, conversation_id=None, owner=owner)
            assert read == entries.all(self.clock())
        for conversation_id in self.model.ids:
            generation = self.model.find_live(conversation_id)
            for name in ("a", "ab", "b"):
                expected = generation and generation.entries.find(name, self.clock())
                assert find_entry(self.store, name, conversation_id=conversation_id) == expected

    def choose_entries(
        self, place: int | None, caller: int
    ) -> tuple[dict[str, Any], OwnEntries | None]:
        """Return whose entries are meant, as arguments, and the entries; None if there is no
        such conversation for the caller."""
        if place is None:
            owner = self.model.owners[caller or 1]
            return {"conversation_id": None, "owner": owner}, self.model.entries_of_owners[owner]
        conversation_id, owner, generation = self.model.choose(place, caller)
        given = {"conversation_id": conversation_id, "owner": owner}
        return given, generation.entries if generation else None

    @staticmethod
    def _error(
        entries: OwnEntries | None, before: Entry | None, expected: int | None
    ) -> type[ChatledgerError] | None:
        if entries is None:
            return NotFound
        is_expected = expected in (None, before.revision if before else 0)
        return None if is_expected else Conflict
