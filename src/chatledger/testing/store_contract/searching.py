"""Laws of ``search``: words in an owner's own messages and titles, wherever and however written."""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest

from chatledger.conversations import MAX_ID_BYTES, RESERVED_PREFIX, Match
from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.stores.contract import Store
from chatledger.stores.cursors import SearchPlace, encode_cursor
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.helpers import (
    Started,
    search_all,
    start_conversation,
    user_messages,
)
from chatledger.values import new_id

HOUR = timedelta(hours=1)

FOUND = {
    "a word in another case": ("HELLO", "Oh, hello!", ["hello"]),
    "a word without its accents": ("cafe creme", "Un Café crème", ["Café", "crème"]),
    "accents that are characters of their own": ("café", "Un Cafe\u0301.", ["Café"]),
    "an accent that the text lacks": ("Łódź", "from lodz", ["lodz"]),
    "words in any order": ("there hello", "Hello, you there", ["Hello", "there"]),
    "a word every time": ("the", "The cat and the dog", ["The", "the"]),
    "the beginning of the last word": ("brown fo", "a brown fox", ["brown", "fo"]),
    "a word with a soft hyphen": ("cooperate", "They co\u00adoperate", ["co\u00adoperate"]),
    "Hebrew with vowel points": ("שלום עולם", "שָׁלוֹם-עוֹלָם", ["שָׁלוֹם", "עוֹלָם"]),
    "words between signs": ("name", "snake_case-name=(7)", ["name"]),
    "a letter that becomes two": ("strasse", "Die Straße", ["Straße"]),
    "a word before a sign": ("acme rocket", "The Acme™ rocket", ["Acme", "rocket"]),
    "a mathematical capital": ("\U0001d411 is", "\U0001d411 is a set", ["\U0001d411", "is"]),
    "a part of Chinese text": ("東京", "私は東京都に住む", ["東京"]),
    "two parts of Chinese text": ("京都 住む", "私は東京都に住む", ["京都", "住む"]),
    "one Chinese character": ("都", "私は東京都に住む", ["都"]),
    "a part of Thai text": ("สวัส", "คำว่าสวัสดีครับ", ["สวัส"]),
    "words of two scripts": ("iphoneは", "新しいiPhoneは高い", ["iPhone", "は"]),
    "Korean with a particle": ("서울", "내일 서울에서", ["서울"]),
    "Hindi": ("हिन्दी", "यह हिन्दी है", ["हिन्दी"]),
}
"""A query, a text and the words of the text that are found."""
NOT_FOUND = {
    "the beginning of a word before the last": ("hel there", "hello there"),
    "the middle of a word": ("ello", "hello there"),
    "the end of a word": ("lo", "hello there"),
    "only some of the words": ("hello there friend", "hello there"),
    "Chinese characters in another order": ("京東", "東京 東京"),
    "Chinese characters with a space in between": ("東京", "東 京"),
    "Chinese text whose parts are apart": ("東京都", "東京 京都"),
    "a long word with another end": ("x" * 100 + "y", "x" * 100 + "z"),
    "another voiced character": ("パス", "バス"),
}


def seqs_of(matches: list[Match]) -> list[tuple[str, int | None]]:
    return [(match.conversation_id, match.seq) for match in matches]


