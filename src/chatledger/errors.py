"""Every error that Chatledger raises. Each carries its facts and says what to do."""

from collections.abc import Sequence


class ChatledgerError(Exception):
    """The base class of every error that Chatledger raises on purpose."""


class InvalidArgument(ChatledgerError, ValueError):
    """The argument is invalid for every store; nothing was read or written."""


class InvalidMessage(InvalidArgument):
    """The message, or a part of it, cannot be stored and read back equal."""


class MessageTooLarge(InvalidMessage):
    """The message or batch exceeds the size limit; nothing was written.

    Attributes:
        size: Its size as JSON, in bytes of UTF-8.
        limit: The largest size allowed, in bytes.
    """

    def __init__(
        self,
        subject: str,
        *,
        size: int,
        limit: int,
        advice: str = "keep large content elsewhere and store a link to it",
    ) -> None:
        super().__init__(
            f"{subject} is {size:,} bytes as JSON, over the limit of {limit:,}; {advice}."
        )
        self.size = size
        self.limit = limit


class NotFound(ChatledgerError):
    """The conversation, or the message or entry in it, is missing, or belongs to another owner.

    Attributes:
        conversation_id: The id that was asked for; None for an entry of an owner.
        seq: The seq of the missing message, or None if none was asked for.
        entry: The name of the missing entry, or None if the conversation itself is missing.
    """

    def __init__(
        self,
        conversation_id: str | None,
        *,
        seq: int | None = None,
        entry: str | None = None,
        owner: str | None = None,
    ) -> None:
        missing = f"conversation {conversation_id!r}"
        if entry is not None:
            missing = _label_entry(entry, conversation_id, owner)
        elif seq is not None:
            missing = f"message {seq} in {missing}"
        super().__init__(f"There is no {missing}.")
        self.conversation_id = conversation_id
        self.seq = seq
        self.entry = entry


def _label_entry(entry: str, conversation_id: str | None, owner: str | None) -> str:
    place = f"owner {owner!r}" if conversation_id is None else f"conversation {conversation_id!r}"
    return f"entry {entry!r} of {place}"


class AlreadyExists(ChatledgerError):
    """The id belongs to a live conversation, possibly another owner's."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"Conversation {conversation_id!r} already exists; choose another id or append to it."
        )
        self.conversation_id = conversation_id


REVISIONS_TAKEN = (
    "it was deleted or has expired, and its revisions stay reserved for a day or more; wait, or "
    "restore into another store"
)
"""The advice of a ``Conflict`` with an earlier conversation of the same id."""


class Conflict(ChatledgerError):
    """Another writer was first; read the conversation again and retry.

    Attributes:
        conversation_id: The conversation that was to be changed; None for an entry of an owner.
        expected: The revision, or metadata revision, that the caller passed.
        revision: The one that the conversation or entry has; 0 if there is no such entry.
        entry: The name of the entry that was to be changed, or None if it was the conversation.
    """

    def __init__(
        self,
        conversation_id: str | None,
        *,
        expected: int,
        revision: int,
        advice: str = "read it again and retry",
        of_metadata: bool = False,
        entry: str | None = None,
        owner: str | None = None,
    ) -> None:
        number = "metadata revision" if of_metadata else "revision"
        subject = f"Conversation {conversation_id!r}"
        if entry is not None:
            label = _label_entry(entry, conversation_id, owner)
            subject = f"{label[0].upper()}{label[1:]}"
        super().__init__(f"{subject} is at {number} {revision}, not {expected}; {advice}.")
        self.conversation_id = conversation_id
        self.expected = expected
        self.revision = revision
        self.entry = entry


class StoreUnavailable(ChatledgerError):
    """The store did not answer, did not answer in time, or is full; retry later.

    Attributes:
        may_have_landed: True if the write may have taken effect nevertheless. Append again with
            the same ``idempotency_key``, and the append is made exactly once.
    """

    def __init__(self, message: str, *, may_have_landed: bool = False) -> None:
        super().__init__(message)
        self.may_have_landed = may_have_landed


class DiskFull(StoreUnavailable):
    """The disk of the store is full, and nothing was written; free some space."""


class ClockSkewed(StoreUnavailable):
    """This computer's clock differs too much from the store's; set it. Nothing was written.

    Attributes:
        seconds: The least by which it is ahead of the store's clock; negative if it is behind.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"This computer's clock is {abs(seconds):.1f} seconds or more "
            f"{'ahead of' if seconds > 0 else 'behind'} the store's; set it, for example by NTP. "
            "A store whose clock is off by more than a few seconds refuses writes that depend on "
            "the time."
        )
        self.seconds = seconds


