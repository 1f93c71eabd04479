"""The factory of a chat's turns."""

from collections.abc import Sequence

from chatledger.chat import turn_metadata
from chatledger.chat.effects import Turn
from chatledger.chat.options import ChatOptions, checked_messages, parse_request
from chatledger.chat.streaming import unsaved_turn
from chatledger.chat.turn_setup import AnyStore, edit_setup, regenerate_setup, send_setup
from chatledger.chat.turns import SavedTurn
from chatledger.conversations import MAX_REVISION
from chatledger.errors import InvalidArgument
from chatledger.messages import Message
from chatledger.stores.arguments import checked_number


class TurnFactory:
    """Creates the turns of a chat.

    A turn's arguments are checked when it is created; the turn starts when it is run.
    """

    def __init__(self, store: AnyStore, options: ChatOptions) -> None:
        self._store = store
        self._options = options

    def send_turn(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None,
        owner: str | None,
        system_prompt: str | None,
        title: str | None,
        model: str,
        idempotency_key: str | None,
    ) -> Turn:
        request = parse_request(
            messages,
            conversation_id=conversation_id,
            owner=owner,
            system_prompt=system_prompt,
            title=title,
            idempotency_key=idempotency_key,
        )
        key = None
        if idempotency_key is not None:
            key = turn_metadata.RequestKey(
                idempotency_key,
                turn_metadata.request_digest(request.messages, system_prompt, model),
            )
        return SavedTurn(
            self._store,
            self._options,
            send_setup(self._store, self._options, request, key),
            model=model,
            owner=owner,
            system_prompt=system_prompt,
            key=key,
        ).steps()

    def turn_without_saving(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None,
        owner: str | None,
        system_prompt: str | None,
    ) -> Turn:
        request = parse_request(
            messages, conversation_id=conversation_id, owner=owner, system_prompt=system_prompt
        )
        return unsaved_turn(self._store, self._options, request)

    def regenerate_turn(
        self, conversation_id: str, *, owner: str | None, system_prompt: str | None, model: str
    ) -> Turn:
        return SavedTurn(
            self._store,
            self._options,
            regenerate_setup(self._store, self._options, conversation_id, owner),
            model=model,
            owner=owner,
            system_prompt=system_prompt,
        ).steps()

    def edit_turn(
        self,
        conversation_id: str,
        seq: int,
        message: str | Message,
        *,
        owner: str | None,
        system_prompt: str | None,
        model: str,
    ) -> Turn:
        checked_number(seq, "seq", least=1, most=MAX_REVISION - 1)
        new, *more = checked_messages(message)
        if more or new.role != "user":
            raise InvalidArgument(
                "A message can only be replaced by one user message; pass a string or a "
                "Message.user(...)."
            )
        return SavedTurn(
            self._store,
            self._options,
            edit_setup(self._store, self._options, conversation_id, seq, new, owner),
            model=model,
            owner=owner,
            system_prompt=system_prompt,
        ).steps()
