"""Everything Recollect raises. Each error carries its facts and says what to do."""

from collections.abc import Sequence


class RecollectError(Exception):
    """The base of all errors that Recollect raises on purpose."""


class InvalidArgument(RecollectError, ValueError):
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


class NotFound(RecollectError):
    """There is no such conversation, or not for this owner, or no such message in it."""

    def __init__(self, conversation_id: str, *, seq: int | None = None) -> None:
        what = "conversation" if seq is None else f"message {seq} in conversation"
        super().__init__(f"There is no {what} {conversation_id!r}.")
        self.conversation_id = conversation_id
        self.seq = seq


class AlreadyExists(RecollectError):
    """The id is taken by a conversation that lives."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"Conversation {conversation_id!r} exists already; choose another id or append to it."
        )
        self.conversation_id = conversation_id


class Conflict(RecollectError):
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


class StoreUnavailable(RecollectError):
    """The store did not answer, or not in time, or has no room; trying again later may help.

    ``may_have_landed`` says whether the write may be in all the same: append again with the
    same ``idempotency_key`` and it is in once.
    """

    def __init__(self, message: str, *, may_have_landed: bool = False) -> None:
        super().__init__(message)
        self.may_have_landed = may_have_landed


class StoreMismatch(RecollectError):
    """What lies at this place is no Recollect store, or one that this version cannot use."""


class ModelUnavailable(RecollectError):
    """The model did not answer; the user's message is kept, and the next turn works."""


class UnknownModel(InvalidArgument):
    """No model goes by that name here."""


class TableMissing(StoreMismatch):
    """The table is not there."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"There is no DynamoDB table {table!r} in this account and region; make it with "
            f"recollect.stores.dynamodb.create_table(client, {table!r})."
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


class AccessRefused(RecollectError):
    """The credentials are missing, have expired, or lack a right.

    ``may_have_landed`` says whether an earlier try of the write may be in all the same.
    """

    def __init__(self, message: str, *, may_have_landed: bool = False) -> None:
        super().__init__(message)
        self.may_have_landed = may_have_landed
