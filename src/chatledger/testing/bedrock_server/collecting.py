"""The events of a whole reply as what ``Converse`` answers with."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from chatledger.testing.bedrock_server.playing import Event
from chatledger.testing.bedrock_server.refusing import Refused


def whole(events: Iterable[Event]) -> dict[str, Any]:
    """Raises ``Refused`` where a tool's input is no JSON object.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    """
    blocks: dict[int, dict[str, Any]] = {}
    answer: dict[str, Any] = {}
    for event in events:
        match event.name:
            case "contentBlockStart":
                use = event.payload["start"]["toolUse"]
                blocks[event.payload["contentBlockIndex"]] = {"toolUse": {**use, "input": ""}}
            case "contentBlockDelta":
                block = blocks.setdefault(event.payload["contentBlockIndex"], {})
                _add(block, event.payload["delta"])
            case "messageStop":
                answer["stopReason"] = event.payload["stopReason"]
            case "metadata":
                answer |= event.payload
    content = [_finished(block) for _, block in sorted(blocks.items())]
    return {"output": {"message": {"role": "assistant", "content": content}}, **answer}


def _add(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    match delta:
        case {"text": text}:
            block["text"] = block.get("text", "") + text
        case {"toolUse": {"input": text}}:
            block["toolUse"]["input"] += text
        case {"reasoningContent": part}:
            thought = block.setdefault("reasoningContent", {"reasoningText": {"text": ""}})
            for name, text in part.items():
                thought["reasoningText"][name] = thought["reasoningText"].get(name, "") + text


def _finished(block: dict[str, Any]) -> dict[str, Any]:
    if "toolUse" not in block:
        return block
    use = block["toolUse"]
    try:
        return {"toolUse": {**use, "input": json.loads(use["input"])}}
    except ValueError:
        raise Refused(
            "Model produced invalid sequence as part of ToolUse. "
            "Please refer to the model tool use troubleshooting guide.",
            code="ModelErrorException",
        ) from None
