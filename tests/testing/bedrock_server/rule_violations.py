"""Requests that break a rule, each with a similar one that keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.testing.bedrock_server.client import HAIKU, HELLO, MICRO, OPUS, SONNET

Body = Mapping[str, Any]

TEXT = {"text": "Hi"}
POINT = {"cachePoint": {"type": "default"}}
SPEC = {"name": "weather", "inputSchema": {"json": {"type": "object"}}}
TOOLS = {"tools": [{"toolSpec": SPEC}]}


class Violation(NamedTuple):
    """An invalid body and a valid one that differs from it only in the violation."""

    description: str
    invalid_body: Any
    valid_body: Body
    message: str
    """A part of the error message."""
    model: str = SONNET
    valid_model: str | None = None
    """The model that accepts ``valid_body``, if it is not ``model``."""
    code: str = "ValidationException"


def user(*content: object) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: object) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def conversation(*messages: object, **more: object) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def tool_use(id: str = "u1", *, name: str = "weather", input: object = None) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id, "name": name, "input": {} if input is None else input}}


def tool_result(id: str = "u1", *content: object, **more: object) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": id, "content": list(content) or [TEXT], **more}}


def tool_exchange(
    uses: Sequence[object], results: Sequence[object], **more: object
) -> dict[str, Any]:
    return conversation(
        user(TEXT), assistant(*uses), user(*results), **{"toolConfig": TOOLS, **more}
    )


def hello_with(**more: object) -> dict[str, Any]:
    return {**HELLO, **more}


def hello_with_settings(**values: object) -> dict[str, Any]:
    return hello_with(inferenceConfig=values)


def hello_with_tool(**changes: object) -> dict[str, Any]:
    spec = {name: value for name, value in {**SPEC, **changes}.items() if value is not None}
    return hello_with(toolConfig={"tools": [{"toolSpec": spec}]})


LONG = conversation(user({"text": "word " * 170_000}))
GOOD = tool_exchange([tool_use()], [tool_result()])

MESSAGES = [
    Violation("no messages", conversation(), HELLO, "must start with a user message"),
    Violation("no messages field", {}, HELLO, "must start with a user message"),
    Violation(
        "the assistant first",
        conversation(assistant(TEXT), user(TEXT)),
        conversation(user(TEXT), assistant(TEXT), user(TEXT)),
        "must start with a user message",
    ),
    Violation(
        "two user messages in a row",
        conversation(user(TEXT), user(TEXT)),
        conversation(user(TEXT, TEXT)),
        "must alternate between user and assistant roles",
    ),
    Violation(
        "two assistant messages in a row",
        conversation(user(TEXT), assistant(TEXT), assistant(TEXT), user(TEXT)),
        conversation(user(TEXT), assistant(TEXT, TEXT), user(TEXT)),
        "must alternate between user and assistant roles",
    ),
    Violation(
        "empty content",
        conversation(user()),
        HELLO,
        "object at messages.0 is empty. Add a ContentBl",
    ),
    Violation(
        "empty text",
        conversation(user(TEXT), assistant({"text": ""}), user(TEXT)),
        conversation(user(TEXT), assistant(TEXT), user(TEXT)),
        "ContentBlock object at messages.1.content.0 is blank. Add text to the text field",
    ),
    Violation(
        "blank text",
        conversation(user(TEXT, {"text": " \n"})),
        conversation(user(TEXT, {"text": " \n."})),
        "ContentBlock object at messages.0.content.1 is blank",
    ),
    Violation(
        "blank system prompt",
        hello_with(system=[{"text": " "}]),
        hello_with(system=[TEXT]),
        "system.0",
    ),
    Violation(
        "empty system prompt",
        hello_with(system=[{"text": ""}]),
        hello_with(system=[]),
        "Value '' at 'system.1.member.text' failed to satisfy constraint: Member must have length "
        "greater than or equal to 1",
    ),
    Violation(
        "a document without a text",
        conversation(user({"document": {"name": "a", "format": "txt", "source": {"text": "b"}}})),
        conversation(
            user(TEXT, {"document": {"name": "a", "format": "txt", "source": {"text": "b"}}})
        ),
        "A text block must be included when using documents.",
    ),
    Violation(
        "a last assistant message that ends in white space",
        conversation(user(TEXT), assistant({"text": "I "})),
        conversation(user(TEXT), assistant({"text": "I"})),
        "messages: final assistant content cannot end with trailing whitespace",
    ),
    Violation(
        "a last assistant message for a model without prefill",
        conversation(user(TEXT), assistant(TEXT)),
        conversation(user(TEXT), assistant(TEXT), user(TEXT)),
        "This model does not support assistant message prefill. The conversation must end with",
        OPUS,
    ),
    Violation(
        "an unknown role",
        conversation({"role": "tool", "content": [TEXT]}),
        HELLO,
        "Value 'tool' at 'messages.1.member.role' failed to satisfy constraint: Member must "
        "satisfy enum value set: [user, assistant]",
    ),
    Violation(
        "a system message among the others",
        conversation({"role": "system", "content": [TEXT]}),
        HELLO,
        "Member must satisfy enum value set: [user, assistant]",
    ),
    Violation(
        "input longer than the model's context",
        LONG,
        HELLO,
        "Input is too long for requested model.",
    ),
    Violation(
        "input longer than a small model's context",
        conversation(user({"text": "word " * 110_000})),
        conversation(user({"text": "word " * 90_000})),
        "Input is too long for requested model.",
        MICRO,
    ),
]

TOOL_USE = [
    Violation(
        "a use without a result in the next message",
        tool_exchange([tool_use()], [TEXT]),
        GOOD,
        "Expected toolResult blocks at messages.2.content for the following Ids: u1",
    ),
    Violation(
        "a use in the last message",
        conversation(user(TEXT), assistant(tool_use()), toolConfig=TOOLS),
        GOOD,
        "Expected toolResult blocks at messages.2.content for the following Ids: u1",
    ),
    Violation(
        "one result for two uses",
        tool_exchange([tool_use("u1"), tool_use("u2")], [tool_result("u1")]),
        tool_exchange([tool_use("u1"), tool_use("u2")], [tool_result("u2"), tool_result("u1")]),
        "Expected toolResult blocks at messages.2.content for the following Ids: u2",
    ),
    Violation(
        "a result for another use",
        tool_exchange([tool_use("u1")], [tool_result("u2")]),
        GOOD,
        "Expected toolResult blocks at messages.2.content for the following Ids: u1",
    ),
    Violation(
        "a result without a use",
        conversation(user(tool_result()), toolConfig=TOOLS),
        GOOD,
        "toolResult blocks at messages.0.content exceeds the number of toolUse blocks of previous",
    ),
    Violation(
        "one result too many",
        tool_exchange([tool_use()], [tool_result("u1"), tool_result("u2")]),
        GOOD,
        "toolResult blocks at messages.2.content exceeds the number of toolUse blocks of previous",
    ),
    Violation(
        "a result two messages later",
        conversation(
            user(TEXT), assistant(tool_use()), user(TEXT), assistant(TEXT), user(tool_result())
        )
        | {"toolConfig": TOOLS},
        GOOD,
        "Expected toolResult blocks at messages.2.content",
    ),
    Violation(
        "two uses with the same id",
        tool_exchange([tool_use(), tool_use()], [tool_result()]),
        tool_exchange([tool_use("u1"), tool_use("u2")], [tool_result("u1"), tool_result("u2")]),
        "The toolUse blocks at messages.1.content contain duplicate Ids: u1",
    ),
    Violation(
        "two results with the same id",
        tool_exchange([tool_use()], [tool_result(), tool_result()]),
        GOOD,
        "The toolResult blocks at messages.2.content contain duplicate Ids: u1",
    ),
    Violation(
        "an id from an earlier message",
        conversation(
            user(TEXT),
            assistant(tool_use()),
            user(tool_result()),
            assistant(tool_use()),
            user(tool_result()),
        )
        | {"toolConfig": TOOLS},
        conversation(
            user(TEXT),
            assistant(tool_use()),
            user(tool_result()),
            assistant(tool_use("b")),
            user(tool_result("b")),
        )
        | {"toolConfig": TOOLS},
        "messages: `tool_use` ids must be unique",
    ),
    Violation(
        "a use by the user",
        conversation(user(tool_use()), toolConfig=TOOLS),
        GOOD,
        "`tool_use` blocks can only be in `assistant` messages",
    ),
    Violation(
        "a result by the assistant",
        tool_exchange([tool_use(), tool_result()], [tool_result()]),
        GOOD,
        "`tool_result` blocks can only be in `user` messages",
    ),
    Violation(
        "a text before a result",
        tool_exchange([tool_use()], [TEXT, tool_result()]),
        tool_exchange([tool_use()], [tool_result(), TEXT]),
        "`tool_result` blocks must come first",
    ),
    Violation(
        "uses and results without tools",
        conversation(*GOOD["messages"]),
        GOOD,
        "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
    ),
    Violation(
        "an id with a forbidden character",
        tool_exchange([tool_use("a.b")], [tool_result("a.b")]),
        tool_exchange([tool_use("a-b")], [tool_result("a-b")]),
        "toolUse.toolUseId' failed to satisfy constraint: Member must satisfy regular expression",
    ),
    Violation(
        "an id of 65 characters",
        tool_exchange([tool_use("i" * 65)], [tool_result("i" * 65)]),
        tool_exchange([tool_use("i" * 64)], [tool_result("i" * 64)]),
        "toolUse.toolUseId' failed to satisfy constraint: Member must have length less than or",
    ),
    Violation(
        "an empty id",
        tool_exchange([tool_use("")], [tool_result("")]),
        GOOD,
        "toolUse.toolUseId' failed to satisfy constraint: Member must have length greater than",
    ),
    Violation(
        "a space in the name of a used tool",
        tool_exchange([tool_use(name="the weather")], [tool_result()]),
        tool_exchange([tool_use(name="the_weather")], [tool_result()]),
        "toolUse.name' failed to satisfy constraint",
    ),
    Violation(
        "an input that is not an object",
        tool_exchange([tool_use(input="Kyiv")], [tool_result()]),
        GOOD,
        "The format of the value at messages.1.content.0.toolUse.input is invalid. Provide a json",
    ),
    Violation(
        "JSON in a result that is not an object",
        tool_exchange([tool_use()], [tool_result("u1", {"json": [1]})]),
        tool_exchange([tool_use()], [tool_result("u1", {"json": {"list": [1]}})]),
        "messages.2.content.0.toolResult.content.0.json is invalid. Provide a json object",
    ),
    Violation(
        "an unknown kind of result",
        tool_exchange([tool_use()], [tool_result("u1", {"cachePoint": {"type": "default"}})]),
        GOOD,
        "extraneous key [cachePoint] is not permitted",
    ),
    Violation(
        "an unknown status",
        tool_exchange([tool_use()], [tool_result(status="failed")]),
        tool_exchange([tool_use()], [tool_result(status="error")]),
        "Member must satisfy enum value set: [success, error]",
    ),
    Violation(
        "an error result without content",
        tool_exchange(
            [tool_use()], [{"toolResult": {"toolUseId": "u1", "content": [], "status": "error"}}]
        ),
        tool_exchange([tool_use()], [{"toolResult": {"toolUseId": "u1", "content": []}}]),
        "messages.2.content.0.toolResult cannot be empty when status value is error.",
    ),
    Violation(
        "a tool without a schema",
        hello_with_tool(inputSchema=None),
        hello_with_tool(),
        "inputSchema' failed to",
    ),
    Violation(
        "a tool without a name",
        hello_with_tool(name=None),
        hello_with_tool(),
        "toolSpec.name' failed to satisfy",
    ),
    Violation(
        "a tool's name with a dot",
        hello_with_tool(name="a.b"),
        hello_with_tool(name="a-b"),
        "toolSpec.name' failed",
    ),
    Violation(
        "an empty description",
        hello_with_tool(description=""),
        hello_with_tool(description="d"),
        "description' fa",
    ),
    Violation(
        "a schema of a string",
        hello_with_tool(inputSchema={"json": {"type": "string"}}),
        hello_with_tool(),
        "toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: object.",
    ),
    Violation(
        "a schema given as text",
        hello_with_tool(inputSchema={"json": "{}"}),
        hello_with_tool(),
        "toolConfig.tools.0.toolSpec.inputSchema.json is invalid. Provide a json object",
    ),
    Violation(
        "no tools",
        hello_with(toolConfig={"tools": []}),
        hello_with_tool(),
        "tools' failed to satisfy",
    ),
    Violation(
        "two tools with the same name",
        hello_with(toolConfig={"tools": [*TOOLS["tools"], *TOOLS["tools"]]}),
        hello_with_tool(),
        "Tool names must be unique",
    ),
    Violation(
        "a tool and a cache point in one block",
        hello_with(toolConfig={"tools": [{"toolSpec": SPEC, **POINT}]}),
        hello_with(toolConfig={"tools": [{"toolSpec": SPEC}, POINT]}),
        "The value at toolConfig.tools.0 can only set one of the following keys: toolSpec",
    ),
    Violation(
        "a tool choice that is not among the tools",
        hello_with(toolConfig={**TOOLS, "toolChoice": {"tool": {"name": "time"}}}),
        hello_with(toolConfig={**TOOLS, "toolChoice": {"tool": {"name": "weather"}}}),
        "Tool 'time' not found in provided tools",
    ),
    Violation(
        "two tool choices at once",
        hello_with(toolConfig={**TOOLS, "toolChoice": {"auto": {}, "any": {}}}),
        hello_with(toolConfig={**TOOLS, "toolChoice": {"any": {}}}),
        "The value at toolConfig.toolChoice can only set one of the following keys: auto, any, or",
    ),
]

SETTINGS = [
    Violation(
        "more output tokens than the model's limit",
        hello_with_settings(maxTokens=4097),
        hello_with_settings(maxTokens=4096),
        "The maximum tokens you requested exceeds the model limit of 4096. Try again with a "
        "maximum tokens value that is lower than 4096.",
        HAIKU,
    ),
    Violation(
        "zero output tokens",
        hello_with_settings(maxTokens=0),
        hello_with_settings(maxTokens=1),
        "Value '0' at 'inferenceConfig.maxTokens' failed to satisfy constraint: Member must have "
        "value greater than or equal to 1",
    ),
    Violation(
        "a temperature above 1",
        hello_with_settings(temperature=1.5),
        hello_with_settings(temperature=1),
        "Value '1.5' at 'inferenceConfig.temperature' failed to satisfy constraint: Member must "
        "have value less than or equal to 1",
    ),
    Violation(
        "a temperature below 0",
        hello_with_settings(temperature=-0.1),
        hello_with_settings(temperature=0),
        "equal t",
    ),
    Violation(
        "a top_p above 1",
        hello_with_settings(topP=1.1),
        hello_with_settings(topP=1.0),
        "'inferenceConfig.topP' fail",
    ),
    Violation(
        "a top_p below 0",
        hello_with_settings(topP=-1),
        hello_with_settings(topP=0.0),
        "'inferenceConfig.topP' fail",
    ),
    Violation(
        "two violations",
        hello_with_settings(topP=2, maxTokens=-1),
        hello_with_settings(topP=1, maxTokens=1),
        "2 validation errors detected: Value '-1' at 'inferenceConfig.maxTokens'",
    ),
    Violation(
        "a temperature for a model that accepts none",
        hello_with_settings(temperature=0.5),
        hello_with_settings(maxTokens=100),
        "The model returned the following errors: `temperature` is deprecated for this model.",
        OPUS,
    ),
    Violation(
        "a top_p for a model that accepts none",
        hello_with_settings(topP=0.5),
        hello_with_settings(),
        "`top_p` is deprecated for this model.",
        OPUS,
    ),
    Violation(
        "a top_k among the model's own parameters for a model that accepts none",
        hello_with(additionalModelRequestFields={"top_k": 5}),
        hello_with(additionalModelRequestFields={}),
        "`top_k` is deprecated for this model.",
        OPUS,
    ),
    Violation(
        "temperature and top_p for a model that accepts only one",
        hello_with_settings(temperature=0.5, topP=0.5),
        hello_with_settings(temperature=0.5),
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    Violation(
        "2,501 stop sequences",
        hello_with_settings(stopSequences=["stop"] * 2501),
        hello_with_settings(stopSequences=["stop"] * 2500),
        "'inferenceConfig.stopSequences' failed to satisfy constraint: Member must have length les",
    ),
    Violation(
        "more stop sequences than the model accepts",
        hello_with_settings(stopSequences=list("abcde")),
        hello_with_settings(stopSequences=list("abcd")),
        "expected maximum item count: 4, found: 5",
        MICRO,
    ),
    Violation(
        "an empty stop sequence",
        hello_with_settings(stopSequences=[""]),
        hello_with_settings(stopSequences=[]),
        "inferenceConfig.stopSequences.1.member' failed to satisfy constraint",
    ),
    Violation(
        "a blank stop sequence",
        hello_with_settings(stopSequences=["\n"]),
        hello_with_settings(stopSequences=["\n."]),
        "stop_sequences: each stop sequence must contain non-whitespace",
    ),
    Violation(
        "additional fields that are not an object",
        hello_with(additionalModelRequestFields=["top_k"]),
        hello_with(additionalModelRequestFields={"top_k": 5}),
        "additionalModelRequestFields is invalid. Provide a json object",
    ),
    Violation(
        "a guardrail without a version",
        hello_with(guardrailConfig={"guardrailIdentifier": "abc"}),
        hello_with(guardrailConfig={"guardrailIdentifier": "abc", "guardrailVersion": "1"}),
        "Value null at 'guardrailConfig.guardrailVersion' failed to satisfy constraint",
    ),
    Violation(
        "a guardrail without an identifier",
        hello_with(guardrailConfig={"guardrailVersion": "DRAFT"}),
        hello_with(guardrailConfig={"guardrailIdentifier": "abc", "guardrailVersion": "DRAFT"}),
        "Value null at 'guardrailConfig.guardrailIdentifier' failed to satisfy constraint",
    ),
    Violation(
        "a cache point of an unknown type",
        conversation(user(TEXT, {"cachePoint": {"type": "ephemeral"}})),
        conversation(user(TEXT, POINT)),
        "cachePoint.type' failed to satisfy constraint: Member must satisfy enum value set: [defa",
    ),
    Violation(
        "five cache points",
        conversation(user(TEXT, POINT, TEXT, POINT, TEXT, POINT), system=[TEXT, POINT])
        | {"toolConfig": {"tools": [{"toolSpec": SPEC}, POINT]}},
        conversation(user(TEXT, POINT, TEXT, POINT, TEXT, POINT), system=[TEXT, POINT]),
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    Violation(
        "a cache point for a model without prompt caching",
        conversation(user(TEXT, POINT)),
        conversation(user(TEXT)),
        "You invoked an unsupported model or your request did not allow prompt caching.",
        HAIKU,
        code="AccessDeniedException",
    ),
]

TYPES = [
    Violation("an unknown field", hello_with(stream=True), HELLO, "extraneous key [stream] is"),
    Violation(
        "an unknown field of a message",
        conversation({**user(TEXT), "id": "m1"}),
        HELLO,
        "#/messages/0: extraneous key [id] is not permitted",
    ),
    Violation(
        "an unknown setting", hello_with_settings(topK=1), hello_with_settings(topP=1), "key [topK]"
    ),
    Violation(
        "an unknown kind of block",
        conversation(user({"type": "text", "text": "Hi"})),
        HELLO,
        "#/messages/0/content/0: extraneous key [type] is not permitted",
    ),
    Violation(
        "a block of two kinds",
        conversation(user({**TEXT, **POINT})),
        conversation(user(TEXT, POINT)),
        "The value at messages.0.content.0 can only set one of the following keys: text, image",
    ),
    Violation(
        "a block of no kind",
        conversation(user({})),
        HELLO,
        "messages.0.content.0 must set one of the",
    ),
    Violation(
        "a message without a role",
        conversation({"content": [TEXT]}),
        HELLO,
        "role' failed to satisfy",
    ),
    Violation(
        "a message without content",
        conversation({"role": "user"}),
        HELLO,
        "Value null at 'messages.1.member.content' failed to satisfy constraint: Member must not b",
    ),
    Violation(
        "an unknown image format",
        conversation(user({"image": {"format": "bmp", "source": {"bytes": "aGk="}}})),
        conversation(user({"image": {"format": "png", "source": {"bytes": "aGk="}}})),
        "Member must satisfy enum value set: [png, jpeg, gif, webp]",
    ),
    *(
        Violation(description, body, HELLO, message, code="SerializationException")
        for description, body, message in [
            (
                "content given as text",
                conversation({"role": "user", "content": "Hi"}),
                "STRING_VALUE can not be",
            ),
            (
                "a number in place of text",
                conversation(user({"text": 5})),
                "NUMBER_VALUE can not be converted to a S",
            ),
            (
                "text in place of a number",
                hello_with_settings(maxTokens="5"),
                "STRING_VALUE can not be converted to an",
            ),
            (
                "a fractional number of tokens",
                hello_with_settings(maxTokens=5.5),
                "can not be converted to an Integer",
            ),
            (
                "a boolean in place of a number",
                hello_with_settings(maxTokens=True),
                "TRUE_VALUE can not be converted to an",
            ),
            (
                "a system prompt given as text",
                hello_with(system="Be kind."),
                "STRING_VALUE can not be converted",
            ),
            (
                "a list in place of a block",
                conversation(user([TEXT])),
                "Start of list found where not expected",
            ),
            (
                "a structure in place of text",
                conversation(user({"text": {}})),
                "Start of structure or map found",
            ),
            (
                "bytes that are not base64",
                conversation(user({"image": {"format": "png", "source": {"bytes": "!"}}})),
                "STRING_VALUE can not be converted to a Blob",
            ),
            ("a body that is a list", [], "Unexpected token or end of input."),
            ("a body that is not JSON", b"{", "Unexpected token or end of input."),
            ("no body", b"", "Unexpected token or end of input."),
        ]
    ),
]

PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile"
INVALID = "The provided model identifier is invalid."
NEEDS_PROFILE = (
    "with on-demand throughput isn’t supported. Retry your request with the ID or ARN of an "
    "inference profile that contains this model."
)
MODELS = [
    Violation(description, HELLO, HELLO, message, model, valid_model)
    for description, model, valid_model, message in [
        ("an unknown model", "anthropic.claude-9", HAIKU, INVALID),
        ("an empty profile", "us.", SONNET, INVALID),
        ("an unknown geography", f"mars.{HAIKU}", f"us.{HAIKU}", INVALID),
        ("a geography that does not have the model", f"global.{HAIKU}", f"apac.{HAIKU}", INVALID),
        (
            "the bare id of a model that needs a profile",
            "anthropic.claude-opus-4-7",
            OPUS,
            f"Invocation of model ID anthropic.claude-opus-4-7 {NEEDS_PROFILE}",
        ),
        (
            "the ARN of a model that needs a profile",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-7",
            f"arn:aws:bedrock:us-east-1::foundation-model/{HAIKU}",
            NEEDS_PROFILE,
        ),
        ("the ARN of an unknown profile", f"{PROFILE}/eu.nothing", f"{PROFILE}/{OPUS}", INVALID),
        ("a bare model id as a profile", f"{PROFILE}/{HAIKU}", f"{PROFILE}/eu.{HAIKU}", INVALID),
        (
            "an ARN of another service",
            f"arn:aws:s3:::{HAIKU}",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3",
            INVALID,
        ),
    ]
]

VIOLATIONS = [*MESSAGES, *TOOL_USE, *SETTINGS, *TYPES, *MODELS]
