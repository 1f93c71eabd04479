"""Everything Chatledger raises. Each error carries its facts and says what to do."""

from collections.abc import Sequence


class ChatledgerError(Exception):
    """The base of all errors that Chatledger raises on purpose."""


class InvalidArgument(ChatledgerError, ValueError):
    """An argument that no store would take; nothing was read or written."""


class InvalidMessage(InvalidArgument):
    """A message, or a part of one, that cannot be stored and come back equal."""


class MessageTooLarge(InvalidMessage):
    """A message or a batch over the stated size; nothing was written."""

    def __init__(self, what: str, *, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size:,} bytes as JSON, over the limit of {limit:,}; "
            "keep large content elsewhere and store a link to it."
        )
        self.size = size
        self.limit = limit


class NotFound(ChatledgerError):
    """There is no such conversation, or not for this owner, or no such message in it."""

    def __init__(self, conversation_id: str, *, seq: int | None = None) -> None:
        what = "conversation" if seq is None else f"message {seq} in conversation"
        super().__init__(f"There is no {what} {conversation_id!r}.")
        self.conversation_id = conversation_id
        self.seq = seq


class AlreadyExists(ChatledgerError):
    """The id is taken by a conversation that lives."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"Conversation {conversation_id!r} exists already; choose another id or append to it."
        )
        self.conversation_id = conversation_id


class Conflict(ChatledgerError):
    """Another writer was first; read the conversation again and retry."""

    def __init__(
        self,
        conversation_id: str,
        *,
        expected: int,
        revision: int,
        advice: str = "read it again and retry",
    ) -> None:
        super().__init__(
            f"Conversation {conversation_id!r} stands at revision {revision}, not {expected}; "
            f"{advice}."
        )
        self.conversation_id = conversation_id
        self.expected = expected
        self.revision = revision


class StoreUnavailable(ChatledgerError):
    """The store did not answer, or not in time, or has no room; trying again later may help.

    ``may_have_landed`` says whether the write may be in all the same: append again with the
    same ``idempotency_key`` and it is in once.
    """

    def __init__(self, message: str, *, may_have_landed: bool = False) -> None:
        super().__init__(message)
        self.may_have_landed = may_have_landed


class StoreMismatch(ChatledgerError):
    """What lies at this place is no Chatledger store, or one that this version cannot use."""


class ModelError(ChatledgerError):
    """A model gave no reply, or not all of it; the user's message is kept, the next turn works.

    ``retryable`` says whether the same call may succeed later.
    """

    retryable = True


class ModelUnavailable(ModelError):
    """The model is down, is not ready, or broke off; trying again later may help."""


class ModelThrottled(ModelError):
    """Too many calls or tokens for the account's quota; trying again after a while helps.

    ``retry_after`` is in seconds, None where the model's service did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelTimeout(ModelError):
    """The model took too long; trying again may help."""


class ModelRefused(ModelError):
    """The model's service refuses the call: a right is missing, or the call is not valid.

    Trying again does not help before something is changed, and the message says what.
    """

    retryable = False


class UnknownModel(InvalidArgument):
    """No model goes by that name here, or what it needs is not installed."""


class TurnInProgress(ChatledgerError):
    """Another turn of the conversation is running; wait ``retry_after`` seconds at most."""

    def __init__(self, conversation_id: str, *, retry_after: float) -> None:
        super().__init__(
            f"A turn of conversation {conversation_id!r} is in progress; wait until it has ended, "
            f"{retry_after:.0f} seconds at most, or stop it."
        )
        self.conversation_id = conversation_id
        self.retry_after = retry_after


class KeyReused(InvalidArgument):
    """The idempotency key was used for another message, or what came of it cannot be had again."""


class TableMissing(StoreMismatch):
    """The table is not there."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"There is no DynamoDB table {table!r} in this account and region; make it with "
            f"chatledger.stores.dynamodb.create_table(client, {table!r})."
        )
        self.table = table


class TableMismatch(StoreMismatch):
    """The table is there, and is not as a store needs it.

    ``differences`` are sentences without a full stop; ``remedy`` says what to do.
    """

    def __init__(self, table: str, differences: Sequence[str], remedy: str) -> None:
        super().__init__(
            f"The DynamoDB table {table!r} is not as a store needs it: {'; '.join(differences)}. "
            f"{remedy}"
        )
        self.table = table
        self.differences = tuple(differences)
        self.remedy = remedy


class AccessRefused(ChatledgerError):
    """The credentials are missing, have expired, or lack a right.

    ``may_have_landed`` says whether an earlier try of the write may be in all the same.
    """

    def __init__(self, message: str, *, may_have_landed: bool = False) -> None:
        super().__init__(message)
        self.may_have_landed = may_have_landed
