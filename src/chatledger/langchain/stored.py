"""LangChain's messages as the elements of an item's list, as the old class laid them out.

An element is ``messages_to_dict``'s: ``type`` and ``data``. Where DynamoDB's one type of number
says too little, ``chatledger`` holds the notes of ``values`` beside these, as JSON text; LangChain's
``messages_from_dict`` does not look at it, so that the old class reads the element all the same.
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
from chatledger.json_values import dumps
from chatledger.langchain.values import decode, encode
from chatledger.stores.dynamodb.calls import Attribute

NOTES = "chatledger"
TYPES = frozenset({"ai", "chat", "function", "human", "system", "tool"})


def to_stored(messages: object) -> list[Attribute]:
    """Messages, chunks as the messages that they make up to.

    Raises ``InvalidArgument`` and ``InvalidMessage``, which name what cannot be stored.
    """
    if isinstance(messages, BaseMessage | str) or not isinstance(messages, Iterable):
        raise InvalidArgument(
            "messages must be a list of LangChain messages; for one of them use add_message."
        )
    return [_stored(message, f"messages[{n}]") for n, message in enumerate(messages)]


def from_stored(elements: Sequence[Attribute], where: str, *, first: int = 0) -> list[BaseMessage]:
    """The messages. Raises ``StoreMismatch`` that says which of them is none, and that it is in
    ``where``, of which ``elements`` are those from the number ``first`` on.
    """
    return [
        _message(element, f"Element {n} of {where}") for n, element in enumerate(elements, first)
    ]


def _stored(message: object, part: str) -> Attribute:
    if not isinstance(message, BaseMessage):
        raise InvalidMessage(
            f"{part} is of type {type(message).__name__}; it must be one of LangChain's messages, "
            "such as HumanMessage."
        )
    (values,) = messages_to_dict([message_chunk_to_message(message)])
    if values["type"] not in TYPES:
        raise InvalidMessage(
            f"{part} is of type {values['type']!r}; a history holds messages of the types "
            f"{', '.join(sorted(TYPES))}, which LangChain can read back."
        )
    data, notes = encode(values["data"], part)
    element: dict[str, Attribute] = {"type": {"S": values["type"]}, "data": data}
    if notes:
        element[NOTES] = {"S": dumps(notes)}
    return {"M": element}


def _message(element: Attribute, what: str) -> BaseMessage:
    try:
        values: dict[str, Any] = {"type": decode(element["M"]["type"], ())}
        notes = json.loads(element["M"][NOTES]["S"]) if NOTES in element["M"] else ()
        values["data"] = decode(element["M"]["data"], notes)
        (message,) = messages_from_dict([values])
    # Whatever is wrong with what others wrote: LangChain and pydantic raise all kinds.
    except (LookupError, TypeError, ValueError) as failed:
        raise StoreMismatch(
            f"{what} is no LangChain message ({type(failed).__name__}: {failed}); other software "
            "seems to have written it. Mend or remove it, or use another table."
        ) from failed
    return message
