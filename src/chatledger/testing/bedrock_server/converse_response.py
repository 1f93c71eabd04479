"""The response of ``Converse``, assembled from the events of a stream."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from chatledger.testing.bedrock_server.errors import BedrockError
from chatledger.testing.bedrock_server.response_steps import SendEvent


def converse_response(events: Iterable[SendEvent]) -> dict[str, Any]:
    """Return the body of the response; raise ``BedrockError`` if a tool's input is not JSON.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    """
    blocks: dict[int, dict[str, Any]] = {}
    body: dict[str, Any] = {}
    for event in events:
        match event.name:
            case "contentBlockStart":
                use = event.payload["start"]["toolUse"]
                blocks[event.payload["contentBlockIndex"]] = {"toolUse": {**use, "input": ""}}
            case "contentBlockDelta":
                block = blocks.setdefault(event.payload["contentBlockIndex"], {})
                _append_delta(block, event.payload["delta"])
            case "messageStop":
                body["stopReason"] = event.payload["stopReason"]
            case "metadata":
                body |= event.payload
    content = [_with_parsed_input(block) for _, block in sorted(blocks.items())]
    return {"output": {"message": {"role": "assistant", "content": content}}, **body}


def _append_delta(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    match delta:
        case {"text": text}:
            block["text"] = block.get("text", "") + text
        case {"toolUse": {"input": text}}:
            block["toolUse"]["input"] += text
        case {"reasoningContent": part}:
            reasoning = block.setdefault("reasoningContent", {"reasoningText": {"text": ""}})
            for name, text in part.items():
                reasoning["reasoningText"][name] = reasoning["reasoningText"].get(name, "") + text


def _with_parsed_input(block: dict[str, Any]) -> dict[str, Any]:
    if "toolUse" not in block:
        return block
    use = block["toolUse"]
    try:
        return {"toolUse": {**use, "input": json.loads(use["input"])}}
    except ValueError:
        raise BedrockError(
            "Model produced invalid sequence as part of ToolUse. "
            "Please refer to the model tool use troubleshooting guide.",
            code="ModelErrorException",
        ) from None
