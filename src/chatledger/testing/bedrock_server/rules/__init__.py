"""What the service refuses of a body whose shape is right: one function a rule.

Each names the page where AWS documents what it is about, and says where the rule or its words are
no more than what people have observed.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from chatledger.testing.bedrock_server.rules import conversation, settings, tools
from chatledger.testing.bedrock_server.rules.asked import Asked

__all__ = ["RULES", "Asked", "Rule", "check"]

Rule: TypeAlias = Callable[[Asked], None]
"""Raises ``Refused`` where a request breaks it."""

RULES: Sequence[Rule] = (
    conversation.user_starts,
    conversation.messages_have_content,
    conversation.texts_are_not_blank,
    conversation.roles_alternate,
    conversation.documents_come_with_text,
    tools.tool_blocks_need_tools,
    tools.schemas_are_of_objects,
    tools.tool_json_is_an_object,
    tools.errors_are_explained,
    tools.tool_ids_are_unique,
    tools.tool_blocks_are_where_they_belong,
    tools.uses_have_results,
    settings.additional_fields_are_an_object,
    settings.guardrail_is_whole,
    conversation.model_takes_system_prompt,
    tools.model_takes_tools,
    settings.reply_fits_model,
    settings.cache_points_fit_model,
    settings.input_fits_model,
    settings.sampling_fits_model,
    settings.stop_sequences_fit_model,
    tools.tool_names_are_unique,
    tools.chosen_tool_exists,
    conversation.model_takes_prefill,
    conversation.prefill_ends_in_no_white_space,
)
"""In the order in which they are looked at: what the service checks, then what the model does."""


def check(asked: Asked) -> None:
    for rule in RULES:
        rule(asked)
