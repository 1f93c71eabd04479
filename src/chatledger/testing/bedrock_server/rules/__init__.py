"""The service's rules for a body whose shape is valid, one function each.

Each function is named after what must be true of a request, and raises ``BedrockError`` otherwise.
Its docstring links to the AWS page about the subject, and says so if the rule or its wording is not
documented there but was observed.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from chatledger.testing.bedrock_server.rules import conversation, settings, tools
from chatledger.testing.bedrock_server.rules.converse_request import ConverseRequest

__all__ = ["RULES", "ConverseRequest", "Rule", "check_rules"]

Rule: TypeAlias = Callable[[ConverseRequest], None]
"""Raises ``BedrockError`` if a request breaks the rule."""

RULES: Sequence[Rule] = (
    conversation.first_message_is_the_users,
    conversation.messages_have_content,
    conversation.texts_are_not_blank,
    conversation.roles_alternate,
    conversation.documents_come_with_text,
    tools.tool_blocks_have_a_config,
    tools.tool_schemas_are_of_objects,
    tools.tool_json_is_an_object,
    tools.error_results_have_content,
    tools.tool_ids_are_unique,
    tools.tool_blocks_are_in_place,
    tools.tool_uses_have_results,
    settings.additional_fields_are_an_object,
    settings.guardrail_is_complete,
    conversation.system_prompt_is_supported,
    tools.tools_are_supported,
    settings.max_tokens_are_within_limit,
    settings.cache_points_are_supported,
    settings.input_fits_context,
    settings.sampling_is_supported,
    settings.stop_sequences_are_valid,
    tools.tool_names_are_unique,
    tools.chosen_tool_exists,
    conversation.prefill_is_supported,
    conversation.prefill_does_not_end_in_white_space,
)
"""All rules in the order of their evaluation: first the service's own, then the model's."""


def check_rules(request: ConverseRequest) -> None:
    """Raise the ``BedrockError`` of the first rule that the request breaks."""
    for rule in RULES:
        rule(request)
