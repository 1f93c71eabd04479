"""LangChain's messages as elements of an item's list, in the layout of the old class.

An element is what ``messages_to_dict`` returns: ``type`` and ``data``. If DynamoDB's single number
type loses information, ``chatledger`` holds the notes of ``values`` as JSON text. LangChain's
``messages_from_dict`` ignores that attribute, so the old class can still read the element.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import (
    BaseMessage,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
)

from chatledger.errors import InvalidArgument, InvalidMessage, StoreMismatch
from chatledger.langchain.values import decode_value, encode_value
from chatledger.stores.dynamodb.calls import Attribute
from chatledger.values import dumps

NOTES_ATTRIBUTE = "chatledger"
MESSAGE_TYPES = frozenset({"ai", "chat", "function", "human", "system", "tool"})


def encode_messages(messages: object) -> list[Attribute]:
    """Return an element for each message; chunks are converted to messages.

    Raises:
        InvalidArgument: ``messages`` is not an iterable of messages.
        InvalidMessage: A message cannot be stored; the error names the part at fault.
    """
    if isinstance(messages, BaseMessage | str) or not isinstance(messages, Iterable):
        raise InvalidArgument(
            "messages must be a list of LangChain messages; to add a single one use add_message."
        )
    return [_encode_message(message, f"messages[{n}]") for n, message in enumerate(messages)]


def decode_messages(
    elements: Sequence[Attribute], where: str, *, first: int = 0
) -> list[BaseMessage]:
    """Return the messages in ``elements``.

    Args:
        where: Description of the list, for errors.
        first: Index of the first of ``elements`` in that list.

    Raises:
        StoreMismatch: An element is not a message; the error names its index.
    """
    return [
        _decode_message(element, f"Element {n} of {where}")
        for n, element in enumerate(elements, first)
    ]


def _encode_message(message: object, part: str) -> Attribute:
    if not isinstance(message, BaseMessage):
        raise InvalidMessage(
            f"{part} is of type {type(message).__name__}; it must be one of LangChain's messages, "
            "such as HumanMessage."
        )
    (values,) = messages_to_dict([message_chunk_to_message(message)])
    if values["type"] not in MESSAGE_TYPES:
        raise InvalidMessage(
            f"{part} is of type {values['type']!r}; a history holds messages of the types "
            f"{', '.join(sorted(MESSAGE_TYPES))}, which LangChain can read back."
        )
    data, notes = encode_value(values["data"], part)
    element: dict[str, Attribute] = {"type": {"S": values["type"]}, "data": data}
    if notes:
        element[NOTES_ATTRIBUTE] = {"S": dumps(notes)}
    return {"M": element}


def _decode_message(element: Attribute, name: str) -> BaseMessage:
    try:
        fields = element["M"]
        values: dict[str, Any] = {"type": decode_value(fields["type"], ())}
        notes = json.loads(fields[NOTES_ATTRIBUTE]["S"]) if NOTES_ATTRIBUTE in fields else ()
        values["data"] = decode_value(fields["data"], notes)
        (message,) = messages_from_dict([values])
    # LangChain and pydantic raise various errors for data that other software wrote.
    except (LookupError, TypeError, ValueError) as failed:
        raise StoreMismatch(
            f"{name} is not a LangChain message ({type(failed).__name__}: {failed}); other "
            "software seems to have written it. Correct or remove it, or use another table."
        ) from failed
    return message
