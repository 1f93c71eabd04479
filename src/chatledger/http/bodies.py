"""The bodies of the API's responses, and the events of its streams."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict, get_args

from msgspec import Meta, convert

from chatledger.chat import LastTurn, Reply, Started
from chatledger.chat.lease import branch_of, finished_event
from chatledger.conversations import Conversation, Found, Listing, Match, Page, Tail
from chatledger.messages import Role, StoredMessage
from chatledger.models.protocol import Finished
from chatledger.values import Json, dumps

MAX_PAGE_BYTES = 1024 * 1024
"""The size at which a page of messages ends; a longer message is a page of its own."""

ResponseBody: TypeAlias = Mapping[str, Any]
"""The body of a response, which is sent as JSON: one of the types below."""

Time: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]

Interruption: TypeAlias = Literal["stopped", "failed", "timed_out"]
INTERRUPTED: tuple[Interruption, ...] = get_args(Interruption)
"""The stop reasons of replies that ended before the model had finished."""


class WelcomeBody(TypedDict):
    """The paths of the API's description, for programs and for people, and of its health check."""

    message: str
    documentation: str
    reference: str
    health: str


class StatusBody(TypedDict):
    """The state of the server: healthy, live or ready."""

    status: Annotated[str, Meta(description="what the check has found")]


class SignInBody(TypedDict):
    """The kind of sign-in: none, with a token that users have, or with OpenID Connect.

    Only the last has more fields than ``kind``, and then all that are not optional at the issuer.
    """

    kind: Literal["none", "token", "oidc"]
    issuer: NotRequired[str]
    client_id: NotRequired[str]
    scope: NotRequired[str]
    audience: NotRequired[str]
    authorization_endpoint: NotRequired[str]
    token_endpoint: NotRequired[str]
    end_session_endpoint: NotRequired[str]
    sends_issuer: NotRequired[bool]


class UsageBody(TypedDict):
    """The tokens of a reply; those of a prompt cache only if there was one."""

    input_tokens: int
    output_tokens: int
    cached_tokens: NotRequired[int]
    cache_write_tokens: NotRequired[int]


BranchId: TypeAlias = Annotated[
    str, Meta(description="the copy of the conversation as it was before the message was edited")
]


class ReplyBody(TypedDict):
    """A reply; ``conversation_id`` is null if nothing is stored."""

    response: str
    conversation_id: str | None
    stop_reason: NotRequired[
        Annotated[str, Meta(description="why the reply is shorter than the model meant it to be")]
    ]
    branch_id: NotRequired[BranchId]


class CreatedBody(TypedDict):
    """The id of a new conversation."""

    conversation_id: str


class DeletedBody(TypedDict):
    """The confirmation that the conversation is deleted."""

    message: str


class DeletedAllBody(TypedDict):
    """The number of conversations that were deleted."""

    deleted: int


class StoppedBody(TypedDict):
    """The answer to a request to stop: true if a reply was being written."""

    stopped: bool


class ModelBody(TypedDict):
    """A model that a request may ask for."""

    id: Annotated[str, Meta(description="the value of model_id")]
    is_default: Annotated[bool, Meta(description="whether requests without a model_id get it")]


class ModelsBody(TypedDict):
    """The models that a request may ask for, and whether it may have a system prompt."""

    models: Annotated[list[ModelBody], Meta(description="the models, the default first")]
    allows_system_prompt: Annotated[
        bool, Meta(description="whether a turn may have a system_prompt")
    ]


class ConversationSummary(TypedDict):
    """A conversation without its messages."""

    conversation_id: str
    title: str | None
    created_at: Time
    updated_at: Time
    message_count: int
    metadata: Annotated[dict[str, Any], Meta(description="the client's own data")]


class ListingBody(TypedDict):
    """A page of a user's conversations."""

    conversations: list[ConversationSummary]
    cursor: Annotated[str | None, Meta(description="the cursor of the next page; null if none")]


