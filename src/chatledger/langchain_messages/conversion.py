"""Messages of LangChain as Chatledger's, and back."""

from typing import Any, Final, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from chatledger.errors import InvalidMessage
from chatledger.json_values import Json, checked_json
from chatledger.langchain_messages.plain import copied, from_plain
from chatledger.messages import MESSAGE_ID_BYTES, ROLES, Message, Role, new_id

KEY: Final = "langchain"
"""Where in a message's ``extra`` lies what LangChain has beside role, content and id."""

KINDS: Final[dict[str, type[BaseMessage]]] = {
    "system": SystemMessage,
    "human": HumanMessage,
    "ai": AIMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
    "chat": ChatMessage,
}
_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "human": "user",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
}
_CHAT_ROLES: Final[dict[str, Role]] = {
    "human": "user",
    "ai": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
}
# What Chatledger has a name for in ``extra`` itself, so that others find it there.
_SHARED: Final = {"ai": ("tool_calls",), "tool": ("tool_call_id",)}
# A chunk's own, which the chunk has already made tool calls of.
_OF_CHUNKS: Final = AIMessageChunk.model_fields.keys() - AIMessage.model_fields.keys()
_NOT_FIELDS: Final = {"type", "content", *_OF_CHUNKS}
_DEFAULTS: Final = {
    kind: {
        name: field.get_default(call_default_factory=True)
        for name, field in of_langchain.model_fields.items()
        if name != "id" and not field.is_required()  # an id of None is kept, as it says something
    }
    for kind, of_langchain in KINDS.items()
}
_REQUIRED: Final = {
    kind: {name for name, field in of_langchain.model_fields.items() if field.is_required()}
    for kind, of_langchain in KINDS.items()
}


def to_chatledger(message: BaseMessage) -> Message:
    """``message`` as one that every store takes; ``from_chatledger`` gives it back equal.

    A chunk becomes the message that it is a chunk of, and an object of a class of your own the
    LangChain message that it extends, with its fields. The message's ``id`` is LangChain's, or a
    new one where LangChain has none, and still has none afterwards.

    Raises ``InvalidMessage``, which names the field, for a value that JSON cannot hold (bytes, an
    artifact that is an object), for a ``RemoveMessage``, and for what is no LangChain message.
    """
    kind = _kind(message)
    values: dict[str, Json] = {
        name: checked_json(value, f"{KINDS[kind].__name__}.{name}", error=InvalidMessage)
        for name, value in _fields(message, _DEFAULTS[kind])
    }
    extra = {name: values.pop(name) for name in _SHARED.get(kind, ()) if name in values}
    id = values.pop("id", None)
    own: dict[str, Json] = {"type": kind, **values}
    if not isinstance(id, str) or not 0 < len(id.encode()) <= MESSAGE_ID_BYTES:
        own["id"] = id
        id = new_id()
    return Message(
        role=_role(message, kind),
        content=cast(Any, message.content),
        id=id,
        extra=extra | {KEY: own},
    )


def from_chatledger(message: Message) -> BaseMessage:
    """The LangChain message that ``to_chatledger`` made ``message`` of, equal and of its type.

    One that came another way (the HTTP API, ``Message.user``) becomes the LangChain message of its
    role, with its content, id, name, tool calls and usage. Your ``metadata`` and ``created_at`` are
    no part of either; the store has them.
    """
    own = message.extra.get(KEY)
    kind = own.get("type") if isinstance(own, dict) else None
    if not isinstance(own, dict) or not isinstance(kind, str) or kind not in KINDS:
        return from_plain(message)
    values: dict[str, Any] = {"id": message.id} | own | {"type": kind, "content": message.content}
    values |= {name: message.extra[name] for name in _SHARED.get(kind, ()) if name in message.extra}
    if _REQUIRED[kind] - values.keys():
        return from_plain(message)
    values = copied(values)  # LangChain's messages may be changed, and ours may not
    given = KINDS[kind].model_fields.keys() & values.keys()
    fields = {name: values.pop(name) for name in given}
    # No validator runs, as it ran when the message was made: what was stored comes back as it is,
    # and a rule that a later LangChain adds makes no conversation unreadable. With its defaults, as
    # pydantic takes five times as long to find them.
    made = KINDS[kind].model_construct(given, **(copied(_DEFAULTS[kind]) | fields))
    assert made.model_extra is not None
    made.model_extra.update(values)
    return made


def _kind(message: object) -> str:
    if isinstance(message, RemoveMessage):
        raise InvalidMessage(
            "A RemoveMessage says that another message is to go; it cannot be stored. Remove "
            "messages with the store's pop, truncate or clear."
        )
    for kind, of_langchain in KINDS.items():
        if isinstance(message, of_langchain):
            return kind
    raise InvalidMessage(
        f"The message is of type {type(message).__name__}; pass a HumanMessage, AIMessage or "
        "another of langchain_core.messages."
    )


def _fields(message: BaseMessage, defaults: dict[str, Any]) -> list[tuple[str, Any]]:
    """What ``message`` holds beside its type and content, as far as it is no default.

    As attributes: ``model_dump`` would make a dict of an object that must be refused.
    """
    held = {name: getattr(message, name) for name in type(message).model_fields}
    held |= message.model_extra or {}
    return [
        (name, value)
        for name, value in held.items()
        if name not in _NOT_FIELDS and not (name in defaults and _same(value, defaults[name]))
    ]


def _same(value: object, default: object) -> bool:
    # By type first: an artifact that is an array would answer == with an array.
    return type(value) is type(default) and value == default


def _role(message: BaseMessage, kind: str) -> Role:
    if not isinstance(message, ChatMessage):
        return _ROLES[kind]
    if message.role in ROLES:
        return cast(Role, message.role)
    return _CHAT_ROLES.get(message.role, "user")
