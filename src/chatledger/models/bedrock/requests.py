"""From messages to the body of a Converse or ConverseStream request. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import json
from base64 import b64encode
from collections.abc import Sequence

from chatledger.messages import Message
from chatledger.models.bedrock import tools
from chatledger.models.bedrock.content import EMPTY, blocks, text_blocks
from chatledger.models.bedrock.settings import Block, Settings


def request(messages: Sequence[Message], system_prompt: str | None, settings: Settings) -> Block:
    """The body, without the model's id; it has images as ``bytes``, as boto3 takes them.

    Without tools Bedrock refuses calls of them, and so these are told in words: what began with
    tools can go on without.
    """
    turns = _turns(messages, with_tools=bool(settings.tools))
    system = _system(messages, system_prompt)
    definitions = list(settings.tools)
    if settings.cache:
        _mark(definitions, system, turns)
    body: Block = {"messages": turns}
    if system:
        body["system"] = system
    if inference := _inference(settings):
        body["inferenceConfig"] = inference
    if definitions:
        body["toolConfig"] = {"tools": definitions}
        if settings.tool_choice:
            body["toolConfig"]["toolChoice"] = settings.tool_choice
    if settings.additional_fields:
        body["additionalModelRequestFields"] = dict(settings.additional_fields)
    if guardrail := settings.guardrail:
        config = {"guardrailIdentifier": guardrail.id, "guardrailVersion": guardrail.version}
        if settings.streaming:
            config["streamProcessingMode"] = guardrail.mode
        body["guardrailConfig"] = config
    return body


def encoded(body: Block) -> bytes:
    """The body as JSON."""
    return json.dumps(
        body,
        default=lambda data: b64encode(data).decode(),
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def _inference(settings: Settings) -> Block:
    asked: Block = {}
    if settings.max_tokens is not None:
        asked["maxTokens"] = settings.max_tokens
    if settings.temperature is not None:
        asked["temperature"] = settings.temperature
    if settings.top_p is not None:
        asked["topP"] = settings.top_p
    if settings.stop_sequences:
        asked["stopSequences"] = list(settings.stop_sequences)
    return asked


def _system(messages: Sequence[Message], system_prompt: str | None) -> list[Block]:
    found = text_blocks(system_prompt or "")
    for message in messages:
        if message.role == "system":
            found += text_blocks(message.content)
    return found


def _turns(messages: Sequence[Message], *, with_tools: bool) -> list[Block]:
    """The user's and the assistant's turns, in turns; tools' results are of the user's."""
    turns: list[Block] = []
    ids = tools.Ids()
    called: dict[str | None, str] = {}
    content: list[Block] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if not turns or turns[-1]["role"] != role:
            content = []
            turns.append({"role": role, "content": content})
        if message.role == "assistant":
            called |= {str(call.get("id")): str(call.get("name")) for call in message.tool_calls}
            content += _said(message, ids if with_tools else None)
        elif message.role == "user":
            content += blocks(message.content) or [{"text": EMPTY}]
        elif with_tools:
            content.append(tools.result(message, ids.of_result(message.tool_call_id or "")))
        else:
            name = called.get(message.tool_call_id)
            content.append({"text": tools.result_as_text(message, name)})
    return turns


def _said(message: Message, ids: tools.Ids | None) -> list[Block]:
    """What the assistant said and called; calls are in words where there are no ids for them."""
    said = text_blocks(message.content)
    for call in message.tool_calls:
        if ids is None:
            said.append({"text": tools.use_as_text(call)})
        else:
            said.append(tools.use(call, ids.of_call(str(call.get("id") or ""))))
    return said or [{"text": EMPTY}]


# Prompt caching ----------------------------------------------------------------------------------


def _mark(definitions: list[Block], system: list[Block], turns: list[Block]) -> None:
    """Put cache points behind what the next request will begin with as well; three of four allowed.

    One behind the system prompt, or the tools where there is none (they come before it, so that one
    point serves both; Nova takes none behind tools); one behind the last user turn, where the next
    request of this conversation will find all up to here; and one behind the user turn before it,
    where the last request put it, since only Claude looks for earlier points by itself.
    """
    if fixed := system or definitions:
        fixed.append(_point())
    for turn in [turn for turn in turns if turn["role"] == "user"][-2:]:
        turn["content"].append(_point())


def _point() -> Block:
    return {"cachePoint": {"type": "default"}}