class MatchBody(TypedDict):
    """A message, or the title of a conversation, in which the words of a search occur."""

    conversation_id: str
    title: str | None
    seq: Annotated[int | None, Meta(description="the seq of the message; null for a title")]
    role: Annotated[Role | None, Meta(description="the role of the message; null for a title")]
    excerpt: Annotated[str, Meta(description="the text around one of the words")]
    spans: Annotated[
        list[tuple[int, int]],
        Meta(
            description="the places of the words in the excerpt: their starts and ends, in UTF-16 "
            "code units, as JavaScript counts"
        ),
    ]


class FoundBody(TypedDict):
    """The matches that a search has found so far."""

    matches: list[MatchBody]
    cursor: Annotated[
        str | None, Meta(description="the cursor that continues the search; null at its end")
    ]
    complete: Annotated[
        bool, Meta(description="false if there is more to search although there are few matches")
    ]


class MessageBody(TypedDict):
    """A message. A reply has the model that made it, its usage, and why it ended."""

    role: Role
    content: Annotated[str | list[Any], Meta(description="text, or a list of content blocks")]
    timestamp: Time
    id: str
    seq: Annotated[int, Meta(description="its place in the conversation")]
    metadata: NotRequired[dict[str, Any]]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[
        Annotated[str, Meta(description="the tool call whose result the message is")]
    ]
    model: NotRequired[str]
    usage: NotRequired[UsageBody]
    stop_reason: NotRequired[str]
    branch_id: NotRequired[BranchId]


class ConversationWithMessages(TypedDict):
    """A conversation and consecutive messages of it, oldest first.

    The metadata are the client's own, and ``message_count``.
    """

    conversation_id: str
    user_id: str | None
    title: str | None
    created_at: Time
    updated_at: Time
    messages: list[MessageBody]
    metadata: dict[str, Any]
    next: NotRequired[
        Annotated[
            int,
            Meta(
                description="the value of before, or of after if that was sent, for more messages"
            ),
        ]
    ]
    replying: NotRequired[
        Annotated[Literal[True], Meta(description="a reply to the last message is being written")]
    ]


class ConversationBody(TypedDict):
    """A conversation."""

    conversation: ConversationWithMessages


class UpdatedBody(TypedDict):
    """A conversation as it is after a change."""

    conversation: ConversationSummary


class ExportedMessage(TypedDict):
    """A message in an exported file; a field without a value is left out."""

    role: Role
    content: Annotated[str | list[Any], Meta(description="text, or a list of content blocks")]
    created_at: Time
    id: str
    seq: Annotated[int, Meta(description="its place in the conversation")]
    metadata: NotRequired[dict[str, Any]]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[
        Annotated[str, Meta(description="the tool call whose result the message is")]
    ]
    name: NotRequired[Annotated[str, Meta(description="the tool whose result the message is")]]
    status: NotRequired[Annotated[str, Meta(description="error if the tool has failed")]]
    model: NotRequired[str]
    stop_reason: NotRequired[str]
    latency_ms: NotRequired[int]
    usage: NotRequired[UsageBody]


class ExportBody(TypedDict):
    """A conversation as an exported file."""

    format: Literal["chatledger-conversation"]
    version: Literal[1]
    title: str | None
    metadata: dict[str, Any]
    created_at: Time
    exported_at: Time
    messages: list[ExportedMessage]


class StartData(TypedDict):
    """The data of the event ``start``; an id or seq is null if nothing is stored."""

    conversation_id: str | None
    reply_id: Annotated[str | None, Meta(description="the id that the reply will have")]
    seq: Annotated[int | None, Meta(description="the seq of the message that is answered")]
    offset: Annotated[
        int, Meta(description="the number of characters of the reply that are not sent again")
    ]
    branch_id: NotRequired[BranchId]


class PieceData(TypedDict):
    """The data of the event ``piece``: the next part of the reply's text."""

    text: str


class DoneData(TypedDict):
    """The data of the event ``done``, which ends a stream; the usage is null if it is unknown."""

    stop_reason: str
    usage: UsageBody | None


