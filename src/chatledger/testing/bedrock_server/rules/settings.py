"""Rules for inference settings: length, sampling, stop sequences, guardrails, caching."""

from chatledger.testing.bedrock_server.errors import BedrockError, model_error
from chatledger.testing.bedrock_server.rules.converse_request import ConverseRequest
from chatledger.testing.bedrock_server.tokens import estimate_input_tokens

MAX_CACHE_POINTS = 4

# Parameters that a request may set in two ways: by Converse's name, or by the model's own name in
# additionalModelRequestFields.
_SAMPLING = {"temperature": "temperature", "topP": "top_p"}


def max_tokens_are_within_limit(request: ConverseRequest) -> None:
    """``maxTokens`` is at most the model's output limit.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html
    (observed, in these words)
    """
    limit = request.model.max_output_tokens
    if (request.settings.get("maxTokens") or 0) > limit:
        raise BedrockError(
            f"The maximum tokens you requested exceeds the model limit of {limit}. "
            f"Try again with a maximum tokens value that is lower than {limit}."
        )


def sampling_is_supported(request: ConverseRequest) -> None:
    """Anthropic's newer models accept temperature or top_p but not both, the newest neither.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-anthropic-claude-opus-4-7.html
    (observed, in these words)
    """
    additional = request.body.get("additionalModelRequestFields") or {}
    names = {
        own_name
        for name, own_name in _SAMPLING.items()
        if request.settings.get(name) is not None or own_name in additional
    } | ({"top_k"} & set(additional))
    if request.model.sampling == "none" and names:
        raise model_error(f"`{min(names)}` is deprecated for this model.")
    if request.model.sampling == "one" and {"temperature", "top_p"} <= names:
        raise model_error(
            "`temperature` and `top_p` cannot both be specified for this model. "
            "Please use only one."
        )


def stop_sequences_are_valid(request: ConverseRequest) -> None:
    """There are no more stop sequences than the model accepts, and none is only white space.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html
    https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html
    (the rule about white space is Anthropic's, observed, in these words)
    """
    sequences = request.settings.get("stopSequences") or []
    limit = request.model.max_stop_sequences
    if len(sequences) > limit:
        raise model_error(
            f"Malformed input request: #/inferenceConfig/stopSequences: expected maximum item "
            f"count: {limit}, found: {len(sequences)}, please reformat your input and try again."
        )
    if any(not sequence.strip() for sequence in sequences):
        raise model_error("stop_sequences: each stop sequence must contain non-whitespace")


def additional_fields_are_an_object(request: ConverseRequest) -> None:
    """``additionalModelRequestFields``, the model's own parameters, is a JSON object.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    (the wording is modelled on that for other fields)
    """
    value = request.body.get("additionalModelRequestFields")
    if value is not None and not isinstance(value, dict):
        raise BedrockError(
            "The format of the value at additionalModelRequestFields is invalid. "
            "Provide a json object for the field and try again."
        )


def guardrail_is_complete(request: ConverseRequest) -> None:
    """A guardrail has both an identifier and a version.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GuardrailConfiguration.html

    Newer service models require neither, because an account may enforce a guardrail of its own, to
    which a request adds only ``trace``. This server still rejects such a request.
    """
    config = request.body.get("guardrailConfig")
    if config is None:
        return
    for name in ("guardrailIdentifier", "guardrailVersion"):
        if not config.get(name):
            raise BedrockError(
                f"1 validation error detected: Value null at 'guardrailConfig.{name}' failed to "
                "satisfy constraint: Member must not be null"
            )


def cache_points_are_supported(request: ConverseRequest) -> None:
    """There are at most four cache points, and only for models that support prompt caching.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html

    Observed: the error for other models is a 403, not a ``ValidationException``. The error for too
    many cache points is in Anthropic's words.
    """
    points = [block for block in (*request.tools, *request.system) if "cachePoint" in block]
    count = len(points) + sum(1 for _ in request.blocks("cachePoint"))
    if count and not request.model.supports_prompt_caching:
        raise BedrockError(
            "You invoked an unsupported model or your request did not allow prompt caching. "
            "See the documentation for more information.",
            code="AccessDeniedException",
        )
    if count > MAX_CACHE_POINTS:
        raise model_error(
            f"A maximum of {MAX_CACHE_POINTS} blocks with cache_control may be provided. "
            f"Found {count}."
        )


def input_fits_context(request: ConverseRequest) -> None:
    """The input, by a rough estimate of its tokens, fits the model's context.

    https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
    (observed, in these words)
    """
    if estimate_input_tokens(request.body) > request.model.context_tokens:
        raise BedrockError("Input is too long for requested model.")