class StoreMismatch(ChatledgerError):
    """The file or table is not a Chatledger store, or is one that this version cannot use."""


class ConversationDamaged(ChatledgerError):
    """A message is missing from the table, for example after a restore from a backup.

    Attributes:
        conversation_id: The conversation.
        seq: The seq of the missing message.
    """

    def __init__(self, conversation_id: str, *, seq: int) -> None:
        super().__init__(
            f"Message {seq} of conversation {conversation_id!r} is missing from the table. Pages "
            "that do not include it can be read; the store's repair() makes the rest usable again."
        )
        self.conversation_id = conversation_id
        self.seq = seq


class ModelError(ChatledgerError):
    """The model gave no reply, or not all of it. The user's message is saved; the next turn works.

    Attributes:
        retryable: True if the same call may succeed later.
    """

    retryable = True


class ModelUnavailable(ModelError):
    """The model is down, is not ready, or broke off its reply; retrying later may help."""


class ModelThrottled(ModelError):
    """The account exceeded its quota of calls or tokens; retry after a pause.

    Attributes:
        retry_after: The pause in seconds, or None if the model's service did not name one.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelTimeout(ModelError):
    """The model took too long; retrying may help."""


class ModelRefused(ModelError):
    """The model's service rejected the call: it is invalid, or a permission is missing.

    Retrying does not help until something is changed; the message says what.
    """

    retryable = False


class ReplyNotStored(ModelError):
    """The model's reply is not one that a store can hold; its pieces were sent to the caller.

    Attributes:
        conversation_id: The conversation, which has the user's message.
    """

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"The model's reply in conversation {conversation_id!r} cannot be stored: it is too "
            "large, or its tool calls are not JSON. Send the message again, or lower the most "
            "tokens of a reply."
        )
        self.conversation_id = conversation_id


class UnknownModel(InvalidArgument):
    """No model has this name, or a package that it needs is not installed."""


class TurnInProgress(ChatledgerError):
    """Another turn of the conversation is running; wait for it, or stop it.

    Attributes:
        conversation_id: The conversation.
        retry_after: The seconds after which to try again: 2, or less if the turn's lease ends
            before. The turn may run for longer, because it renews its lease.
    """

    def __init__(self, conversation_id: str, *, retry_after: float) -> None:
        super().__init__(
            f"A turn of conversation {conversation_id!r} is in progress, or was interrupted; try "
            "again in a moment, or stop it."
        )
        self.conversation_id = conversation_id
        self.retry_after = retry_after


class KeyReused(InvalidArgument):
    """The idempotency key was used for another request, or its reply is no longer available.

    Attributes:
        seqs: The seqs of the messages that were appended with the key, if ``Store.append`` raised
            the error; else None.
    """

    def __init__(self, message: str, *, seqs: range | None = None) -> None:
        super().__init__(message)
        self.seqs = seqs


class TableMissing(StoreMismatch):
    """The DynamoDB table does not exist."""

    def __init__(self, table: str, remedy: str | None = None) -> None:
        if remedy is None:
            remedy = f"create it with chatledger.stores.dynamodb.create_table(client, {table!r})."
        super().__init__(
            f"There is no DynamoDB table {table!r} in this account and region; {remedy}"
        )
        self.table = table


class TableMismatch(StoreMismatch):
    """The DynamoDB table exists, but is not set up as the store needs it.

    Attributes:
        table: The name of the table.
        differences: What differs; clauses without a full stop.
        remedy: What to do about it; a full sentence.
    """

    def __init__(self, table: str, differences: Sequence[str], remedy: str) -> None:
        super().__init__(
            f"The DynamoDB table {table!r} is not set up as the store needs it: "
            f"{'; '.join(differences)}. {remedy}"
        )
        self.table = table
        self.differences = tuple(differences)
        self.remedy = remedy


class AccessRefused(ChatledgerError):
    """The AWS credentials are missing, have expired, or lack a permission.

    Attributes:
        may_have_landed: True if an earlier attempt at the write may have taken effect.
    """

    def __init__(self, message: str, *, may_have_landed: bool = False) -> None:
        super().__init__(message)
        self.may_have_landed = may_have_landed
