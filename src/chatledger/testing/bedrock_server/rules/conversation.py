"""Rules of the messages: whose turn it is, and that nobody says nothing."""

from itertools import pairwise

from chatledger.testing.bedrock_server.refusing import Refused, refused_by_model
from chatledger.testing.bedrock_server.rules.asked import Asked


def user_starts(asked: Asked) -> None:
    """A conversation has messages, and the first is the user's.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html
    """
    if not asked.messages or asked.messages[0]["role"] != "user":
        raise Refused(
            "A conversation must start with a user message. "
            "Try again with a conversation that starts with a user message."
        )


def roles_alternate(asked: Asked) -> None:
    """User and assistant take turns.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html

    Observed, in these words, for years. Newer models are said to take several messages of one
    role in a row; whoever relies on that finds out here.
    """
    roles = [message["role"] for message in asked.messages]
    if any(role == after for role, after in pairwise(roles)):
        raise Refused(
            "A conversation must alternate between user and assistant roles. Make sure the "
            "conversation alternates between user and assistant roles and try again."
        )


def messages_have_content(asked: Asked) -> None:
    """A message has at least one block.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html (the field is
    required; that it may not be empty was observed)
    """
    for n, message in enumerate(asked.messages):
        if not message["content"]:
            raise Refused(
                f"The content field in the Message object at messages.{n} is empty. "
                "Add a ContentBlock object to the content field and try again."
            )


def texts_are_not_blank(asked: Asked) -> None:
    """A text, of a message or of the system prompt, is more than white space.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_SystemContentBlock.html

    Observed, in these words for messages; for the system prompt the words are made after them.
    Texts within tool results may be empty.
    """
    for place, _, text in asked.blocks("text"):
        if not text.strip():
            raise Refused(
                f"The text field in the ContentBlock object at {place} is blank. "
                "Add text to the text field, and try again."
            )
    for n, block in enumerate(asked.system):
        if "text" in block and not block["text"].strip():
            raise Refused(
                f"The text field in the SystemContentBlock object at system.{n} is blank. "
                "Add text to the text field, and try again."
            )


def documents_come_with_text(asked: Asked) -> None:
    """A message with a document has a text, too.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
    """
    for message in asked.messages:
        kinds = {kind for block in message["content"] for kind in block}
        if "document" in kinds and "text" not in kinds:
            raise Refused("A text block must be included when using documents.")


def model_takes_prefill(asked: Asked) -> None:
    """The last message is the assistant's only for models that go on from there.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html
    (that the newest models refuse it was observed, in these words)
    """
    if asked.messages[-1]["role"] == "assistant" and not asked.model.prefill:
        raise refused_by_model(
            "This model does not support assistant message prefill. "
            "The conversation must end with a user message."
        )


def prefill_ends_in_no_white_space(asked: Asked) -> None:
    """An assistant's last message does not end in white space.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html
    (observed, in these words, with Anthropic's models)
    """
    last = asked.messages[-1]
    text = last["content"][-1].get("text", "")
    if last["role"] == "assistant" and text != text.rstrip():
        raise refused_by_model(
            "messages: final assistant content cannot end with trailing whitespace"
        )


def model_takes_system_prompt(asked: Asked) -> None:
    """Only some models take a system prompt.

    https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
    """
    if asked.system and not asked.model.system_prompts:
        raise Refused(
            "This model doesn't support system messages. Try again without a system message or use "
            "a model that supports system messages."
        )
