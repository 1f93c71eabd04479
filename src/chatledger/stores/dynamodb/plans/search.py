"""The plan that searches the conversations of an owner, which it reads, the newest first."""

from chatledger.conversations import MAX_REVISION, Found, Match
from chatledger.errors import ConversationDamaged, NotFound
from chatledger.stores.cursors import SearchPlace
from chatledger.stores.dynamodb.calls import Plan
from chatledger.stores.dynamodb.plans.read import get, page, query_heads, tail
from chatledger.stores.dynamodb.table import Table
from chatledger.stores.operations import Get, ReadPage, ReadTail, Search
from chatledger.stores.words import searched_text

MAX_CONVERSATIONS = 100
"""The most conversations that one call reads."""
MAX_MESSAGES = 1_000
"""The most messages that one call reads."""
PAGE_SIZE = 100
"""The most messages that it reads at once."""


def search(table: Table, operation: Search) -> Plan[Found]:
    """Search as ``Store.search`` promises, in a bounded number of conversations and messages."""
    reading = _Reading(table, operation)
    place = operation.place
    if place.before is not None:
        yield from reading.search_conversation(place)
    start = (place.updated_at, place.conversation_id) if place.conversation_id else None
    # One more conversation than is read shows whether there are further ones.
    heads = yield from query_heads(table, operation.owner, MAX_CONVERSATIONS + 1, start)
    for conversation_id, head in heads[:MAX_CONVERSATIONS]:
        if reading.is_over:
            break
        yield from reading.search_conversation(SearchPlace(head.updated_at, conversation_id))
    else:
        if len(heads) <= MAX_CONVERSATIONS and not reading.is_over:
            return Found(tuple(reading.matches), None, complete=True)
    is_full = len(reading.matches) == operation.limit
    return Found(tuple(reading.matches), reading.place.encode(), complete=is_full)


class _Reading:
    """What one call has read and found so far."""

    def __init__(self, table: Table, operation: Search) -> None:
        self._table = table
        self._operation = operation
        self._messages = 0
        """The number of messages read."""
        self.matches: list[Match] = []
        self.place = operation.place
        """The place up to which everything was searched."""
        self.is_over = False
        """True if there are enough matches, or as many messages as one call reads were read."""

    def search_conversation(self, place: SearchPlace) -> Plan[None]:
        """Search a conversation, from ``place.before`` on or with its title."""
        try:
            yield from self._search_conversation(place)
        except (NotFound, ConversationDamaged):  # it has ended, or has no order to search it in
            self.place = place._replace(before=None)

    def _search_conversation(self, place: SearchPlace) -> Plan[None]:
        table, owner, query = self._table, self._operation.owner, self._operation.query
        conversation_id, before = place.conversation_id, place.before
        if before is None:
            read = yield from tail(table, ReadTail(conversation_id, self._page_size, owner))
            conversation, messages = read.conversation, read.messages[::-1]
            has_more = len(messages) < conversation.message_count
            title = conversation.title
            if title and query.occurs_in(title):
                match = Match(conversation_id, title, None, None, *query.excerpt(title))
                self._add(match, place._replace(before=MAX_REVISION))
        else:
            conversation = yield from get(table, Get(conversation_id, owner))
            messages, has_more = [], True
        while True:
            for message in messages:
                if self.is_over:
                    return
                before = message.seq
                self.place = place._replace(before=before)
                self._messages += 1
                text = searched_text(message)
                if query.occurs_in(text):
                    excerpt = query.excerpt(text)
                    match = Match(
                        conversation_id, conversation.title, before, message.role, *excerpt
                    )
                    self._add(match, self.place)
            if not has_more or self.is_over:
                break
            if self._messages >= MAX_MESSAGES:
                self.is_over = True
                return
            following = yield from page(
                table, ReadPage(conversation_id, None, before, self._page_size, owner)
            )
            messages, has_more = following.messages, following.next is not None
        if not self.is_over:
            self.place = place._replace(before=None)
            self.is_over = self._messages >= MAX_MESSAGES

    def _add(self, match: Match, place: SearchPlace) -> None:
        """Add a match, after which the search continues at ``place``."""
        self.matches.append(match)
        self.place = place
        self.is_over = len(self.matches) == self._operation.limit

    @property
    def _page_size(self) -> int:
        return min(PAGE_SIZE, MAX_MESSAGES - self._messages)
