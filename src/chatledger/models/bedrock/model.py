"""A model on Amazon Bedrock, for async and sync callers."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chatledger.errors import InvalidArgument, UnknownModel
from chatledger.extras import missing_package_error
from chatledger.messages import Message
from chatledger.models.bedrock.replies import BedrockReplyReader
from chatledger.models.bedrock.requests import (
    Guardrail,
    RequestSettings,
    bedrock_tool_choice,
    bedrock_tools,
    request_body,
)
from chatledger.models.protocol import Finished, Piece
from chatledger.models.retries import (
    CONNECT_TIMEOUT,
    PATIENCE,
    TIMEOUT,
    stream_reply,
    stream_reply_sync,
)
from chatledger.values import Json

if TYPE_CHECKING:
    from chatledger.aws.session import Session
    from chatledger.models.bedrock.aiohttp_transport import AiohttpTransport


class BedrockModel:
    """A model on Amazon Bedrock, called through the Converse API.

    The first call finds the region, endpoint, credentials, proxy and CA bundle as boto3 does
    (AWS_DEFAULT_REGION, AWS_PROFILE, AWS_BEARER_TOKEN_BEDROCK, AWS_ENDPOINT_URL_BEDROCK_RUNTIME
    and so on). For settings that are left out, the model's own defaults apply.

    Args:
        model_id: The id or ARN of a model or inference profile.
        region: The AWS region, instead of the one that boto3 finds.
        endpoint: The URL of the service, instead of the one that boto3 finds.
        session: The boto3 or botocore session to use, instead of a new one.
        max_tokens: The most tokens that a reply may have.
        temperature: The sampling temperature.
        top_p: The probability mass to sample from.
        stop_sequences: The strings that end the reply.
        additional_fields: ``additionalModelRequestFields``, the parameters that this model accepts
            in addition to those of the Converse API.
        guardrail: The guardrail that checks messages and replies.
        cache: Whether to use prompt caching, for models that support it. It pays off if the window
            grows; a window that slides changes the beginning of the prompt each time.
        tools: The tools that the model may call: dicts of ``name``, ``description`` and
            ``input_schema`` (JSON Schema), or tools in Bedrock's format.
        tool_choice: ``auto``, ``any``, the name of the tool to call, or an object in Bedrock's
            format.
        streaming: Whether the reply is streamed; if not, it is one piece, from Converse.
        timeout: The longest time, in seconds, for which the model may send nothing.
        connect_timeout: The longest time, in seconds, that connecting may take.
        patience: The seconds during which a call that failed temporarily is retried, if no part of
            the reply was delivered.

    Raises:
        InvalidArgument: The id is empty, or a tool or the tool choice is not valid.
        UnknownModel: boto3 is not installed. The first async call also raises it if aiohttp is
            not installed.
    """

    def __init__(
        self,
        model_id: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        session: "Session | None" = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop_sequences: Sequence[str] = (),
        additional_fields: Mapping[str, Json] | None = None,
        guardrail: Guardrail | None = None,
        cache: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] | None = None,
        streaming: bool = True,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        if not model_id:
            raise InvalidArgument("A Bedrock model needs an id, such as amazon.nova-lite-v1:0.")
        converse_tools = bedrock_tools(tools)
        self._settings = RequestSettings(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop_sequences=tuple(stop_sequences),
            additional_fields=additional_fields,
            guardrail=guardrail,
            cache=cache,
            tools=converse_tools,
            tool_choice=bedrock_tool_choice(tool_choice, converse_tools),
            streaming=streaming,
        )
        self._model_id = model_id
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._patience = patience
        try:
            from chatledger.models.bedrock.boto3_transport import Boto3Transport
        except ModuleNotFoundError as missing:
            raise _not_installed(missing) from missing
        self._boto3 = Boto3Transport(
            session,
            model_id,
            region=region,
            endpoint=endpoint,
            streaming=streaming,
            timeout=timeout,
            connect_timeout=connect_timeout,
        )
        self._aiohttp: AiohttpTransport | None = None

    @property
    def id(self) -> str:
        return f"bedrock:{self._model_id}"

    def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        return stream_reply(
            lambda: self._async_transport().events(
                request_body(messages, system_prompt, self._settings)
            ),
            BedrockReplyReader,
            patience=self._patience,
        )

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        return stream_reply_sync(
            lambda: self._boto3.events(request_body(messages, system_prompt, self._settings)),
            BedrockReplyReader,
            patience=self._patience,
        )

    async def close(self) -> None:
        """Close the connections; closing again does nothing, and a later call connects again."""
        self._boto3.close()
        if self._aiohttp is not None:
            await self._aiohttp.close()

    def _async_transport(self) -> "AiohttpTransport":
        if self._aiohttp is None:
            try:
                # Imported here: sync callers do not need aiohttp.
                from chatledger.models.bedrock.aiohttp_transport import AiohttpTransport
            except ModuleNotFoundError as missing:
                raise _not_installed(missing) from missing
            self._aiohttp = AiohttpTransport(
                self._boto3.endpoint,
                self._model_id,
                streaming=self._settings.streaming,
                timeout=self._timeout,
                connect_timeout=self._connect_timeout,
            )
        return self._aiohttp


def _not_installed(missing: ModuleNotFoundError) -> UnknownModel:
    return UnknownModel(missing_package_error("A Bedrock model", missing, "bedrock"))
