"""What the server was asked, for a test to look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any


@dataclass(slots=True, eq=False)
class Request:
    """A request that came in, whether it was answered or refused.

    ``operation`` is ``Converse`` or ``ConverseStream``, ``model_id`` is as the client named the
    model, ``headers`` have names in small letters. ``body`` is what the JSON said, and empty
    where it was none.
    """

    operation: str
    model_id: str
    headers: Mapping[str, str] = field(repr=False)
    body: dict[str, Any] = field(repr=False, default_factory=dict)
    error: str | None = None
    """The code that it was refused or failed with, before anything was answered."""
    abandoned: Event = field(repr=False, default_factory=Event)
    """Set once the client goes away before the answer is complete."""
    ended: Event = field(repr=False, default_factory=Event)
    """Set once the server has nothing to do with it any more."""

    @property
    def streams(self) -> bool:
        return self.operation == "ConverseStream"
