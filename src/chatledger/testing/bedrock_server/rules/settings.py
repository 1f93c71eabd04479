"""Rules of how the reply is made: its length, its chance, where it stops, guardrails, caching."""

from chatledger.testing.bedrock_server.counting import input_tokens
from chatledger.testing.bedrock_server.refusing import Refused, refused_by_model
from chatledger.testing.bedrock_server.rules.asked import Asked

MOST_CACHE_POINTS = 4

# What a request may name in either form: Converse's, or the model's own among the additional ones.
_SAMPLING = {"temperature": "temperature", "topP": "top_p"}


def reply_fits_model(asked: Asked) -> None:
    """``maxTokens`` is no more than the model can say.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html
    (observed, in these words)
    """
    most = asked.model.max_output_tokens
    if (asked.settings.get("maxTokens") or 0) > most:
        raise Refused(
            f"The maximum tokens you requested exceeds the model limit of {most}. "
            f"Try again with a maximum tokens value that is lower than {most}."
        )


def sampling_fits_model(asked: Asked) -> None:
    """Newer models of Anthropic take temperature or top_p but not both, the newest neither.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-anthropic-claude-opus-4-7.html
    (observed, in these words)
    """
    additional = asked.body.get("additionalModelRequestFields") or {}
    names = {
        own
        for name, own in _SAMPLING.items()
        if asked.settings.get(name) is not None or own in additional
    } | ({"top_k"} & set(additional))
    if asked.model.sampling == "none" and names:
        raise refused_by_model(f"`{min(names)}` is deprecated for this model.")
    if asked.model.sampling == "one" and {"temperature", "top_p"} <= names:
        raise refused_by_model(
            "`temperature` and `top_p` cannot both be specified for this model. "
            "Please use only one."
        )


def stop_sequences_fit_model(asked: Asked) -> None:
    """No more stop sequences than the model takes, and each has more in it than white space.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html
    https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html
    (that of white space is Anthropic's, observed, in these words)
    """
    sequences = asked.settings.get("stopSequences") or []
    most = asked.model.stop_sequences
    if len(sequences) > most:
        raise refused_by_model(
            f"Malformed input request: #/inferenceConfig/stopSequences: expected maximum item "
            f"count: {most}, found: {len(sequences)}, please reformat your input and try again."
        )
    if any(not sequence.strip() for sequence in sequences):
        raise refused_by_model("stop_sequences: each stop sequence must contain non-whitespace")


def additional_fields_are_an_object(asked: Asked) -> None:
    """What is meant for the model itself comes as an object.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    (the words are like those of other fields)
    """
    value = asked.body.get("additionalModelRequestFields")
    if value is not None and not isinstance(value, dict):
        raise Refused(
            "The format of the value at additionalModelRequestFields is invalid. "
            "Provide a json object for the field and try again."
        )


def guardrail_is_whole(asked: Asked) -> None:
    """A guardrail is an identifier and a version.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GuardrailConfiguration.html

    Newer descriptions do not require them, as an account may enforce a guardrail of its own, to
    which a request then only adds ``trace``. Here that is refused, as it was.
    """
    config = asked.body.get("guardrailConfig")
    if config is None:
        return
    for name in ("guardrailIdentifier", "guardrailVersion"):
        if not config.get(name):
            raise Refused(
                f"1 validation error detected: Value null at 'guardrailConfig.{name}' failed to "
                "satisfy constraint: Member must not be null"
            )


def cache_points_fit_model(asked: Asked) -> None:
    """Cache points only on models that cache, and at most four of them.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html

    Observed: the first is no ``ValidationException`` but a 403; the second's words are Anthropic's.
    """
    points = [block for block in (*asked.tools, *asked.system) if "cachePoint" in block]
    count = len(points) + sum(1 for _ in asked.blocks("cachePoint"))
    if count and not asked.model.prompt_caching:
        raise Refused(
            "You invoked an unsupported model or your request did not allow prompt caching. "
            "See the documentation for more information.",
            code="AccessDeniedException",
        )
    if count > MOST_CACHE_POINTS:
        raise refused_by_model(
            f"A maximum of {MOST_CACHE_POINTS} blocks with cache_control may be provided. "
            f"Found {count}."
        )


def input_fits_model(asked: Asked) -> None:
    """What is sent is no longer than the model's context, counted roughly.

    https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
    (observed, in these words)
    """
    if input_tokens(asked.body) > asked.model.context_tokens:
        raise Refused("Input is too long for requested model.")