WELCOME: WelcomeBody = {
    "message": "Welcome to the Chatledger chatbot API",
    "documentation": "/openapi.json",
    "reference": "/docs",
    "health": "/health",
}
HEALTHY: StatusBody = {"status": "healthy"}
LIVE: StatusBody = {"status": "live"}
READY: StatusBody = {"status": "ready"}
DELETED: DeletedBody = {"message": "Conversation deleted successfully"}


def reply_body(started: Started, reply: Reply) -> ReplyBody:
    """Return the body for a reply; it has a ``stop_reason`` unless that is ``end_turn``."""
    body: ReplyBody = {"response": reply.text, "conversation_id": reply.conversation_id}
    if reply.finished.stop_reason != "end_turn":
        body["stop_reason"] = reply.finished.stop_reason
    if started.branch_id is not None:
        body["branch_id"] = started.branch_id
    return body


# Conversations and messages -----------------------------------------------------------------------


def tail_body(tail: Tail, *, is_replying: bool) -> ConversationBody:
    """Return the body for a conversation and its last messages."""
    newest_first = tail.messages[::-1]
    has_more = len(newest_first) < tail.conversation.message_count
    page = Page(newest_first, newest_first[-1].seq if has_more else None)
    body = conversation_body(tail.conversation, page)
    if is_replying:
        body["conversation"]["replying"] = True
    return body


def conversation_body(conversation: Conversation, page: Page) -> ConversationBody:
    """Return the body for a conversation and a page of its messages."""
    messages, following = _messages_that_fit(page)
    body: ConversationWithMessages = {
        "conversation_id": conversation.id,
        "user_id": conversation.owner,
        "title": conversation.title,
        "created_at": time_text(conversation.created_at),
        "updated_at": time_text(conversation.updated_at),
        "messages": messages,
        "metadata": {**conversation.metadata, MESSAGE_COUNT: conversation.message_count},
    }
    # Included only if there are more messages; to get them, clients send it as ``before``, or as
    # ``after`` if they have sent that.
    if following is not None:
        body["next"] = following
    return {"conversation": body}


MESSAGE_COUNT = "message_count"
"""The key in the metadata of a conversation that is not the client's."""


def _messages_that_fit(page: Page) -> tuple[list[MessageBody], int | None]:
    """Return the bodies of the first messages, oldest first, and the ``next`` of their page."""
    fitting: list[MessageBody] = []
    size = 0
    for message in page.messages:
        body = message_body(message)
        # As on AWS Lambda, whose response contains the JSON as a string in JSON, with non-ASCII
        # characters escaped.
        size += len(json.dumps(dumps(body)))
        if fitting and size > MAX_PAGE_BYTES:
            return _oldest_first(fitting), fitting[-1]["seq"]
        fitting.append(body)
    return _oldest_first(fitting), page.next


def _oldest_first(messages: list[MessageBody]) -> list[MessageBody]:
    return sorted(messages, key=lambda each: each["seq"])


def listing_body(listing: Listing) -> ListingBody:
    """Return the body for a list of conversations."""
    return {
        "conversations": [summary_of(each) for each in listing.conversations],
        "cursor": listing.cursor,
    }


def summary_of(conversation: Conversation) -> ConversationSummary:
    """Return the body for a conversation without its messages."""
    return {
        "conversation_id": conversation.id,
        "title": conversation.title,
        "created_at": time_text(conversation.created_at),
        "updated_at": time_text(conversation.updated_at),
        "message_count": conversation.message_count,
        "metadata": conversation.metadata,
    }


def found_body(found: Found) -> FoundBody:
    """Return the body for what a search has found."""
    return {
        "matches": [_match_body(match) for match in found.matches],
        "cursor": found.cursor,
        "complete": found.complete,
    }


def _match_body(match: Match) -> MatchBody:
    def units(characters: int) -> int:
        """Return how many UTF-16 code units the first characters of the excerpt take."""
        return len(match.excerpt[:characters].encode("utf-16-le")) // 2

    return {
        "conversation_id": match.conversation_id,
        "title": match.title,
        "seq": match.seq,
        "role": match.role,
        "excerpt": match.excerpt,
        "spans": [(units(span.start), units(span.end)) for span in match.spans],
    }


