"""Requests that break a rule, each beside one that keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.testing.bedrock_server.requests_for_tests import HAIKU, HELLO, MICRO, OPUS, SONNET

Body = Mapping[str, Any]

TEXT = {"text": "Hi"}
POINT = {"cachePoint": {"type": "default"}}
SPEC = {"name": "weather", "inputSchema": {"json": {"type": "object"}}}
TOOLS = {"tools": [{"toolSpec": SPEC}]}


class Broken(NamedTuple):
    """``says`` is a part of the message; ``kept`` differs from ``body`` only in what is wrong."""

    sentence: str
    body: Any
    kept: Body
    says: str
    model: str = SONNET
    kept_by: str | None = None
    """The model that takes ``kept``, where it is not the same."""
    code: str = "ValidationException"


def user(*content: object) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: object) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def said(*messages: object, **more: object) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def use(id: str = "u1", *, name: str = "weather", input: object = None) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id, "name": name, "input": {} if input is None else input}}


def result(id: str = "u1", *content: object, **more: object) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": id, "content": list(content) or [TEXT], **more}}


def talk(uses: Sequence[object], results: Sequence[object], **more: object) -> dict[str, Any]:
    return said(user(TEXT), assistant(*uses), user(*results), **{"toolConfig": TOOLS, **more})


def hello(**more: object) -> dict[str, Any]:
    return {**HELLO, **more}


def settings(**values: object) -> dict[str, Any]:
    return hello(inferenceConfig=values)


def tool(**changes: object) -> dict[str, Any]:
    spec = {name: value for name, value in {**SPEC, **changes}.items() if value is not None}
    return hello(toolConfig={"tools": [{"toolSpec": spec}]})


LONG = said(user({"text": "word " * 170_000}))
GOOD = talk([use()], [result()])

MESSAGES = [
    Broken("no messages", said(), HELLO, "must start with a user message"),
    Broken("no field of messages", {}, HELLO, "must start with a user message"),
    Broken(
        "an assistant first",
        said(assistant(TEXT), user(TEXT)),
        said(user(TEXT), assistant(TEXT), user(TEXT)),
        "must start with a user message",
    ),
    Broken(
        "two messages of the user in a row",
        said(user(TEXT), user(TEXT)),
        said(user(TEXT, TEXT)),
        "must alternate between user and assistant roles",
    ),
    Broken(
        "two messages of the assistant in a row",
        said(user(TEXT), assistant(TEXT), assistant(TEXT), user(TEXT)),
        said(user(TEXT), assistant(TEXT, TEXT), user(TEXT)),
        "must alternate between user and assistant roles",
    ),
    Broken("empty content", said(user()), HELLO, "object at messages.0 is empty. Add a ContentBl"),
    Broken(
        "empty text",
        said(user(TEXT), assistant({"text": ""}), user(TEXT)),
        said(user(TEXT), assistant(TEXT), user(TEXT)),
        "ContentBlock object at messages.1.content.0 is blank. Add text to the text field",
    ),
    Broken(
        "blank text",
        said(user(TEXT, {"text": " \n"})),
        said(user(TEXT, {"text": " \n."})),
        "ContentBlock object at messages.0.content.1 is blank",
    ),
    Broken("blank system prompt", hello(system=[{"text": " "}]), hello(system=[TEXT]), "system.0"),
    Broken(
        "empty system prompt",
        hello(system=[{"text": ""}]),
        hello(system=[]),
        "Value '' at 'system.1.member.text' failed to satisfy constraint: Member must have length "
        "greater than or equal to 1",
    ),
    Broken(
        "a document without a text",
        said(user({"document": {"name": "a", "format": "txt", "source": {"text": "b"}}})),
        said(user(TEXT, {"document": {"name": "a", "format": "txt", "source": {"text": "b"}}})),
        "A text block must be included when using documents.",
    ),
    Broken(
        "an assistant's last message that ends in white space",
        said(user(TEXT), assistant({"text": "I "})),
        said(user(TEXT), assistant({"text": "I"})),
        "messages: final assistant content cannot end with trailing whitespace",
    ),
    Broken(
        "an assistant's last message on a model that does not go on from there",
        said(user(TEXT), assistant(TEXT)),
        said(user(TEXT), assistant(TEXT), user(TEXT)),
        "This model does not support assistant message prefill. The conversation must end with",
        OPUS,
    ),
    Broken(
        "a role that there is not",
        said({"role": "tool", "content": [TEXT]}),
        HELLO,
        "Value 'tool' at 'messages.1.member.role' failed to satisfy constraint: Member must "
        "satisfy enum value set: [user, assistant]",
    ),
    Broken(
        "a system message among the others",
        said({"role": "system", "content": [TEXT]}),
        HELLO,
        "Member must satisfy enum value set: [user, assistant]",
    ),
    Broken("more than the model's context", LONG, HELLO, "Input is too long for requested model."),
    Broken(
        "more than a small model's context",
        said(user({"text": "word " * 110_000})),
        said(user({"text": "word " * 90_000})),
        "Input is too long for requested model.",
        MICRO,
    ),
]

TOOL_USE = [
    Broken(
        "a use without a result in the next message",
        talk([use()], [TEXT]),
        GOOD,
        "Expected toolResult blocks at messages.2.content for the following Ids: u1",
    ),
    Broken(
        "a use in the last message",
        said(user(TEXT), assistant(use()), toolConfig=TOOLS),
        GOOD,
        "Expected toolResult blocks at messages.2.content for the following Ids: u1",
    ),
    Broken(
        "one result of two",
        talk([use("u1"), use("u2")], [result("u1")]),
        talk([use("u1"), use("u2")], [result("u2"), result("u1")]),
        "Expected toolResult blocks at messages.2.content for the following Ids: u2",
    ),
    Broken(
        "a result of another use",
        talk([use("u1")], [result("u2")]),
        GOOD,
        "Expected toolResult blocks at messages.2.content for the following Ids: u1",
    ),
    Broken(
        "a result without a use",
        said(user(result()), toolConfig=TOOLS),
        GOOD,
        "toolResult blocks at messages.0.content exceeds the number of toolUse blocks of previous",
    ),
    Broken(
        "one result too many",
        talk([use()], [result("u1"), result("u2")]),
        GOOD,
        "toolResult blocks at messages.2.content exceeds the number of toolUse blocks of previous",
    ),
    Broken(
        "a result that comes two messages later",
        said(user(TEXT), assistant(use()), user(TEXT), assistant(TEXT), user(result()))
        | {"toolConfig": TOOLS},
        GOOD,
        "Expected toolResult blocks at messages.2.content",
    ),
    Broken(
        "two uses with one id",
        talk([use(), use()], [result()]),
        talk([use("u1"), use("u2")], [result("u1"), result("u2")]),
        "The toolUse blocks at messages.1.content contain duplicate Ids: u1",
    ),
    Broken(
        "two results with one id",
        talk([use()], [result(), result()]),
        GOOD,
        "The toolResult blocks at messages.2.content contain duplicate Ids: u1",
    ),
    Broken(
        "an id that was used in an earlier message",
        said(user(TEXT), assistant(use()), user(result()), assistant(use()), user(result()))
        | {"toolConfig": TOOLS},
        said(user(TEXT), assistant(use()), user(result()), assistant(use("b")), user(result("b")))
        | {"toolConfig": TOOLS},
        "messages: `tool_use` ids must be unique",
    ),
    Broken(
        "a use by the user",
        said(user(use()), toolConfig=TOOLS),
        GOOD,
        "`tool_use` blocks can only be in `assistant` messages",
    ),
    Broken(
        "a result by the assistant",
        talk([use(), result()], [result()]),
        GOOD,
        "`tool_result` blocks can only be in `user` messages",
    ),
    Broken(
        "a text before a result",
        talk([use()], [TEXT, result()]),
        talk([use()], [result(), TEXT]),
        "`tool_result` blocks must come first",
    ),
    Broken(
        "uses and results without tools",
        said(*GOOD["messages"]),
        GOOD,
        "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
    ),
    Broken(
        "an id with a character that is none of an id",
        talk([use("a.b")], [result("a.b")]),
        talk([use("a-b")], [result("a-b")]),
        "toolUse.toolUseId' failed to satisfy constraint: Member must satisfy regular expression",
    ),
    Broken(
        "an id of 65 characters",
        talk([use("i" * 65)], [result("i" * 65)]),
        talk([use("i" * 64)], [result("i" * 64)]),
        "toolUse.toolUseId' failed to satisfy constraint: Member must have length less than or",
    ),
    Broken(
        "an empty id",
        talk([use("")], [result("")]),
        GOOD,
        "toolUse.toolUseId' failed to satisfy constraint: Member must have length greater than",
    ),
    Broken(
        "the name of a used tool with a space in it",
        talk([use(name="the weather")], [result()]),
        talk([use(name="the_weather")], [result()]),
        "toolUse.name' failed to satisfy constraint",
    ),
    Broken(
        "an input that is no object",
        talk([use(input="Kyiv")], [result()]),
        GOOD,
        "The format of the value at messages.1.content.0.toolUse.input is invalid. Provide a json",
    ),
    Broken(
        "a result's JSON that is no object",
        talk([use()], [result("u1", {"json": [1]})]),
        talk([use()], [result("u1", {"json": {"list": [1]}})]),
        "messages.2.content.0.toolResult.content.0.json is invalid. Provide a json object",
    ),
    Broken(
        "a result of a kind that there is not",
        talk([use()], [result("u1", {"cachePoint": {"type": "default"}})]),
        GOOD,
        "extraneous key [cachePoint] is not permitted",
    ),
    Broken(
        "a status that there is not",
        talk([use()], [result(status="failed")]),
        talk([use()], [result(status="error")]),
        "Member must satisfy enum value set: [success, error]",
    ),
    Broken(
        "an error without content",
        talk([use()], [{"toolResult": {"toolUseId": "u1", "content": [], "status": "error"}}]),
        talk([use()], [{"toolResult": {"toolUseId": "u1", "content": []}}]),
        "messages.2.content.0.toolResult cannot be empty when status value is error.",
    ),
    Broken("a tool without a schema", tool(inputSchema=None), tool(), "inputSchema' failed to"),
    Broken("a tool without a name", tool(name=None), tool(), "toolSpec.name' failed to satisfy"),
    Broken("a tool's name with a dot", tool(name="a.b"), tool(name="a-b"), "toolSpec.name' failed"),
    Broken("an empty description", tool(description=""), tool(description="d"), "description' fa"),
    Broken(
        "a schema that is not an object's",
        tool(inputSchema={"json": {"type": "string"}}),
        tool(),
        "toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of the following: object.",
    ),
    Broken(
        "a schema as text",
        tool(inputSchema={"json": "{}"}),
        tool(),
        "toolConfig.tools.0.toolSpec.inputSchema.json is invalid. Provide a json object",
    ),
    Broken("no tools", hello(toolConfig={"tools": []}), tool(), "tools' failed to satisfy"),
    Broken(
        "two tools with one name",
        hello(toolConfig={"tools": [*TOOLS["tools"], *TOOLS["tools"]]}),
        tool(),
        "Tool names must be unique",
    ),
    Broken(
        "a tool and a cache point in one",
        hello(toolConfig={"tools": [{"toolSpec": SPEC, **POINT}]}),
        hello(toolConfig={"tools": [{"toolSpec": SPEC}, POINT]}),
        "The value at toolConfig.tools.0 can only set one of the following keys: toolSpec",
    ),
    Broken(
        "a choice of a tool that is not offered",
        hello(toolConfig={**TOOLS, "toolChoice": {"tool": {"name": "time"}}}),
        hello(toolConfig={**TOOLS, "toolChoice": {"tool": {"name": "weather"}}}),
        "Tool 'time' not found in provided tools",
    ),
    Broken(
        "two choices at once",
        hello(toolConfig={**TOOLS, "toolChoice": {"auto": {}, "any": {}}}),
        hello(toolConfig={**TOOLS, "toolChoice": {"any": {}}}),
        "The value at toolConfig.toolChoice can only set one of the following keys: auto, any, or",
    ),
]

SETTINGS = [
    Broken(
        "more tokens than the model says",
        settings(maxTokens=4097),
        settings(maxTokens=4096),
        "The maximum tokens you requested exceeds the model limit of 4096. Try again with a "
        "maximum tokens value that is lower than 4096.",
        HAIKU,
    ),
    Broken(
        "no tokens at all",
        settings(maxTokens=0),
        settings(maxTokens=1),
        "Value '0' at 'inferenceConfig.maxTokens' failed to satisfy constraint: Member must have "
        "value greater than or equal to 1",
    ),
    Broken(
        "a temperature over 1",
        settings(temperature=1.5),
        settings(temperature=1),
        "Value '1.5' at 'inferenceConfig.temperature' failed to satisfy constraint: Member must "
        "have value less than or equal to 1",
    ),
    Broken("a temperature under 0", settings(temperature=-0.1), settings(temperature=0), "equal t"),
    Broken("a top_p over 1", settings(topP=1.1), settings(topP=1.0), "'inferenceConfig.topP' fail"),
    Broken("a top_p under 0", settings(topP=-1), settings(topP=0.0), "'inferenceConfig.topP' fail"),
    Broken(
        "two mistakes",
        settings(topP=2, maxTokens=-1),
        settings(topP=1, maxTokens=1),
        "2 validation errors detected: Value '-1' at 'inferenceConfig.maxTokens'",
    ),
    Broken(
        "a temperature for a model that takes none",
        settings(temperature=0.5),
        settings(maxTokens=100),
        "The model returned the following errors: `temperature` is deprecated for this model.",
        OPUS,
    ),
    Broken(
        "a top_p for a model that takes none",
        settings(topP=0.5),
        settings(),
        "`top_p` is deprecated for this model.",
        OPUS,
    ),
    Broken(
        "a top_k in the model's own words for a model that takes none",
        hello(additionalModelRequestFields={"top_k": 5}),
        hello(additionalModelRequestFields={}),
        "`top_k` is deprecated for this model.",
        OPUS,
    ),
    Broken(
        "temperature and top_p for a model that takes one",
        settings(temperature=0.5, topP=0.5),
        settings(temperature=0.5),
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    Broken(
        "2,501 stop sequences",
        settings(stopSequences=["stop"] * 2501),
        settings(stopSequences=["stop"] * 2500),
        "'inferenceConfig.stopSequences' failed to satisfy constraint: Member must have length les",
    ),
    Broken(
        "more stop sequences than the model takes",
        settings(stopSequences=list("abcde")),
        settings(stopSequences=list("abcd")),
        "expected maximum item count: 4, found: 5",
        MICRO,
    ),
    Broken(
        "an empty stop sequence",
        settings(stopSequences=[""]),
        settings(stopSequences=[]),
        "inferenceConfig.stopSequences.1.member' failed to satisfy constraint",
    ),
    Broken(
        "a blank stop sequence",
        settings(stopSequences=["\n"]),
        settings(stopSequences=["\n."]),
        "stop_sequences: each stop sequence must contain non-whitespace",
    ),
    Broken(
        "additional fields that are no object",
        hello(additionalModelRequestFields=["top_k"]),
        hello(additionalModelRequestFields={"top_k": 5}),
        "additionalModelRequestFields is invalid. Provide a json object",
    ),
    Broken(
        "a guardrail without a version",
        hello(guardrailConfig={"guardrailIdentifier": "abc"}),
        hello(guardrailConfig={"guardrailIdentifier": "abc", "guardrailVersion": "1"}),
        "Value null at 'guardrailConfig.guardrailVersion' failed to satisfy constraint",
    ),
    Broken(
        "a guardrail without an identifier",
        hello(guardrailConfig={"guardrailVersion": "DRAFT"}),
        hello(guardrailConfig={"guardrailIdentifier": "abc", "guardrailVersion": "DRAFT"}),
        "Value null at 'guardrailConfig.guardrailIdentifier' failed to satisfy constraint",
    ),
    Broken(
        "a cache point of another type",
        said(user(TEXT, {"cachePoint": {"type": "ephemeral"}})),
        said(user(TEXT, POINT)),
        "cachePoint.type' failed to satisfy constraint: Member must satisfy enum value set: [defa",
    ),
    Broken(
        "five cache points",
        said(user(TEXT, POINT, TEXT, POINT, TEXT, POINT), system=[TEXT, POINT])
        | {"toolConfig": {"tools": [{"toolSpec": SPEC}, POINT]}},
        said(user(TEXT, POINT, TEXT, POINT, TEXT, POINT), system=[TEXT, POINT]),
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    Broken(
        "a cache point for a model that does not cache",
        said(user(TEXT, POINT)),
        said(user(TEXT)),
        "You invoked an unsupported model or your request did not allow prompt caching.",
        HAIKU,
        code="AccessDeniedException",
    ),
]

TYPES = [
    Broken("a field that there is not", hello(stream=True), HELLO, "extraneous key [stream] is"),
    Broken(
        "a field of a message that there is not",
        said({**user(TEXT), "id": "m1"}),
        HELLO,
        "#/messages/0: extraneous key [id] is not permitted",
    ),
    Broken("a field of a setting that is none", settings(topK=1), settings(topP=1), "key [topK]"),
    Broken(
        "a block of a kind that there is not",
        said(user({"type": "text", "text": "Hi"})),
        HELLO,
        "#/messages/0/content/0: extraneous key [type] is not permitted",
    ),
    Broken(
        "a block of two kinds",
        said(user({**TEXT, **POINT})),
        said(user(TEXT, POINT)),
        "The value at messages.0.content.0 can only set one of the following keys: text, image",
    ),
    Broken("a block of no kind", said(user({})), HELLO, "messages.0.content.0 must set one of the"),
    Broken("a message without a role", said({"content": [TEXT]}), HELLO, "role' failed to satisfy"),
    Broken(
        "a message without content",
        said({"role": "user"}),
        HELLO,
        "Value null at 'messages.1.member.content' failed to satisfy constraint: Member must not b",
    ),
    Broken(
        "an image of a format that there is not",
        said(user({"image": {"format": "bmp", "source": {"bytes": "aGk="}}})),
        said(user({"image": {"format": "png", "source": {"bytes": "aGk="}}})),
        "Member must satisfy enum value set: [png, jpeg, gif, webp]",
    ),
    *(
        Broken(sentence, body, HELLO, says, code="SerializationException")
        for sentence, body, says in [
            ("content as text", said({"role": "user", "content": "Hi"}), "STRING_VALUE can not be"),
            (
                "a number as text",
                said(user({"text": 5})),
                "NUMBER_VALUE can not be converted to a S",
            ),
            (
                "text as a number",
                settings(maxTokens="5"),
                "STRING_VALUE can not be converted to an",
            ),
            ("a fraction of tokens", settings(maxTokens=5.5), "can not be converted to an Integer"),
            ("yes as a number", settings(maxTokens=True), "TRUE_VALUE can not be converted to an"),
            (
                "a system prompt as text",
                hello(system="Be kind."),
                "STRING_VALUE can not be converted",
            ),
            ("a block as a list", said(user([TEXT])), "Start of list found where not expected"),
            ("a list as a structure", said(user({"text": {}})), "Start of structure or map found"),
            (
                "bytes that are no base64",
                said(user({"image": {"format": "png", "source": {"bytes": "!"}}})),
                "STRING_VALUE can not be converted to a Blob",
            ),
            ("a body that is a list", [], "Unexpected token or end of input."),
            ("a body that is no JSON", b"{", "Unexpected token or end of input."),
            ("no body", b"", "Unexpected token or end of input."),
        ]
    ),
]

PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile"
ANY = "The provided model identifier is invalid."
NEEDED = (
    "with on-demand throughput isn’t supported. Retry your request with the ID or ARN of an "
    "inference profile that contains this model."
)
MODELS = [
    Broken(sentence, HELLO, HELLO, says, model, kept_by)
    for sentence, model, kept_by, says in [
        ("an unknown model", "anthropic.claude-9", HAIKU, ANY),
        ("an empty profile", "us.", SONNET, ANY),
        ("an unknown geography", f"mars.{HAIKU}", f"us.{HAIKU}", ANY),
        ("a geography without that model", f"global.{HAIKU}", f"apac.{HAIKU}", ANY),
        (
            "a bare id of a model that needs a profile",
            "anthropic.claude-opus-4-7",
            OPUS,
            f"Invocation of model ID anthropic.claude-opus-4-7 {NEEDED}",
        ),
        (
            "the ARN of a model that needs a profile",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-7",
            f"arn:aws:bedrock:us-east-1::foundation-model/{HAIKU}",
            NEEDED,
        ),
        ("the ARN of no profile", f"{PROFILE}/eu.nothing", f"{PROFILE}/{OPUS}", ANY),
        ("a bare id as a profile", f"{PROFILE}/{HAIKU}", f"{PROFILE}/eu.{HAIKU}", ANY),
        (
            "an ARN of another service",
            f"arn:aws:s3:::{HAIKU}",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3",
            ANY,
        ),
    ]
]

EVERY = [*MESSAGES, *TOOL_USE, *SETTINGS, *TYPES, *MODELS]
