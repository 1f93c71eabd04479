"""The endpoints of the API, written once for all web frameworks.

An endpoint takes a parsed request, and returns the steps that lead to the body of the response, or
to the events of a turn. A framework parses the request, runs the steps, and sends the response.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import quote

from chatledger.chat import Chat, LastTurn, SyncChat
from chatledger.chat.chat import conversation_id_for
from chatledger.chat.turn import exists
from chatledger.conversations import (
    MAX_LIMIT,
    MAX_QUERY_CHARACTERS,
    MAX_REVISION,
    RESERVED_PREFIX,
    Conversation,
    Listing,
    fields_of,
)
from chatledger.errors import Conflict, InvalidArgument, ModelRefused, NotFound, UnknownModel
from chatledger.http.api import (
    MAX_PAGE_SIZE,
    USER_ID,
    ChatRequest,
    CreateRequest,
    EditRequest,
    ForkRequest,
    Parameter,
    Query,
    RegenerateRequest,
    RequestBody,
    StopRequest,
    TurnRequestBody,
    UpdateRequest,
    Version,
    parse_number,
    version_of,
)
from chatledger.http.bodies import (
    DELETED,
    DONE,
    HEALTHY,
    MESSAGE_COUNT,
    ConversationBody,
    CreatedBody,
    DeletedAllBody,
    DeletedBody,
    FoundBody,
    ListingBody,
    ModelsBody,
    ResponseBody,
    StoppedBody,
    UpdatedBody,
    conversation_body,
    found_body,
    listing_body,
    summary_of,
    tail_body,
)
from chatledger.http.errors import ApiError
from chatledger.http.exports import FORMATS, Export
from chatledger.http.imports import ImportRequest, import_messages
from chatledger.http.limits import Limits
from chatledger.models import Models, OpenedModel
from chatledger.sansio import Steps
from chatledger.stores.arguments import checked_description
from chatledger.stores.contract import AnyStore, AsyncStore
from chatledger.stores.idempotency import Creation, new_id_for
from chatledger.stores.words import Query as WordQuery
from chatledger.values import new_id, uuid_from_key

OpenChat: TypeAlias = Callable[[], Chat | SyncChat]
"""Returns the chat; an endpoint calls it once the request is checked, because it may fail."""


class Rules(NamedTuple):
    """What the operator of a server lets its clients do."""

    models: Models
    limits: Limits
    allow_system_prompt: bool
    """True if a request may add to the chat's system prompt."""


class Given(NamedTuple):
    """A parsed request, and what is needed to answer it."""

    open_chat: OpenChat
    rules: Rules
    user: str | None
    """The signed-in user; None if users do not sign in."""
    caller: str
    """Whose limits apply."""
    query: Query
    body: Any = None
    idempotency_key: str | None = None
    version: Version | None = None
    """The version of the conversation that the request is meant for; None for any."""

    @property
    def store(self) -> AnyStore:
        return self.open_chat().store

    @property
    def is_signed_in(self) -> bool:
        """True if the user has signed in, and so cannot choose the id of a new conversation.

        Such users could take ids that others are about to use, and would learn which ones are
        taken.
        """
        return self.user is not None


