"""Whatever text names a conversation, an owner or an append, it names one thing."""

from typing import Any

import pytest

from chatledger.conversations import ID_BYTES, IDEMPOTENCY_KEY_BYTES
from chatledger.errors import InvalidArgument, NotFound
from chatledger.messages import new_id
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    NEEDS_ONE,
    Operation,
    begin,
    ids_of,
    list_all,
    look,
    read_all,
    said,
    say,
    unchanged,
)

NEIGHBOURS = [
    "a", "A", "aa", "a ", " a", "a\t", "a\n", "a\r\n", "a\x00", "a\x00b", "a\x00c", "\x00a",
    "a#", "a#b", "#a", "a/b", "a\\b", "a%", "a%25", "a%2F", "a_", "a*", "a?b", "a&b=c", "a+b",
    "a'b", 'a"b', "a;--", "a:b", "a|b", "a~", "a\x7f", "a\uffff", "a\U0010ffff",
    "0", "00", "0.0", "1e3", "1000", "null", "None", "True",
    "\u00e9", "e\u0301", "\u212b", "\u00c5", "\ufb01", "fi", "\u0131", "i", "I", "\u00df", "ss",
    "\u4f60\u597d", "\u0645\u0631\u062d\u0628\u0627", "\u200b", "\u200b\u200b", "\u202eabc",
    "\N{GRINNING FACE}", "\N{GRINNING FACE}\ufe0f", "\N{FAMILY}", ".", "..", "../a",
]  # fmt: skip
"""Texts that a careless key, collation, pattern or path would take for one another."""

LONGEST = ["x", "\u00e9", "\N{GRINNING FACE}"]


def filled(start: str, character: str, size: int) -> str:
    """A text of exactly ``size`` bytes in UTF-8."""
    room = size - len(start.encode())
    count, rest = divmod(room, len(character.encode()))
    return start + "." * rest + character * count


def no_names(size: int) -> list[Any]:
    """What cannot name anything where a name has at most ``size`` bytes."""
    return ["", "x" * (size + 1), "\u00e9" * (size // 2) + "x", "\ud800", "a\udfff", 7, b"x", True]


class NamingLaws:
    """Ids of conversations, owners and idempotency keys."""

    def test_ids_that_look_alike_are_different_conversations(self, subject: Store) -> None:
        start = new_id()
        ids = {start + name: str(number) for number, name in enumerate(NEIGHBOURS)}
        for conversation_id, text in ids.items():
            with pytest.raises(NotFound):
                subject.get(conversation_id)
            subject.append(conversation_id, say(text))
        for conversation_id, text in ids.items():
            assert subject.get(conversation_id).id == conversation_id
            assert said(read_all(subject, conversation_id)) == [text]
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
                subject.append(conversation_id, say(str(number)), idempotency_key=key)
        assert said(read_all(subject, conversation_id)) == [str(n) for n in range(len(NEIGHBOURS))]

    def test_a_conversation_and_its_keys_do_not_meet_those_of_a_longer_id(
        self, subject: Store
    ) -> None:
        start = new_id()
        subject.append(start, say("1"), idempotency_key="b#c")
        subject.append(start + "#b", say("2"), idempotency_key="c")
        subject.append(start + "b", say("3"), idempotency_key="#c")
        for conversation_id, text in ((start, "1"), (start + "#b", "2"), (start + "b", "3")):
            assert said(read_all(subject, conversation_id)) == [text]

    @pytest.mark.parametrize("character", LONGEST)
    def test_names_may_be_as_long_as_is_said_and_differ_at_their_end(
        self, subject: Store, character: str
    ) -> None:
        longest = filled(new_id(), character, ID_BYTES)
        sibling = longest[:-1] + ("y" if character == "x" else "." * len(character.encode()))
        owner = filled(new_id(), character, ID_BYTES)
        key = filled("", character, IDEMPOTENCY_KEY_BYTES)
        for conversation_id in (longest, sibling):
            assert len(conversation_id.encode()) == ID_BYTES
            for _ in range(2):
                subject.append(conversation_id, say("1"), owner=owner, idempotency_key=key)
            assert said(read_all(subject, conversation_id)) == ["1"]
        listed = list_all(subject, owner, limit=1)
        assert set(ids_of(listed)) == {longest, sibling}
        assert {conversation.owner for conversation in listed} == {owner}
        subject.delete(longest, owner=owner)
        assert look(subject, sibling) is not None

    @pytest.mark.parametrize("operation", NEEDS_ONE.values(), ids=NEEDS_ONE)
    def test_no_operation_takes_what_cannot_be_a_name(
        self, subject: Store, operation: Operation
    ) -> None:
        it = begin(subject, "hello", owner=new_id())
        for bad in no_names(ID_BYTES):
            with unchanged(subject, it.id), pytest.raises(InvalidArgument):
                operation(subject, it, bad)
        for bad in [*no_names(ID_BYTES), None]:
            with pytest.raises(InvalidArgument):
                operation(subject, it._replace(id=bad), None)

    @pytest.mark.parametrize("bad", no_names(ID_BYTES), ids=lambda bad: repr(bad)[:9])
    def test_nothing_is_started_under_what_cannot_be_a_name(self, subject: Store, bad: Any) -> None:
        it = begin(subject, "hello")
        starts = (
            lambda: subject.create(bad),
            lambda: subject.create(owner=bad),
            lambda: subject.append(bad, say("hello")),
            lambda: subject.append(it.id, say("hello"), owner=bad),
            lambda: subject.fork(it.id, new_id=bad),
            lambda: subject.list(bad),
            lambda: subject.delete_owner(bad),
        )
        for start in starts:
            with unchanged(subject, it.id), pytest.raises(InvalidArgument):
                start()

    def test_nobody_is_no_owner(self, subject: Store) -> None:
        nobody: Any = None
        it = begin(subject, "anonymous")
        for call in (subject.list, subject.delete_owner):
            with unchanged(subject, it.id), pytest.raises(InvalidArgument):
                call(nobody)

    @pytest.mark.parametrize("bad", no_names(IDEMPOTENCY_KEY_BYTES), ids=lambda bad: repr(bad)[:9])
    def test_what_cannot_be_an_idempotency_key_is_refused(self, subject: Store, bad: Any) -> None:
        for conversation_id in (begin(subject, "hello").id, new_id()):
            with unchanged(subject, conversation_id), pytest.raises(InvalidArgument):
                subject.append(conversation_id, say("refused"), idempotency_key=bad)
