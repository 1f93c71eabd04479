"""The request that rules check: a body of valid shape, and the model it is for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from chatledger.testing.bedrock_server.models import BedrockModel

Block: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConverseRequest:
    """A request of valid shape, in which all required fields are therefore present."""

    body: Mapping[str, Any]
    model: BedrockModel
    is_streaming: bool = False

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        return self.body.get("messages") or []

    @property
    def system(self) -> Sequence[Block]:
        return self.body.get("system") or []

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.body.get("inferenceConfig") or {}

    @property
    def tool_config(self) -> Mapping[str, Any] | None:
        return self.body.get("toolConfig")

    @property
    def tools(self) -> Sequence[Block]:
        return self.tool_config["tools"] if self.tool_config else []

    def blocks(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
        """Yield the path, message and content of each block of a kind in the messages."""
        for n, message in enumerate(self.messages):
            for m, block in enumerate(message["content"]):
                if kind in block:
                    yield f"messages.{n}.content.{m}", message, block[kind]