class Answer(NamedTuple):
    """The body of a response, and the version of the conversation in it."""

    body: ResponseBody
    version: Version | None = None
    location: str | None = None
    """The address of what was created, relative to that of the request."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        headers = {} if self.version is None else {"ETag": self.version.etag}
        return headers if self.location is None else headers | {"Location": self.location}


LISTED_USER_ID = Parameter("user_id", "the owner of the conversations", is_required=True)
CONVERSATIONS_LIMIT = Parameter(
    "limit", "the most conversations in the response", most=MAX_PAGE_SIZE, default=20
)
CURSOR = Parameter("cursor", "the cursor of the page before")
TITLE_WORDS = Parameter(
    "q",
    "words that must all occur in the title; the last one may be the beginning of a word",
    longest=MAX_QUERY_CHARACTERS,
)
WORDS = Parameter(
    "q",
    "words that must all occur in a message or a title; the last one may be the beginning of a "
    "word",
    longest=MAX_QUERY_CHARACTERS,
    is_required=True,
)
MATCHES_LIMIT = Parameter(
    "limit", "the most matches in the response", most=MAX_PAGE_SIZE, default=20
)
MESSAGES_LIMIT = Parameter(
    "limit", "the most messages in the response", most=MAX_PAGE_SIZE, default=MAX_PAGE_SIZE
)
OWNER = Parameter("user_id", "the owner of the new conversation", is_required=True)
FORMAT = Parameter("format", "the format of the file", choices=tuple(FORMATS))
AFTER = Parameter("after", "the seq after which the messages begin", most=MAX_REVISION, least=0)
BEFORE = Parameter("before", "the seq before which the messages end", most=MAX_REVISION)
ASKING_USER = Parameter("user_id", "the user who asks; all users get the same answer")


def check_health(store: AnyStore) -> Steps[ResponseBody]:
    """Read from the store, which raises an error if it cannot be reached."""
    with suppress(NotFound):
        yield partial(store.get, "health")
    return HEALTHY


def create_conversation(given: Given) -> Steps[Answer]:
    """Create a conversation without messages."""
    request: CreateRequest = given.body
    yield from _count_creation(given, _id_with_key(given, "create", request.user_id))
    created = yield partial(
        given.store.create,
        owner=request.user_id,
        title=request.title,
        metadata=_own_metadata(request.metadata),
        idempotency_key=given.idempotency_key,
    )
    return Answer({"conversation_id": created.id}, version_of(created))


def list_conversations(given: Given) -> Steps[Answer]:
    """List the user's conversations, or those with some words in their titles, page by page."""
    owner, words = _required_user(given.query), given.query.words(TITLE_WORDS)
    limit, cursor = given.query.number(CONVERSATIONS_LIMIT), given.query.get(CURSOR.name)
    if words is None:
        listing = yield partial(given.store.list, owner, limit=limit, cursor=cursor)
    else:
        listing = yield from _list_titled(given.store, owner, words, limit=limit, cursor=cursor)
    return Answer(listing_body(listing))


def _list_titled(
    store: AnyStore, owner: str, words: str, *, limit: int, cursor: str | None
) -> Steps[Listing]:
    """Return those of the next ``MAX_LIMIT`` conversations whose titles have all the words.

    They are at most ``limit``; the cursor continues after the last conversation that was compared.
    """
    query = WordQuery.of(words)
    count = MAX_LIMIT
    while True:
        listing: Listing = yield partial(store.list, owner, limit=count, cursor=cursor)
        places = [
            place
            for place, conversation in enumerate(listing.conversations)
            if conversation.title is not None and query.occurs_in(conversation.title)
        ]
        if len(places) <= limit:
            found = [listing.conversations[place] for place in places]
            return Listing(found, listing.cursor)
        count = places[limit - 1] + 1  # read again, for the cursor after the last one returned


def search_conversations(given: Given) -> Steps[Answer]:
    """Search the user's messages and the titles of their conversations for words."""
    owner, words = _required_user(given.query), given.query.words(WORDS)
    limit, cursor = given.query.number(MATCHES_LIMIT), given.query.get(CURSOR.name)
    assert words is not None, "it is required"
    found = yield partial(given.store.search, owner, words, limit=limit, cursor=cursor)
    return Answer(found_body(found))


def delete_conversations(given: Given) -> Steps[Answer]:
    """Delete all conversations of the user."""
    owner = _required_user(given.query)
    deleted = yield partial(given.store.delete_owner, owner)
    given.rules.limits.note_deletion(given.caller)
    return Answer({"deleted": deleted})


