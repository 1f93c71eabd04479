"""Requests as the server received them, for a test to inspect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any


@dataclass(slots=True, eq=False)
class Request:
    """A request that the server received, whether it was accepted or rejected.

    Attributes:
        operation: ``Converse`` or ``ConverseStream``.
        model_id: The model id exactly as the client sent it.
        headers: The HTTP headers, by names in lower case.
        body: The parsed JSON; empty if the body was not a JSON object.
    """

    operation: str
    model_id: str
    headers: Mapping[str, str] = field(repr=False)
    body: dict[str, Any] = field(repr=False, default_factory=dict)
    error: str | None = None
    """The code of the HTTP error it was answered with, or None."""
    abandoned: Event = field(repr=False, default_factory=Event)
    """Set once the client disconnects before the response is complete."""
    ended: Event = field(repr=False, default_factory=Event)
    """Set once the server has finished with the request."""

    @property
    def is_streaming(self) -> bool:
        """True for ``ConverseStream``."""
        return self.operation == "ConverseStream"
