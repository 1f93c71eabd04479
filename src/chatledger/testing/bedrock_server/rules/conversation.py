"""Rules for messages: the order of roles, and content that must not be empty."""

from itertools import pairwise

from chatledger.testing.bedrock_server.errors import BedrockError, model_error
from chatledger.testing.bedrock_server.rules.converse_request import ConverseRequest


def first_message_is_the_users(request: ConverseRequest) -> None:
    """A conversation has messages, and the first one is the user's.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html
    """
    if not request.messages or request.messages[0]["role"] != "user":
        raise BedrockError(
            "A conversation must start with a user message. "
            "Try again with a conversation that starts with a user message."
        )


def roles_alternate(request: ConverseRequest) -> None:
    """The roles of user and assistant alternate.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html

    Observed, in these words, for years. Newer models reportedly accept several messages of one role
    in a row; this server does not, so that no client relies on it.
    """
    roles = [message["role"] for message in request.messages]
    if any(role == after for role, after in pairwise(roles)):
        raise BedrockError(
            "A conversation must alternate between user and assistant roles. Make sure the "
            "conversation alternates between user and assistant roles and try again."
        )


def messages_have_content(request: ConverseRequest) -> None:
    """A message has at least one block.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html (the field is
    required; that it must not be empty was observed)
    """
    for n, message in enumerate(request.messages):
        if not message["content"]:
            raise BedrockError(
                f"The content field in the Message object at messages.{n} is empty. "
                "Add a ContentBlock object to the content field and try again."
            )


def texts_are_not_blank(request: ConverseRequest) -> None:
    """A text in a message or in the system prompt is more than white space.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_SystemContentBlock.html

    Observed, in these words for messages; the wording for the system prompt is modelled on them.
    Texts within tool results may be empty.
    """
    for path, _, text in request.blocks("text"):
        if not text.strip():
            raise BedrockError(
                f"The text field in the ContentBlock object at {path} is blank. "
                "Add text to the text field, and try again."
            )
    for n, block in enumerate(request.system):
        if "text" in block and not block["text"].strip():
            raise BedrockError(
                f"The text field in the SystemContentBlock object at system.{n} is blank. "
                "Add text to the text field, and try again."
            )


def documents_come_with_text(request: ConverseRequest) -> None:
    """A message with a document also has a text.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
    """
    for message in request.messages:
        kinds = {kind for block in message["content"] for kind in block}
        if "document" in kinds and "text" not in kinds:
            raise BedrockError("A text block must be included when using documents.")


def prefill_is_supported(request: ConverseRequest) -> None:
    """The last message is the assistant's only if the model supports prefill.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html
    (that the newest models reject it was observed, in these words)
    """
    if request.messages[-1]["role"] == "assistant" and not request.model.supports_prefill:
        raise model_error(
            "This model does not support assistant message prefill. "
            "The conversation must end with a user message."
        )


def prefill_does_not_end_in_white_space(request: ConverseRequest) -> None:
    """A last message of the assistant does not end in white space.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html
    (observed, in these words, with Anthropic's models)
    """
    last = request.messages[-1]
    text = last["content"][-1].get("text", "")
    if last["role"] == "assistant" and text != text.rstrip():
        raise model_error("messages: final assistant content cannot end with trailing whitespace")


def system_prompt_is_supported(request: ConverseRequest) -> None:
    """A system prompt is given only to a model that supports one.

    https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
    """
    if request.system and not request.model.supports_system_prompts:
        raise BedrockError(
            "This model doesn't support system messages. Try again without a system message or use "
            "a model that supports system messages."
        )