def read_conversation(given: Given, *, conversation_id: str) -> Steps[Answer]:
    """Return a conversation with its last messages, or those before or after a seq.

    Raises ``ApiError`` if the query has both ``before`` and ``after``.
    """
    _require_shown(conversation_id)
    query, owner = given.query, given.query.user_id()
    limit = query.number(MESSAGES_LIMIT)
    before, after = (
        None if query.get(each.name) is None else query.number(each) for each in (BEFORE, AFTER)
    )
    if before is not None and after is not None:
        raise ApiError(422, "invalid_request", "Send before or after, but not both.")
    if before is None and after is None:
        chat = given.open_chat()
        tail = yield partial(chat.store.tail, conversation_id, limit, owner=owner)
        body = tail_body(tail, is_replying=chat.is_replying(tail.messages))
        return Answer(body, version_of(tail.conversation))
    store = given.store
    conversation = yield partial(store.get, conversation_id, owner=owner)
    page = yield partial(
        store.page, conversation_id, after=after, before=before, limit=limit, owner=owner
    )
    return Answer(conversation_body(conversation, page), version_of(conversation))


def update_conversation(given: Given, *, conversation_id: str) -> Steps[Answer]:
    """Change the title or the metadata of a conversation."""
    _require_shown(conversation_id)
    request: UpdateRequest = given.body
    if request.title is None and request.metadata is None:
        raise ApiError(422, "invalid_request", "Nothing is to change; send title or metadata.")
    version = given.version
    with _explain_conflict(version):
        updated = yield partial(
            given.store.update,
            conversation_id,
            title=request.title,
            metadata=_own_metadata(request.metadata),
            revision=None if version is None else version.revision,
            metadata_revision=None if version is None else version.metadata_revision,
            owner=request.user_id,
        )
    return Answer({"conversation": summary_of(updated)}, version_of(updated))


def fork_conversation(given: Given, *, conversation_id: str) -> Steps[Answer]:
    """Copy a conversation, up to a message or as a whole, to a new one of the same owner."""
    _require_shown(conversation_id)
    request: ForkRequest = given.body
    yield from _count_creation(given, _id_with_key(given, "fork", conversation_id))
    copy: Conversation = yield partial(
        given.open_chat().fork,
        conversation_id,
        at=request.at,
        owner=request.user_id,
        idempotency_key=given.idempotency_key,
    )
    return Answer({"conversation_id": copy.id}, version_of(copy))


def stop_reply(given: Given, *, conversation_id: str) -> Steps[Answer]:
    """Stop the reply that is being written; the part written so far is stored."""
    _require_shown(conversation_id)
    request: StopRequest = given.body
    chat = given.open_chat()
    stopped = yield partial(
        chat.stop, conversation_id, owner=request.user_id, idempotency_key=given.idempotency_key
    )
    return Answer({"stopped": stopped})


def delete_conversation(given: Given, *, conversation_id: str) -> Steps[Answer]:
    """Delete a conversation; with a user, only if it is the user's own."""
    _require_shown(conversation_id)
    owner, version = given.query.user_id(), given.version
    with _explain_conflict(version):
        yield partial(
            given.store.delete,
            conversation_id,
            revision=None if version is None else version.revision,
            owner=owner,
        )
    given.rules.limits.note_deletion(given.caller)
    return Answer(DELETED)


def _required_user(query: Query) -> str:
    user_id = query.user_id()
    if user_id is None:
        raise ApiError(400, "invalid_request", "The parameter user_id is missing.")
    return user_id