def message_body(message: StoredMessage) -> MessageBody:
    """Return the body for a message."""
    body: MessageBody = {
        "role": message.role,
        "content": message.content,
        "timestamp": time_text(message.created_at),
        "id": message.id,
        "seq": message.seq,
    }
    if message.metadata:
        body["metadata"] = message.metadata
    if message.tool_calls:
        body["tool_calls"] = message.tool_calls
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if (branch_id := branch_of(message)) is not None:
        body["branch_id"] = branch_id
    if message.role == "assistant":
        body.update(_facts_of_reply(message))
    return body


def _facts_of_reply(reply: StoredMessage) -> MessageBody:
    """Return what a turn has stored with its reply; a reply of other writers has nothing."""
    facts: dict[str, Json] = {
        name: value
        for name in ("model", "stop_reason")
        if isinstance(value := reply.extra.get(name), str)
    }
    usage = finished_event(reply).usage
    if usage is not None:
        facts["usage"] = usage.counts
    return facts  # type: ignore[return-value]  # a part of it


def time_text(time: datetime) -> str:
    """Return the time as responses have it, to the millisecond."""
    return time.isoformat(timespec="milliseconds")


# Events -------------------------------------------------------------------------------------------

DONE = "done"
"""The end of the id of the event ``done``; other ids end in a number of characters."""


def frame(name: str, data: object, id: str | None = None) -> bytes:
    """Return a server-sent event."""
    return _frame(name, dumps(data), id)


_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""JSON escapes of what some clients take for the end of a line, such as Python's ``splitlines``."""


def _frame(name: str, data: str, id: str | None) -> bytes:
    if not data.isascii():
        data = data.translate(_LINE_ENDS)
    id_line = "" if id is None else f"id: {id}\n"
    return f"{id_line}event: {name}\ndata: {data}\n\n".encode()


def start_frame(started: Started, *, offset: int = 0) -> bytes:
    """Return the event ``start`` of a reply whose first ``offset`` characters are not sent."""
    data: StartData = {
        "conversation_id": started.conversation_id,
        "reply_id": started.reply_id,
        "seq": started.seq,
        "offset": offset,
    }
    if started.branch_id is not None:
        data["branch_id"] = started.branch_id
    return frame("start", data, _event_id(started.reply_id, offset))


def piece_frame(reply_id: str | None, text: str, *, end: int) -> bytes:
    """Return the event ``piece`` for text that ends after ``end`` characters of the reply."""
    # A string alone is encoded much faster than an object.
    return _frame("piece", f'{{"text":{dumps(text)}}}', _event_id(reply_id, end))


def done_frame(reply_id: str | None, finished: Finished) -> bytes:
    """Return the event ``done``, which ends a stream."""
    usage = None if finished.usage is None else convert(finished.usage.counts, UsageBody)
    data: DoneData = {"stop_reason": finished.stop_reason, "usage": usage}
    return frame("done", data, _event_id(reply_id, DONE))


def stored_frames(conversation_id: str, turn: LastTurn, *, offset: int) -> Sequence[bytes]:
    """Return the events of a turn that has ended, without the first characters of its reply."""
    assert turn.reply is not None
    text = turn.reply.text
    offset = known_offset(offset, text)
    frames = [stored_start_frame(conversation_id, turn, offset=offset)]
    if text[offset:]:
        frames.append(piece_frame(turn.reply_id, text[offset:], end=len(text)))
    return [*frames, done_frame(turn.reply_id, finished_event(turn.reply))]


def known_offset(offset: int, text: str) -> int:
    """Return ``offset``, or 0 if ``text``, the reply so far, is shorter: nobody can have more."""
    return offset if offset <= len(text) else 0


def stored_start_frame(conversation_id: str, turn: LastTurn, *, offset: int) -> bytes:
    """Return the event ``start`` of a turn that this process does not run."""
    started = Started(conversation_id, turn.reply_id, turn.question.seq, branch_of(turn.question))
    return start_frame(started, offset=offset)


def _event_id(reply_id: str | None, place: object) -> str | None:
    return None if reply_id is None else f"{reply_id}:{place}"
