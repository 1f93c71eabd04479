"""The turns that a chat may be asked for."""

from collections.abc import Sequence

from chatledger.chat import turn_metadata
from chatledger.chat.effects import Turn
from chatledger.chat.options import Terms, asked, question
from chatledger.chat.streaming import unkept
from chatledger.chat.turn_setup import AnyStore, editing, regenerating, sending
from chatledger.chat.turns import KeptTurn
from chatledger.conversations import LAST_REVISION, check_number
from chatledger.errors import InvalidArgument
from chatledger.messages import Message


class Requests:
    """Makes turns over a store, none of which has begun; arguments are checked at once."""

    def __init__(self, store: AnyStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms

    def send(
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
        given = asked(
            messages,
            conversation_id=conversation_id,
            owner=owner,
            system_prompt=system_prompt,
            title=title,
            idempotency_key=idempotency_key,
        )
        key = None
        if idempotency_key is not None:
            key = turn_metadata.Key(
                idempotency_key, turn_metadata.digest(given.messages, system_prompt, model)
            )
        return KeptTurn(
            self._store,
            self._terms,
            sending(self._store, self._terms, given, key),
            model=model,
            owner=owner,
            system_prompt=system_prompt,
            key=key,
        ).steps()

    def send_unkept(
        self,
        messages: str | Message | Sequence[Message],
        *,
        conversation_id: str | None,
        owner: str | None,
        system_prompt: str | None,
    ) -> Turn:
        given = asked(
            messages, conversation_id=conversation_id, owner=owner, system_prompt=system_prompt
        )
        return unkept(self._store, self._terms, given)

    def regenerate(
        self, conversation_id: str, *, owner: str | None, system_prompt: str | None, model: str
    ) -> Turn:
        return KeptTurn(
            self._store,
            self._terms,
            regenerating(self._store, self._terms, conversation_id, owner),
            model=model,
            owner=owner,
            system_prompt=system_prompt,
        ).steps()

    def edit(
        self,
        conversation_id: str,
        seq: int,
        message: str | Message,
        *,
        owner: str | None,
        system_prompt: str | None,
        model: str,
    ) -> Turn:
        check_number(seq, "seq", least=1, most=LAST_REVISION - 1)
        new, *more = question(message)
        if more or new.role != "user":
            raise InvalidArgument("A message is edited into one of the user's: pass a text or one.")
        return KeptTurn(
            self._store,
            self._terms,
            editing(self._store, self._terms, conversation_id, seq, new, owner),
            model=model,
            owner=owner,
            system_prompt=system_prompt,
        ).steps()
