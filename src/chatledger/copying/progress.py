"""Progress and result of a copy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a copy.

    Attributes:
        conversations: Conversations that are done.
        messages: Messages that were copied.
        conversation_id: The conversation that was being copied.
    """

    conversations: int
    messages: int
    conversation_id: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A conversation, or an owner's entries, that could not be copied, or only in part.

    Attributes:
        conversation_id: Its id; for entries of an owner, ``entries of owner`` and the owner.
        why: The reason, as a sentence without any message text.
    """

    conversation_id: str
    why: str


@dataclass(slots=True, kw_only=True)
class Copied:
    """Result of a copy.

    Attributes:
        conversations: Conversations that are now the same in the target as in the source, whether
            this run or an earlier one copied them.
        messages: Messages that this run copied.
        entries: Entries that this run copied, of conversations and of their owners.
        problems: Conversations that were not copied and need attention.
        extra: Ids of conversations that the target has and the source, if it is a store, does not;
            with ``delete_extra`` they are deleted from the target.
    """

    conversations: int = 0
    messages: int = 0
    entries: int = 0
    problems: list[Problem] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


OnProgress: TypeAlias = Callable[[Progress], object]


class TargetDiffers(Exception):
    """The target has other content than the source, or cannot have it; the message says why."""


class ProgressCallbackFailed(Exception):
    """The caller's progress callback raised ``error``, which is unrelated to the copy."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(slots=True)
class ProgressReporter:
    """Counts what was copied and calls the caller's progress callback."""

    on_progress: OnProgress | None
    copied: Copied = field(default_factory=Copied)
    conversations_done: int = 0

    def report(self, conversation_id: str, *, is_done: bool = False) -> None:
        """Call the progress callback.

        Raises:
            ProgressCallbackFailed: The callback raised an error.
        """
        self.conversations_done += is_done
        if self.on_progress is None:
            return
        progress = Progress(
            conversations=self.conversations_done,
            messages=self.copied.messages,
            conversation_id=conversation_id,
        )
        try:
            self.on_progress(progress)
        except Exception as error:
            raise ProgressCallbackFailed(error) from error