class SearchingLaws:
    """``search``."""

    def test_words_are_found_however_they_are_written(self, subject: Store) -> None:
        for case, (query, text, words) in FOUND.items():
            owner = new_id()
            given = start_conversation(subject, text, owner=owner)
            found = search_all(subject, owner, query)
            assert seqs_of(found) == [(given.id, given.seqs[0])], case
            [match] = found
            assert [match.excerpt[span.start : span.end] for span in match.spans] == words, case

    def test_texts_without_all_words_of_the_query_are_not_found(self, subject: Store) -> None:
        for case, (query, text) in NOT_FOUND.items():
            owner = new_id()
            start_conversation(subject, text, owner=owner)
            assert search_all(subject, owner, query) == [], case

    def test_messages_of_user_and_assistant_are_searched_and_no_others(
        self, subject: Store
    ) -> None:
        owner, id = new_id(), new_id()
        messages = [
            Message.system("hello"),
            Message.user([{"type": "text", "text": "hello"}, {"type": "image", "url": "hello"}]),
            Message.assistant("hello", tool_calls=[{"id": "1", "name": "hello", "args": {}}]),
            Message.tool("hello", tool_call_id="1"),
            Message.assistant(tool_calls=[{"id": "2", "name": "hello", "args": {}}]),
        ]
        appended = subject.append(id, messages, owner=owner, title="A title", metadata={"hello": 1})
        found = search_all(subject, owner, "hello")
        assert [(match.seq, match.role) for match in found] == [
            (appended.seqs[2], "assistant"),
            (appended.seqs[1], "user"),
        ]
        assert {(match.title, match.excerpt) for match in found} == {("A title", "hello")}

    def test_a_title_is_found_before_the_messages_of_its_conversation(self, subject: Store) -> None:
        owner, id = new_id(), new_id()
        subject.append(id, user_messages("to Rome"), owner=owner, title="A trip to Rome")
        title, message = search_all(subject, owner, "rome")
        assert (title.seq, title.role, title.excerpt) == (None, None, "A trip to Rome")
        assert (message.seq, message.title) == (1, "A trip to Rome")
        assert [match.seq for match in search_all(subject, owner, "trip rome")] == [None]

    def test_the_excerpt_of_a_long_text_shows_the_words_and_where_it_is_cut(
        self, subject: Store
    ) -> None:
        owner = new_id()
        start_conversation(
            subject, "far " * 500 + "\n\nnear\tthe 🦊 fox " + "away " * 500, owner=owner
        )
        [match] = search_all(subject, owner, "fox")
        assert "far near the 🦊 fox away" in match.excerpt
        assert (match.excerpt[0], match.excerpt[-1]) == ("…", "…")
        assert 100 < len(match.excerpt) < 200
        [span] = match.spans
        assert match.excerpt[span.start : span.end] == "fox"

    def test_only_conversations_of_the_owner_that_are_listed_are_searched(
        self, subject: Store
    ) -> None:
        owner = new_id()
        mine = start_conversation(subject, "hello", owner=owner)
        start_conversation(subject, "hello", owner=owner + "#")
        start_conversation(subject, "hello")
        start_conversation(
            subject, "hello", owner=owner, conversation_id=f"{RESERVED_PREFIX}{new_id()}"
        )
        claimed = start_conversation(subject, "hello")
        assert seqs_of(search_all(subject, owner, "hello")) == [(mine.id, mine.seqs[0])]
        subject.claim(claimed.id, owner)
        assert len(search_all(subject, owner, "hello")) == 2

    @pytest.mark.parametrize("limit", [1, 2, 3, 20])
    def test_every_match_is_found_once_newest_first(
        self, subject: Store, clock: Clock, limit: int
    ) -> None:
        owner, expected = new_id(), list[tuple[str, int | None]]()
        for number in range(4):
            clock.advance(timedelta(seconds=1))
            id = new_id()
            texts = user_messages("hello 1", "other", "hello 2", "hello 3")
            title = "Hello" if number % 2 else "Other"
            seqs = subject.append(id, texts, owner=owner, title=title).seqs
            titles = [(id, None)] if number % 2 else []
            expected = [*titles, *((id, seqs[n]) for n in (3, 2, 0)), *expected]
        assert seqs_of(search_all(subject, owner, "hello", limit=limit)) == expected

    def test_a_search_of_nothing_is_complete(self, subject: Store) -> None:
        owner = new_id()
        for _ in range(2):
            found = subject.search(owner, "hello")
            assert (found.matches, found.cursor, found.complete) == ((), None, True)
            start_conversation(subject, "other", owner=owner)

    @pytest.mark.parametrize(
        "end",
        [
            lambda store, given: store.delete(given.id),
            lambda store, given: store.delete_owner(given.owner),
            lambda store, given: store.clear(given.id),
            lambda store, given: store.truncate(given.id, after=given.seqs[0]),
            lambda store, given: store.pop(given.id, 2),
            lambda store, given: store.remove(given.id, given.seqs[1]),
            lambda store, given: store.replace(given.id, given.seqs[1], Message.user("better")),
            lambda store, given: store.append(
                given.id, user_messages("better"), truncate_after=given.seqs[0]
            ),
        ],
        ids=[
            *("delete", "delete_owner", "clear", "truncate", "pop", "remove", "replace"),
            "append and truncate",
        ],
    )
    def test_text_that_is_gone_is_not_found_and_what_replaces_it_is(
        self, subject: Store, end: Callable[[Store, Started], object]
    ) -> None:
        owner = new_id()
        given = start_conversation(subject, "kept", "secret", "last", owner=owner)
        assert len(search_all(subject, owner, "secret")) == 1
        end(subject, given)
        assert search_all(subject, owner, "secret") == []
        left = {message.text for message in _messages(subject, given)}
        for text in ("kept", "last", "better"):
            assert len(search_all(subject, owner, text)) == (text in left)

    def test_expired_conversations_are_not_found(self, subject: Store, clock: Clock) -> None:
        owner = new_id()
        start_conversation(subject, "hello", owner=owner, expires_in=HOUR)
        lasting = start_conversation(subject, "hello", owner=owner)
        assert len(search_all(subject, owner, "hello")) == 2
        clock.advance(HOUR)
        assert seqs_of(search_all(subject, owner, "hello")) == [(lasting.id, lasting.seqs[0])]

    def test_a_new_title_is_found_and_the_old_one_is_not(self, subject: Store) -> None:
        owner = new_id()
        id = subject.create(owner=owner, title="Old").id
        assert seqs_of(search_all(subject, owner, "old")) == [(id, None)]
        subject.update(id, title="New")
        assert search_all(subject, owner, "old") == []
        assert seqs_of(search_all(subject, owner, "new")) == [(id, None)]

    def test_what_is_appended_after_a_search_is_found_by_the_next(self, subject: Store) -> None:
        owner = new_id()
        given = start_conversation(subject, "hello", owner=owner)
        for number in range(1, 4):
            assert len(search_all(subject, owner, "hello")) == number
            subject.append(given.id, user_messages("hello"))

    def test_a_fork_is_found_without_what_it_leaves_out(self, subject: Store) -> None:
        owner = new_id()
        given = start_conversation(subject, "hello", "there", owner=owner)
        assert len(search_all(subject, owner, "hello")) == 1
        fork = subject.fork(given.id, at=given.seqs[0])
        assert {match.conversation_id for match in search_all(subject, owner, "hello")} == {
            given.id,
            fork.id,
        }
        assert seqs_of(search_all(subject, owner, "there")) == [(given.id, given.seqs[1])]

    def test_a_conversation_with_the_id_of_a_deleted_one_has_none_of_its_words(
        self, subject: Store
    ) -> None:
        owner = new_id()
        given = start_conversation(subject, "secret", owner=owner)
        assert len(search_all(subject, owner, "secret")) == 1
        subject.delete(given.id)
        subject.append(given.id, user_messages("new"), owner=owner)
        assert search_all(subject, owner, "secret") == []
        assert len(search_all(subject, owner, "new")) == 1

    def test_a_long_conversation_is_found_from_its_last_message_to_its_first(
        self, subject: Store
    ) -> None:
        owner, id = new_id(), new_id()
        texts = [f"{'needle' if n % 100 == 7 else 'hay'} {n}" for n in range(1_205)]
        seqs = subject.append(id, user_messages(*texts), owner=owner).seqs
        found = [match.seq for match in search_all(subject, owner, "needle", limit=5)]
        assert found == [seqs[n] for n in reversed(range(7, 1_205, 100))]
        [match] = search_all(subject, owner, "hay 1")[-1:]
        assert match.seq == seqs[1]
        subject.remove(id, seqs[1_107])
        assert len(search_all(subject, owner, "needle")) == len(found) - 1

    def test_a_cursor_still_works_after_its_conversation_was_deleted(
        self, subject: Store, clock: Clock
    ) -> None:
        owner, ids = new_id(), list[str]()
        for _ in range(3):
            clock.advance(timedelta(seconds=1))
            ids.insert(0, start_conversation(subject, "hello", "hello", owner=owner).id)
        first = subject.search(owner, "hello", limit=3)
        assert [match.conversation_id for match in first] == [ids[0], ids[0], ids[1]]
        subject.delete(ids[1])
        rest = subject.search(owner, "hello", cursor=first.cursor)
        assert [match.conversation_id for match in rest] == [ids[2], ids[2]]

    def test_a_cursor_of_another_owner_reveals_nothing_of_theirs(self, subject: Store) -> None:
        mine, theirs = new_id(), new_id()
        start_conversation(subject, "hello", "hello", owner=theirs)
        own = start_conversation(subject, "hello", owner=mine)
        cursor = subject.search(theirs, "hello", limit=1).cursor
        found = subject.search(mine, "hello", cursor=cursor)
        assert {match.conversation_id for match in found} <= {own.id}

    @pytest.mark.parametrize(
        "cursor",
        [
            encode_cursor(1, "an id"),
            SearchPlace(1, "x" * (MAX_ID_BYTES + 1)).encode(),
            SearchPlace(1, "an id", -1).encode(),
        ],
        ids=["of a list", "with a long id", "with a negative seq"],
    )
    def test_a_cursor_that_no_search_returned_is_rejected(
        self, subject: Store, cursor: str
    ) -> None:
        with pytest.raises(InvalidArgument):
            subject.search(new_id(), "hello", cursor=cursor)

    def test_spans_are_in_order_and_do_not_overlap(self, subject: Store) -> None:
        owner = new_id()
        start_conversation(subject, "a aa aaa, 東東東 a", owner=owner)
        [match] = search_all(subject, owner, "東東 aa a")
        assert all(one.end <= other.start for one, other in pairwise(match.spans))
        assert match.spans[-1].end <= len(match.excerpt)


def _messages(store: Store, given: Started) -> list[Message]:
    if given.id not in {each.id for each in store.iter_conversations(given.owner)}:
        return []
    return list(store.iter_messages(given.id))
