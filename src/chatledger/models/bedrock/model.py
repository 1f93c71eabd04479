"""A model of Amazon Bedrock's, async and sync."""

import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from random import uniform
from typing import TYPE_CHECKING, Any

from chatledger.errors import InvalidArgument, ModelError, UnknownModel
from chatledger.json_values import Json
from chatledger.messages import Message
from chatledger.models.bedrock import tools as tools_
from chatledger.models.bedrock.replies import Reply
from chatledger.models.bedrock.requests import request
from chatledger.models.bedrock.retries import PATIENCE, Tries
from chatledger.models.bedrock.settings import Guardrail, Settings
from chatledger.models.protocol import Finished, Piece

if TYPE_CHECKING:
    from chatledger.models.bedrock.aiohttp_transport import AiohttpTransport
    from chatledger.models.bedrock.connection import Session

TIMEOUT = 60.0
CONNECT_TIMEOUT = 5.0


class BedrockModel:
    """One of the models that Bedrock serves, by its id, an inference profile or an ARN.

    Region, address and credentials are found as boto3 finds them (AWS_REGION, AWS_PROFILE,
    AWS_BEARER_TOKEN_BEDROCK, AWS_ENDPOINT_URL_BEDROCK_RUNTIME and so on), with the first call.
    Settings that are not given are the model's own.

    ``additional_fields`` are those that this model takes beyond Converse's. ``tools`` are dicts of
    ``name``, ``description`` and ``input_schema`` (JSON Schema), or Bedrock's own; ``tool_choice``
    is ``auto``, ``any``, a tool's name, or Bedrock's own. ``cache`` is for models with prompt
    caching, and pays where a window grows; one that slides begins anew each time.

    Without ``streaming`` the reply comes as one piece, from Converse. ``timeout`` is how many
    seconds the model may be silent. A call that fails for a while is tried again for ``patience``
    seconds, as long as nothing of the reply has come. Raises ``UnknownModel`` where boto3 is
    missing, or aiohttp with the first async call.
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
        definitions = tools_.definitions(tools)
        self._settings = Settings(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop_sequences=tuple(stop_sequences),
            additional_fields=additional_fields,
            guardrail=guardrail,
            cache=cache,
            tools=definitions,
            tool_choice=tools_.choice(tool_choice, definitions),
            streaming=streaming,
        )
        self._model_id = model_id
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._patience = patience
        try:
            from chatledger.models.bedrock.boto3_transport import Boto3Transport
            from chatledger.models.bedrock.connection import Access
        except ModuleNotFoundError as missing:
            raise _not_installed(missing) from missing
        self._access = Access(
            session,
            region=region,
            endpoint=endpoint,
            timeout=timeout,
            connect_timeout=connect_timeout,
        )
        self._boto3 = Boto3Transport(self._access, model_id, streaming=streaming)
        self._aiohttp: AiohttpTransport | None = None

    @property
    def id(self) -> str:
        return f"bedrock:{self._model_id}"

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        # With the first use: programs without an event loop need not wait for its import.
        from asyncio import sleep

        body = request(messages, system_prompt, self._settings)
        transport = self._async_transport()
        tries = self._tries()
        while True:
            reply, seen = Reply(), False
            try:
                async with aclosing(transport.events(body)) as events:
                    async for event in events:
                        if piece := reply.read(event):
                            seen = True
                            yield piece
                finished = reply.finished()
            except ModelError as failed:
                if not reply.whole:
                    await sleep(_pause(failed, tries, seen=seen))
                    continue
                finished = reply.finished()
            yield finished
            return

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        body = request(messages, system_prompt, self._settings)
        tries = self._tries()
        while True:
            reply, seen = Reply(), False
            try:
                with closing(self._boto3.events(body)) as events:
                    for event in events:
                        if piece := reply.read(event):
                            seen = True
                            yield piece
                finished = reply.finished()
            except ModelError as failed:
                if not reply.whole:
                    time.sleep(_pause(failed, tries, seen=seen))
                    continue
                finished = reply.finished()
            yield finished
            return

    async def close(self) -> None:
        """Let go of the connections; closing again does nothing, a later call connects anew."""
        self._access.close()
        if self._aiohttp is not None:
            await self._aiohttp.close()

    def _tries(self) -> Tries:
        return Tries(self._patience, monotonic=time.monotonic, uniform=uniform)

    def _async_transport(self) -> "AiohttpTransport":
        if self._aiohttp is None:
            try:
                # Only now: whoever streams without an event loop needs no aiohttp.
                from chatledger.models.bedrock.aiohttp_transport import AiohttpTransport
            except ModuleNotFoundError as missing:
                raise _not_installed(missing) from missing
            self._aiohttp = AiohttpTransport(
                self._access,
                self._model_id,
                streaming=self._settings.streaming,
                timeout=self._timeout,
                connect_timeout=self._connect_timeout,
            )
        return self._aiohttp


def _pause(failed: ModelError, tries: Tries, *, seen: bool) -> float:
    """Seconds until the next try; there is none where what was seen would come anew."""
    if seen:
        raise failed
    return tries.pause(failed)


def _not_installed(missing: ModuleNotFoundError) -> UnknownModel:
    package = str(missing.name).partition(".")[0]
    return UnknownModel(
        f"A model of Bedrock's needs {package}; install it with pip install 'chatledger[bedrock]'."
    )
