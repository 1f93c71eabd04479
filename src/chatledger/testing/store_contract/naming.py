"""Laws of ids, owners and idempotency keys: different texts never mean the same thing."""

import pytest

from chatledger.conversations import MAX_ID_BYTES, MAX_IDEMPOTENCY_KEY_BYTES
from chatledger.errors import NotFound
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    ids_of,
    list_all,
    read_all,
    snapshot_if_any,
    start_conversation,
    texts_of,
    user_messages,
)
from chatledger.values import new_id

NEIGHBOURS = [
    "a", "A", "aa", "a ", " a", "a\t", "a\n", "a\r\n", "a\x00", "a\x00b", "a\x00c", "\x00a",
    "a#", "a#b", "#a", "a/b", "a\\b", "a%", "a%25", "a%2F", "a_", "a*", "a?b", "a&b=c", "a+b",
    "a'b", 'a"b', "a;--", "a:b", "a|b", "a~", "a\x7f", "a\uffff", "a\U0010ffff",
    "0", "00", "0.0", "1e3", "1000", "null", "None", "True",
    "\u00e9", "e\u0301", "\u212b", "\u00c5", "\ufb01", "fi", "\u0131", "i", "I", "\u00df", "ss",
    "\u4f60\u597d", "\u0645\u0631\u062d\u0628\u0627", "\u200b", "\u200b\u200b", "\u202eabc",
    "\N{GRINNING FACE}", "\N{GRINNING FACE}\ufe0f", "\N{FAMILY}", ".", "..", "../a",
]  # fmt: skip
"""Texts that a careless key encoding, collation, pattern or path would confuse."""

LONGEST = ["x", "\u00e9", "\N{GRINNING FACE}"]


def text_of_size(start: str, character: str, size: int) -> str:
    """Return a text of exactly ``size`` bytes in UTF-8 that begins with ``start``."""
    room = size - len(start.encode())
    count, rest = divmod(room, len(character.encode()))
    return start + "." * rest + character * count


class NamingLaws:
    """Ids of conversations, ids of owners, and idempotency keys."""

    def test_ids_that_look_alike_are_different_conversations(self, subject: Store) -> None:
        start = new_id()
        ids = {start + name: str(number) for number, name in enumerate(NEIGHBOURS)}
        for conversation_id, text in ids.items():
            with pytest.raises(NotFound):
                subject.get(conversation_id)
            subject.append(conversation_id, user_messages(text))
        for conversation_id, text in ids.items():
            assert subject.get(conversation_id).id == conversation_id
            assert texts_of(read_all(subject, conversation_id)) == [text]
        for conversation_id in list(ids)[::2]:
            subject.delete(conversation_id)
        for conversation_id in list(ids)[1::2]:
            assert subject.get(conversation_id).message_count == 1

    def test_owners_that_look_alike_are_different_owners(
        self, subject: Store, clock: Clock
    ) -> None:
        start = new_id()
        owned = {start + name: new_id() for name in NEIGHBOURS}
        for owner, conversation_id in owned.items():
            subject.create(conversation_id, owner=owner)
        for owner, conversation_id in owned.items():
            assert ids_of(list_all(subject, owner)) == [conversation_id]
            assert subject.get(conversation_id, owner=owner).owner == owner
            with pytest.raises(NotFound):
                subject.get(conversation_id, owner=owner + " ")

    def test_idempotency_keys_that_look_alike_are_different_keys(self, subject: Store) -> None:
        conversation_id = new_id()
        for _ in range(2):
            for number, key in enumerate(NEIGHBOURS):
                subject.append(conversation_id, user_messages(str(number)), idempotency_key=key)
        assert texts_of(read_all(subject, conversation_id)) == [
            str(n) for n in range(len(NEIGHBOURS))
        ]

    def test_keys_of_creations_that_look_alike_are_different_keys(self, subject: Store) -> None:
        owner, start = new_id(), new_id()
        source = start_conversation(subject, "1", owner=owner)
        created: list[set[str]] = []
        copied: list[set[str]] = []
        for _ in range(2):
            created.append(
                {
                    subject.create(owner=owner, idempotency_key=start + name).id
                    for name in NEIGHBOURS
                }
            )
            copied.append(
                {subject.fork(source.id, idempotency_key=start + name).id for name in NEIGHBOURS}
            )
        assert created[0] == created[1]
        assert copied[0] == copied[1]
        ids = {source.id} | created[0] | copied[0]
        assert len(ids) == 1 + 2 * len(NEIGHBOURS)
        assert set(ids_of(list_all(subject, owner))) == ids

    def test_owners_and_keys_of_creations_do_not_run_into_each_other(self, subject: Store) -> None:
        start = new_id()
        names = [name for name in NEIGHBOURS if len(name) < 3]
        pairs = [(start + owner, key) for owner in names[:10] for key in names[:10]]
        ids = {subject.create(owner=owner, idempotency_key=key).id for owner, key in pairs}
        assert len(ids) == len(pairs)
        # No owner is none of the texts that stand for nothing.
        ids = {subject.create(idempotency_key=start).id}
        for owner in ("None", "null", "none", "[null]", "\x00"):
            ids.add(subject.create(owner=owner, idempotency_key=start).id)
        assert len(ids) == 6

    def test_originals_and_keys_of_forks_do_not_run_into_each_other(self, subject: Store) -> None:
        start = new_id()
        ids = set()
        for name in NEIGHBOURS[:10]:
            subject.append(start + name, user_messages("1"))
            for key in NEIGHBOURS[:10]:
                ids.add(subject.fork(start + name, idempotency_key=key).id)
        assert len(ids) == 100

    def test_the_keys_of_a_conversation_do_not_collide_with_those_of_a_longer_id(
        self, subject: Store
    ) -> None:
        start = new_id()
        subject.append(start, user_messages("1"), idempotency_key="b#c")
        subject.append(start + "#b", user_messages("2"), idempotency_key="c")
        subject.append(start + "b", user_messages("3"), idempotency_key="#c")
        for conversation_id, text in ((start, "1"), (start + "#b", "2"), (start + "b", "3")):
            assert texts_of(read_all(subject, conversation_id)) == [text]

    @pytest.mark.parametrize("character", LONGEST)
    def test_names_may_be_as_long_as_the_limit_and_differ_only_at_the_end(
        self, subject: Store, character: str
    ) -> None:
        longest = text_of_size(new_id(), character, MAX_ID_BYTES)
        sibling = longest[:-1] + ("y" if character == "x" else "." * len(character.encode()))
        owner = text_of_size(new_id(), character, MAX_ID_BYTES)
        key = text_of_size("", character, MAX_IDEMPOTENCY_KEY_BYTES)
        for conversation_id in (longest, sibling):
            assert len(conversation_id.encode()) == MAX_ID_BYTES
            for _ in range(2):
                subject.append(
                    conversation_id, user_messages("1"), owner=owner, idempotency_key=key
                )
            assert texts_of(read_all(subject, conversation_id)) == ["1"]
            copies = {subject.fork(conversation_id, idempotency_key=key).id for _ in range(2)}
            assert len(copies) == 1
            subject.delete(copies.pop())
        created = {subject.create(owner=owner, idempotency_key=key).id for _ in range(2)}
        assert len(created) == 1
        subject.delete(created.pop())
        listed = list_all(subject, owner, limit=1)
        assert set(ids_of(listed)) == {longest, sibling}
        assert {conversation.owner for conversation in listed} == {owner}
        subject.delete(longest, owner=owner)
        assert snapshot_if_any(subject, sibling) is not None
