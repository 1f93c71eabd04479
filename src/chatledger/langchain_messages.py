"""Conversion of LangChain's messages to Chatledger's, and back."""

import json
from typing import Any, Final, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    RemoveMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call

from chatledger.errors import InvalidMessage
from chatledger.messages import MAX_MESSAGE_ID_BYTES, ROLES, Message, Role
from chatledger.tool_calls import parse_call
from chatledger.values import Json, checked_json, new_id

__all__ = ["from_chatledger", "to_chatledger"]

EXTRA_KEY: Final = "langchain"
"""Key in a message's ``extra`` of LangChain's fields other than role, content and id."""

MESSAGE_CLASSES: Final[dict[str, type[BaseMessage]]] = {
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
# Fields that have their own key in ``extra``, where readers without LangChain look for them.
_SHARED_FIELDS: Final = {"ai": ("tool_calls",), "tool": ("tool_call_id",)}
# Fields that only chunks have. The chunk has already parsed them into tool calls.
_CHUNK_FIELDS: Final = AIMessageChunk.model_fields.keys() - AIMessage.model_fields.keys()
_IGNORED_FIELDS: Final = {"type", "content", *_CHUNK_FIELDS}
_DEFAULTS: Final = {
    message_type: {
        name: field.get_default(call_default_factory=True)
        for name, field in message_class.model_fields.items()
        # An id of None must be stored, because Chatledger's message has an id anyway.
        if name != "id" and not field.is_required()
    }
    for message_type, message_class in MESSAGE_CLASSES.items()
}
_REQUIRED_FIELDS: Final = {
    message_type: {
        name for name, field in message_class.model_fields.items() if field.is_required()
    }
    for message_type, message_class in MESSAGE_CLASSES.items()
}

_UNKNOWN_CALL = "This tool call is not in a known format."


def to_chatledger(message: BaseMessage) -> Message:
    """Return a LangChain message as a message that every store takes.

    ``from_chatledger`` returns an equal message. A chunk becomes a whole message, and a message of
    your own class becomes one of the LangChain class that it extends, with all fields. The ``id``
    is LangChain's. A message without an id gets a new one, and ``from_chatledger`` removes it
    again.

    Raises:
        InvalidMessage: The message is a ``RemoveMessage`` or is not a LangChain message, or a field
            has a value that JSON cannot represent, such as bytes; the error names the field.
    """
    message_type = _message_type(message)
    class_name = MESSAGE_CLASSES[message_type].__name__
    values: dict[str, Json] = {
        name: checked_json(value, f"{class_name}.{name}", error=InvalidMessage)
        for name, value in _fields(message, _DEFAULTS[message_type])
    }
    shared_names = _SHARED_FIELDS.get(message_type, ())
    extra = {name: values.pop(name) for name in shared_names if name in values}
    id = values.pop("id", None)
    own: dict[str, Json] = {"type": message_type, **values}
    if not isinstance(id, str) or not 0 < len(id.encode()) <= MAX_MESSAGE_ID_BYTES:
        own["id"] = id
        id = new_id()
    return Message(
        role=_role(message, message_type),
        content=cast(Any, message.content),
        id=id,
        extra=extra | {EXTRA_KEY: own},
    )


def from_chatledger(message: Message) -> BaseMessage:
    """Return the LangChain message that ``to_chatledger`` converted, equal and of the same type.

    A message from elsewhere (the HTTP API, ``Message.user``) becomes the LangChain message for its
    role, with its content, id, name, tool calls and usage. ``metadata`` and ``created_at`` are not
    part of LangChain's messages.
    """
    own = message.extra.get(EXTRA_KEY)
    message_type = own.get("type") if isinstance(own, dict) else None
    if (
        not isinstance(own, dict)
        or not isinstance(message_type, str)
        or message_type not in MESSAGE_CLASSES
    ):
        return _from_plain(message)
    values: dict[str, Any] = {"id": message.id} | own
    values |= {"type": message_type, "content": message.content}
    shared_names = _SHARED_FIELDS.get(message_type, ())
    values |= {name: message.extra[name] for name in shared_names if name in message.extra}
    if _REQUIRED_FIELDS[message_type] - values.keys():
        return _from_plain(message)
    values = _json_copy(values)  # LangChain's messages are mutable, and Chatledger's are not
    message_class = MESSAGE_CLASSES[message_type]
    set_fields = message_class.model_fields.keys() & values.keys()
    fields = {name: values.pop(name) for name in set_fields}
    # No validator runs, because all ran when the message was created: stored values come back
    # unchanged, and a rule that a later LangChain adds cannot make a conversation unreadable. The
    # defaults are passed because pydantic takes five times as long to find them.
    converted = message_class.model_construct(
        set_fields, **(_json_copy(_DEFAULTS[message_type]) | fields)
    )
    assert converted.model_extra is not None
    converted.model_extra.update(values)
    return converted


def _message_type(message: object) -> str:
    if isinstance(message, RemoveMessage):
        raise InvalidMessage(
            "A RemoveMessage is an instruction to remove another message and cannot be stored; "
            "remove messages with the store's remove, pop, truncate or clear."
        )
    for message_type, message_class in MESSAGE_CLASSES.items():
        if isinstance(message, message_class):
            return message_type
    raise InvalidMessage(
        f"The message is of type {type(message).__name__}; pass a HumanMessage, AIMessage or "
        "another class of langchain_core.messages."
    )


def _fields(message: BaseMessage, defaults: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return names and values of the fields that differ from their defaults.

    The type and the content are left out. Fields are read as attributes, because ``model_dump``
    would turn an object that must be rejected into a dict.
    """
    values = {name: getattr(message, name) for name in type(message).model_fields}
    values |= message.model_extra or {}
    return [
        (name, value)
        for name, value in values.items()
        if name not in _IGNORED_FIELDS
        and not (name in defaults and _is_default(value, defaults[name]))
    ]


def _is_default(value: object, default: object) -> bool:
    # The type comes first: comparing an array returns an array, which has no truth value.
    return type(value) is type(default) and value == default


def _role(message: BaseMessage, message_type: str) -> Role:
    if not isinstance(message, ChatMessage):
        return _ROLES[message_type]
    if message.role in ROLES:
        return cast(Role, message.role)
    return _CHAT_ROLES.get(message.role, "user")


# Messages that did not come from LangChain --------------------------------------------------------


def _from_plain(message: Message) -> BaseMessage:
    """Return the LangChain message with the same role, content, id and name.

    Tool calls in the formats of LangChain, Anthropic, Bedrock or OpenAI are converted; others
    become ``invalid_tool_calls``. The usage, model and stop reason of a reply that
    ``chatledger.chat`` saved are put where LangChain's own models put them.
    """
    name = message.extra.get("name")
    fields: dict[str, Any] = {
        "content": _json_copy(message.content),
        "id": message.id,
        "name": name if isinstance(name, str) else None,
    }
    match message.role:
        case "system":
            return SystemMessage(**fields)
        case "user":
            return HumanMessage(**fields)
        case "tool":
            id = message.extra.get("tool_call_id")
            failed = message.extra.get("status") == "error"
            return ToolMessage(
                **fields,
                tool_call_id=id if isinstance(id, str) else "",
                status="error" if failed else "success",
            )
        case "assistant":
            calls, invalid = _tool_calls(message.extra.get("tool_calls"))
            return AIMessage(
                **fields,
                tool_calls=calls,
                invalid_tool_calls=invalid,
                usage_metadata=_usage(message.extra.get("usage")),
                response_metadata=_response_metadata(message.extra),
            )
    return ChatMessage(**fields, role=message.role)  # a role that a later version added


def _tool_calls(stored: Any) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in stored if isinstance(stored, list) else []:
        id, name, args = parse_call(call)
        if name is not None and args is not None:
            calls.append(tool_call(name=name, args=_json_copy(args), id=id))
        else:
            text = json.dumps(call, ensure_ascii=False)
            invalid.append(invalid_tool_call(name=name, args=text, id=id, error=_UNKNOWN_CALL))
    return calls, invalid


def _usage(stored: Json) -> dict[str, int] | None:
    match stored:
        case {"input_tokens": int(input_tokens), "output_tokens": int(output_tokens)}:
            return {
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "total_tokens": input_tokens + output_tokens,
            }
    return None


def _response_metadata(extra: dict[str, Json]) -> dict[str, Json]:
    names = {"model": "model_name", "stop_reason": "stop_reason"}
    return {theirs: _json_copy(extra[ours]) for ours, theirs in names.items() if ours in extra}


def _json_copy(value: Any) -> Any:
    """Return a copy of a JSON value, several times as fast as ``copy.deepcopy``."""
    if isinstance(value, dict):
        return {name: _json_copy(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json_copy(item) for item in value]
    return value
