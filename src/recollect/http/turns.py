"""Which turn a chat request asks for."""

from collections.abc import AsyncGenerator

from recollect.chat import Chat, Event
from recollect.errors import NotFound, UnknownModel
from recollect.http.api import ChatRequest, Refused
from recollect.messages import new_id


async def turn(chat: Chat, request: ChatRequest) -> AsyncGenerator[Event, None]:
    """The turn, its events as ``Chat`` streams them.

    Where nobody is named there is nobody to keep it for: a one-off answer, unless history is
    asked for. Raises ``Refused`` where a conversation that is not there would start for nobody.
    """
    if request.model_id not in (None, chat.model.id):
        raise UnknownModel(f"There is no such model here; there is: {chat.model.id}.")
    owner, conversation_id = request.user_id, request.conversation_id
    named = owner is not None or conversation_id is not None
    kept = named if request.save_history is None else request.save_history
    if kept and not named:
        owner = f"anonymous-{new_id()}"
    events = (chat.stream if kept else chat.stream_unkept)(
        request.message,
        conversation_id=conversation_id,
        owner=owner,
        system_prompt=request.system_prompt,
    )
    try:
        async for event in events:
            yield event
    except NotFound as missing:
        if request.user_id is None:
            raise Refused(
                400,
                "unknown_conversation",
                "There is no such conversation; name a user_id to start it.",
            ) from missing
        raise
    finally:
        await events.aclose()