def _own_metadata(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the metadata without what the API adds to them in its responses."""
    if metadata is None:
        return None
    return {name: value for name, value in metadata.items() if name != MESSAGE_COUNT}


def _require_shown(conversation_id: str) -> None:
    """Raise ``NotFound`` if Chatledger keeps data of its own in the conversation."""
    if conversation_id.startswith(RESERVED_PREFIX):
        raise NotFound(conversation_id)


@contextmanager
def _explain_conflict(version: Version | None) -> Iterator[None]:
    """Raise ``ApiError`` instead of ``Conflict`` if the request named a version (RFC 9110)."""
    try:
        yield
    except Conflict as conflict:
        if version is None:
            raise
        raise ApiError(
            412,
            "precondition_failed",
            "The conversation has changed since; read it again, and send its new ETag.",
        ) from conflict


def read_models(given: Given) -> Steps[Answer]:
    """List the models that a request may ask for, the default first."""
    given.query.user_id()
    known = given.rules.models
    models = [{"id": name, "is_default": name == known.default} for name in known]
    is_allowed = given.rules.allow_system_prompt or not given.open_chat().system_prompt
    yield from ()  # nothing is read from the store
    return Answer({"models": models, "allows_system_prompt": is_allowed})


def import_conversation(given: Given) -> Steps[Answer]:
    """Create a conversation with the messages of an exported one, all of them or none."""
    request: ImportRequest = given.body
    owner, store, key = _required_user(given.query), given.store, given.idempotency_key
    _check_system_messages(given, request)
    description = checked_description(title=request.title, metadata=_own_metadata(request.metadata))
    if isinstance(store, AsyncStore):
        from asyncio import to_thread  # here, because a program without a loop need not load it

        imported = yield partial(to_thread, import_messages, request)
    else:
        imported = import_messages(request)
    fields = {"owner": owner, "idempotency_key": key, **fields_of(description)}
    id = _id_with_key(given, "create", owner)
    if imported.messages and key is not None:
        id = uuid_from_key("import", str(len(owner)), owner, key)
    yield from _count_creation(given, id, stored_bytes=imported.size)
    if imported.messages:
        id = id or new_id()
        yield partial(store.append, id, imported.messages, revision=0, **fields)
        try:
            conversation = yield partial(store.get, id, owner=owner)
        except NotFound as missing:
            raise ApiError(
                409,
                "conflict",
                "The conversation was deleted as soon as it was imported; import it again.",
            ) from missing
    else:
        conversation = yield partial(store.create, **fields)
    # Relative, because a proxy or a stage of API Gateway may put a prefix in front of all paths.
    location = quote(conversation.id, safe="")
    return Answer({"conversation": summary_of(conversation)}, version_of(conversation), location)


def _id_with_key(given: Given, *scope: str) -> str | None:
    """Return the id of the conversation that a store creates with the key; None without a key."""
    creation = Creation.of(given.idempotency_key)
    return None if creation is None else new_id_for(creation, *scope)


def _count_creation(given: Given, id: str | None, *, stored_bytes: int = 0) -> Steps[None]:
    """Count a request that creates a conversation as a turn of the caller.

    If an earlier request with its key has created the conversation ``id``, it is only a turn.

    Raises ``ApiError`` if the limits do not allow it.
    """
    is_new = id is None or not (yield from exists(given.store, id))
    yield from given.rules.limits.count_turn(
        given.store,
        given.caller,
        starts_conversation=is_new,
        stored_bytes=stored_bytes if is_new else 0,
    )


def _check_system_messages(given: Given, request: ImportRequest) -> None:
    """Raise ``ApiError`` if a message would add to a system prompt that must not be changed.

    The model gets system messages after the chat's own system prompt.
    """
    if given.rules.allow_system_prompt or not given.open_chat().system_prompt:
        return
    for n, message in enumerate(request.messages):
        if isinstance(message, dict) and message.get("role") == "system":
            raise ApiError(
                403,
                "system_prompt_fixed",
                f"messages[{n}] has the role system, but the operator of this server has set the "
                "system prompt; leave the message out.",
            )


class Endpoint(NamedTuple):
    """An endpoint with a JSON response, and its route."""

    method: str
    path: str
    """The path; the parts in braces are parameters, which any non-empty text matches."""
    steps: Callable[..., Steps[Answer]]
    """Takes a ``Given`` and the path's parameters."""
    response: type[ResponseBody]
    """The type of the response body."""
    query: tuple[Parameter, ...] = ()
    body: type[RequestBody] | None = None
    """The type of the request body; None if there is none."""
    creates: bool = False
    """True if the endpoint stores a new conversation."""
    imports: bool = False
    """True if that has messages."""
    takes_key: bool = False
    """True if a request may have an idempotency key."""
    takes_version: bool = False
    """True if a request may name the version of the conversation that it is meant for."""
    has_etag: bool = False
    """True if the response names the version of the conversation."""

    @property
    def status(self) -> int:
        """The status of the successful response."""
        return 201 if self.imports else 200


IMPORT_PATH = "/conversations/import"
"""The path of imports, and also that of a conversation with the id ``import``."""
ENDPOINTS = (
    Endpoint("GET", "/models", read_models, ModelsBody, query=(ASKING_USER,)),
    Endpoint(
        "POST",
        "/conversations",
        create_conversation,
        CreatedBody,
        body=CreateRequest,
        creates=True,
        takes_key=True,
        has_etag=True,
    ),
    Endpoint(
        "GET",
        "/conversations",
        list_conversations,
        ListingBody,
        query=(LISTED_USER_ID, CONVERSATIONS_LIMIT, CURSOR, TITLE_WORDS),
    ),
    Endpoint(
        "GET",
        "/search",
        search_conversations,
        FoundBody,
        query=(LISTED_USER_ID, WORDS, MATCHES_LIMIT, CURSOR),
    ),
    Endpoint(
        "POST",
        IMPORT_PATH,
        import_conversation,
        UpdatedBody,
        query=(OWNER,),
        body=ImportRequest,
        creates=True,
        imports=True,
        takes_key=True,
        has_etag=True,
    ),
    Endpoint(
        "POST",
        "/conversations/{conversation_id}/fork",
        fork_conversation,
        CreatedBody,
        body=ForkRequest,
        creates=True,
        takes_key=True,
        has_etag=True,
    ),
    Endpoint(
        "POST",
        "/conversations/{conversation_id}/stop",
        stop_reply,
        StoppedBody,
        body=StopRequest,
        takes_key=True,
    ),
    Endpoint(
        "GET",
        "/conversations/{conversation_id}",
        read_conversation,
        ConversationBody,
        query=(USER_ID, MESSAGES_LIMIT, BEFORE, AFTER),
        has_etag=True,
    ),
    Endpoint(
        "PATCH",
        "/conversations/{conversation_id}",
        update_conversation,
        UpdatedBody,
        body=UpdateRequest,
        takes_version=True,
        has_etag=True,
    ),
    Endpoint(
        "DELETE",
        "/conversations/{conversation_id}",
        delete_conversation,
        DeletedBody,
        query=(USER_ID,),
        takes_version=True,
    ),
    Endpoint(
        "DELETE", "/conversations", delete_conversations, DeletedAllBody, query=(LISTED_USER_ID,)
    ),
)


# Turns --------------------------------------------------------------------------------------------

Events = TypeVar("Events")


def send_message(given: Given) -> Steps[Any]:
    """Send a message and return the reply.

    A turn without a user and a conversation is not stored, unless ``save_history`` is true.

    Raises:
        ApiError: There is an idempotency key, but the reply is not saved and so cannot be returned
            again.
        NotFound: The id of the conversation is reserved.
    """
    request: ChatRequest = given.body
    limits = given.rules.limits
    _requested_model(given)
    owner, conversation_id = request.user_id, request.conversation_id
    _require_shown(conversation_id or "")
    is_named = owner is not None or conversation_id is not None
    saves = is_named if request.save_history is None else request.save_history
    key = given.idempotency_key
    if saves and not is_named:
        # The same key gives the same owner, so that the stored reply is found again.
        owner = f"anonymous-{uuid_from_key('anonymous', key) if key else new_id()}"
    if not saves and key is not None:
        raise ApiError(
            422,
            "nothing_kept",
            "An Idempotency-Key needs a reply that is saved; add a user_id or a conversation_id, "
            "and do not set save_history to false.",
        )
    store, starts_conversation = given.store, False
    if saves and limits.limits_conversations:
        starts_conversation = yield from _starts_conversation(given, owner)
    yield from limits.count_turn(store, given.caller, starts_conversation=starts_conversation)
    chat = given.open_chat()  # once more, because the time limit of a turn may start with its chat
    stream = partial(chat.stream, idempotency_key=key) if saves else chat.stream_without_saving
    return stream(
        request.message,
        conversation_id=conversation_id,
        must_exist=given.is_signed_in,
        **{
            **_turn_arguments(given, stored_message=request.message if saves else None),
            "owner": owner,
        },
    )


def _starts_conversation(given: Given, owner: str | None) -> Steps[bool]:
    """Return whether a turn that is stored starts a conversation, which may take a read."""
    conversation_id = given.body.conversation_id
    if conversation_id is None:
        if given.idempotency_key is None:
            return True
        conversation_id = conversation_id_for(given.idempotency_key, owner)
    elif given.is_signed_in or owner is None:
        return False  # it must exist
    return not (yield from exists(given.store, conversation_id))


def regenerate_reply(given: Given, *, conversation_id: str) -> Steps[Any]:
    """Replace the last reply with another one."""
    _require_shown(conversation_id)
    _requested_model(given)
    yield from given.rules.limits.count_turn(given.store, given.caller, starts_conversation=False)
    return given.open_chat().regenerate(
        conversation_id,
        revision=None if given.version is None else given.version.revision,
        idempotency_key=given.idempotency_key,
        **_turn_arguments(given, stored_message=""),
    )


def edit_message(given: Given, *, conversation_id: str, seq: str) -> Steps[Any]:
    """Replace a message of the user and all after it, and reply to it.

    The conversation is copied before, unless the request says otherwise.
    """
    _require_shown(conversation_id)
    request: EditRequest = given.body
    number = parse_number(seq)
    if number is None:
        raise InvalidArgument("The seq in the address must be a number.")
    _requested_model(given)
    keep_branch = request.keep_branch is not False
    yield from given.rules.limits.count_turn(
        given.store, given.caller, starts_conversation=keep_branch
    )
    return given.open_chat().edit(
        conversation_id,
        number,
        request.message,
        revision=None if given.version is None else given.version.revision,
        keep_branch=keep_branch,
        **_turn_arguments(given, stored_message=request.message),
    )


class TurnEndpoint(NamedTuple):
    """An endpoint that runs a turn, and its route."""

    method: str
    path: str
    steps: Callable[..., Steps[Any]]
    """Takes a ``Given`` and the path's parameters; returns the turn's events.

    Take the first event within ``explain_refusal``.
    """
    body: type[TurnRequestBody]
    streams: bool | None
    """True if the reply is streamed; None if it is for clients that accept events."""
    takes_key: bool = False
    takes_version: bool = False
    query: tuple[Parameter, ...] = ()


TURN_ENDPOINTS = (
    TurnEndpoint("POST", "/chat", send_message, ChatRequest, streams=False, takes_key=True),
    TurnEndpoint("POST", "/chat/stream", send_message, ChatRequest, streams=True, takes_key=True),
    TurnEndpoint(
        "POST",
        "/conversations/{conversation_id}/regenerate",
        regenerate_reply,
        RegenerateRequest,
        streams=None,
        takes_key=True,
        takes_version=True,
    ),
    TurnEndpoint(
        "PUT",
        "/conversations/{conversation_id}/messages/{seq}",
        edit_message,
        EditRequest,
        streams=None,
        takes_version=True,
    ),
)


_TURN_ROUTES = [
    (endpoint.method, re.compile(re.sub(r"{\w+}", r"[\\s\\S]+", endpoint.path)))
    for endpoint in TURN_ENDPOINTS
]


def is_turn(method: str, path: str) -> bool:
    """Return whether a request with this method and percent-decoded path is for a turn."""
    return any(method == each and route.fullmatch(path) for each, route in _TURN_ROUTES)


@contextmanager
def explain_refusal(given: Given) -> Iterator[None]:
    """Raise ``ApiError`` instead of an error that does not say what the client must change."""
    try:
        with _explain_conflict(given.version):
            yield
    except NotFound as missing:
        request = given.body
        if not isinstance(request, ChatRequest):
            raise
        if given.is_signed_in:
            raise ApiError(
                404,
                "not_found",
                "There is no such conversation; start a new one without a conversation_id.",
            ) from missing
        if request.user_id is not None:
            raise
        raise ApiError(
            400, "unknown_conversation", "There is no such conversation; add a user_id to start it."
        ) from missing


def _turn_arguments(given: Given, *, stored_message: str | None) -> Mapping[str, Any]:
    """Return the arguments that every turn takes.

    ``stored_message`` is the message that the turn stores with its reply; None if it stores
    nothing.

    Raises:
        ApiError: The request has a system prompt, but the chat's must not be changed.
        UnknownModel: The server has no model of the request's name.
    """
    return {
        "model": given.rules.limits.counted_model(
            _requested_model(given), given.caller, stored_message=stored_message
        ),
        "owner": given.body.user_id,
        "system_prompt": _joined_system_prompt(given),
    }


def _joined_system_prompt(given: Given) -> str | None:
    """Return the operator's system prompt, if there is one, followed by the request's.

    Raises ``ApiError`` if the request has one although the operator's must not be changed.
    """
    operators, requested = given.open_chat().system_prompt, given.body.system_prompt
    if not operators or requested is None:
        return cast(str | None, requested)
    if not given.rules.allow_system_prompt:
        raise ApiError(
            403,
            "system_prompt_fixed",
            "The operator of this server has set the system prompt; leave system_prompt out.",
        )
    return f"{operators}\n\n{requested}" if requested.strip() else None


def _requested_model(given: Given) -> OpenedModel:
    models, model_id = given.rules.models, given.body.model_id
    try:
        return models.get(model_id)
    except UnknownModel as unknown:
        if model_id is not None and model_id not in models:
            raise
        # The model is configured but cannot be opened, which only the operator can fix.
        raise ModelRefused(str(unknown)) from unknown


# Export -------------------------------------------------------------------------------------------

EXPORT_PATH = "/conversations/{conversation_id}/export"
EXPORT_QUERY = (USER_ID, FORMAT)


def export_conversation(given: Given, *, conversation_id: str) -> Steps[Export]:
    """Export a conversation with all its messages, as a file."""
    _require_shown(conversation_id)
    format, owner = FORMATS[given.query.choice(FORMAT)], given.query.user_id()
    conversation = yield partial(given.store.get, conversation_id, owner=owner)
    return Export(given.store, conversation, owner=owner, format=format)


# The reply of the last turn -----------------------------------------------------------------------

REPLY_PATH = "/conversations/{conversation_id}/reply"
"""The path of the last reply, which is streamed."""
REPLY_QUERY = (USER_ID,)


def read_last_turn(given: Given, *, conversation_id: str) -> Steps[LastTurn]:
    """Return the last turn of the conversation, whose reply is stored or being written.

    Raises ``ApiError`` if there is none, or nobody is writing its reply.
    """
    _require_shown(conversation_id)
    owner = given.query.user_id()
    turn = yield partial(given.open_chat().last_turn, conversation_id, owner=owner)
    if turn is None or (turn.reply is None and not turn.is_running):
        raise no_reply()
    return cast(LastTurn, turn)


def no_reply() -> ApiError:
    return ApiError(
        404,
        "no_reply",
        "Nobody is writing a reply to the last message; send it again, or regenerate the reply.",
    )


def offset_in(reply_id: str, last_event_id: str | None) -> int | None:
    """Return the characters of the reply that a client has; None if it has the end too.

    ``last_event_id`` is the id of the last event that it has received.
    """
    id, _, place = (last_event_id or "").rpartition(":")
    if id != reply_id:
        return 0
    if place == DONE:
        return None
    return parse_number(place) or 0
