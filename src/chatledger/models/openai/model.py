"""A model of OpenAI, or of a server with the same API, for async and sync callers."""

import os
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from chatledger.errors import InvalidArgument, ModelRefused, UnknownModel
from chatledger.extras import keep_messages_out_of_logs, missing_package_error
from chatledger.messages import Message
from chatledger.models.openai.replies import OpenAIReplyReader
from chatledger.models.openai.requests import (
    OpenAIObject,
    RequestSettings,
    openai_tool_choice,
    openai_tools,
    request_arguments,
)
from chatledger.models.protocol import Finished, Piece
from chatledger.models.provider_errors import translate_errors
from chatledger.models.retries import (
    CONNECT_TIMEOUT,
    PATIENCE,
    TIMEOUT,
    stream_reply,
    stream_reply_sync,
)
from chatledger.values import Json

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from openai import AsyncOpenAI, OpenAI

NO_KEY = "none"
"""The key that is sent to servers that need none: the library insists on one."""
_INVALID: Final = (
    "the window may be too long, or the model may not accept one of the settings, the tools or "
    "something in the conversation; the cause of this error has the server's explanation"
)
_OPENAI_ADVICE: Final = {
    400: _INVALID,
    401: "check that OPENAI_API_KEY is a valid key",
    404: "check the model's name, and that the account may use the model",
    422: _INVALID,
}
_COMPATIBLE_ADVICE: Final = {
    400: _INVALID,
    401: "check the key of the server, CHATLEDGER_MODEL_API_KEY or api_key=",
    404: "check the model's name and the base URL, which often ends in /v1",
    405: "check the base URL, which often ends in /v1",
    422: _INVALID,
}


class OpenAIModel:
    """A model of OpenAI, or of a server with a compatible API, such as Ollama or vLLM.

    It uses the Chat Completions API. For settings that are left out, the model's own defaults
    apply.

    Args:
        model_id: The model's name, as its server knows it.
        base_url: The URL of a compatible server, such as ``http://127.0.0.1:11434/v1``; None for
            OpenAI.
        api_key: The key; by default, that in OPENAI_API_KEY for OpenAI, and none for others.
        max_tokens: The most tokens that a reply may have, including the model's reasoning.
        temperature: The sampling temperature.
        top_p: The probability mass to sample from.
        stop_sequences: The strings that end the reply.
        additional_fields: Further fields of the request, such as ``reasoning_effort``.
        tools: The tools that the model may call: dicts of ``name``, ``description`` and
            ``input_schema`` (JSON Schema), or tools in OpenAI's format.
        tool_choice: ``auto``, ``any``, the name of the tool to call, or an object in OpenAI's
            format.
        timeout: The longest time, in seconds, for which the model may send nothing.
        connect_timeout: The longest time, in seconds, that connecting may take.
        patience: The seconds during which a call that failed temporarily is retried, if no part of
            the reply was delivered.

    Raises:
        InvalidArgument: The id is empty, or the base URL, a tool or the tool choice is not valid.
        ModelRefused: There is no key for OpenAI.
        UnknownModel: openai is not installed.
    """

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop_sequences: Sequence[str] = (),
        additional_fields: Mapping[str, Json] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        if not model_id:
            raise InvalidArgument("An OpenAI model needs a name, such as gpt-5.")
        if base_url is not None:
            check_base_url(base_url)
        defined_tools = openai_tools(tools)
        self._settings = RequestSettings(
            model=model_id,
            is_compatible=base_url is not None,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop_sequences=tuple(stop_sequences),
            additional_fields=additional_fields,
            tools=defined_tools,
            tool_choice=openai_tool_choice(tool_choice, defined_tools),
        )
        provider = "openai" if base_url is None else "openai-compatible"
        self.id = f"{provider}:{model_id}"
        self._advice = _OPENAI_ADVICE if base_url is None else _COMPATIBLE_ADVICE
        self._patience = patience
        try:
            import openai
        except ModuleNotFoundError as missing:
            raise UnknownModel(
                missing_package_error("An OpenAI model", missing, "openai")
            ) from missing
        keep_messages_out_of_logs("openai", "httpx", "httpx2", "httpcore", "httpcore2")
        self._client_options: dict[str, Any] = {
            "api_key": api_key or self._default_key(),
            "base_url": base_url,
            "timeout": openai.Timeout(timeout, connect=connect_timeout),
            "max_retries": 0,  # this class retries
        }
        self._asks_for_usage = True
        self._lock = Lock()
        self._sync_client: OpenAI | None = None
        self._async_clients: dict[
            AbstractEventLoop, tuple[AsyncGenerator[AsyncOpenAI, None], AsyncOpenAI]
        ] = {}

    def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        return stream_reply(
            lambda: self._chunks(request_arguments(messages, system_prompt, self._settings)),
            lambda: OpenAIReplyReader(self.id),
            patience=self._patience,
        )

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        return stream_reply_sync(
            lambda: self._chunks_sync(request_arguments(messages, system_prompt, self._settings)),
            lambda: OpenAIReplyReader(self.id),
            patience=self._patience,
        )

    async def close(self) -> None:
        """Close the connections; closing again does nothing, and a later call connects again.

        The async connections of other event loops are closed when these end.
        """
        from asyncio import get_running_loop

        with self._lock:
            sync_client, self._sync_client = self._sync_client, None
        if sync_client is not None:
            sync_client.close()
        if opened := self._async_clients.pop(get_running_loop(), None):
            await opened[0].aclose()

    def _default_key(self) -> str:
        if self._settings.is_compatible:
            return NO_KEY
        if key := os.environ.get("OPENAI_API_KEY"):
            return key
        raise ModelRefused(f"{self.id} needs a key; set OPENAI_API_KEY, or pass api_key.")

    # Requests ------------------------------------------------------------------------------------

    async def _chunks(self, arguments: OpenAIObject) -> AsyncGenerator[Any, None]:
        """Yield the chunks of the reply; closing the generator early closes the connection."""
        completions: Any = (await self._async_client()).chat.completions
        with translate_errors(self.id, self._advice):
            try:
                stream = await completions.create(**arguments, **self._usage_option())
            except Exception as error:
                self._stop_asking_for_usage(error)
                stream = await completions.create(**arguments)
            async with stream:
                async for chunk in stream:
                    yield chunk

    def _chunks_sync(self, arguments: OpenAIObject) -> Generator[Any, None, None]:
        completions: Any = self._connected_client().chat.completions
        with translate_errors(self.id, self._advice):
            try:
                stream = completions.create(**arguments, **self._usage_option())
            except Exception as error:
                self._stop_asking_for_usage(error)
                stream = completions.create(**arguments)
            with stream:
                yield from stream

    def _usage_option(self) -> dict[str, Any]:
        return {"stream_options": {"include_usage": True}} if self._asks_for_usage else {}

    def _stop_asking_for_usage(self, error: Exception) -> None:
        """Raise ``error`` unless it is a server's refusal of the option to send the usage."""
        is_refused = self._asks_for_usage and getattr(error, "status_code", None) in (400, 422)
        if not is_refused or "stream_options" not in str(getattr(error, "body", None)):
            raise error
        self._asks_for_usage = False

    def _connected_client(self) -> "OpenAI":
        with self._lock:
            if self._sync_client is None:
                from openai import OpenAI

                self._sync_client = OpenAI(**self._client_options)
            return self._sync_client

    async def _async_client(self) -> "AsyncOpenAI":
        """Return the client of the running event loop, whose connections no other loop can use."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        if loop not in self._async_clients:
            for ended in [each for each in list(self._async_clients) if each.is_closed()]:
                self._async_clients.pop(ended, None)  # another thread may have removed it already
            generator = self._open_async_client()
            self._async_clients[loop] = generator, await anext(generator)
        return self._async_clients[loop][1]

    async def _open_async_client(self) -> AsyncGenerator["AsyncOpenAI", None]:
        """Yield one client, and close it afterwards.

        It is a generator because an event loop closes generators when it ends, but not clients.
        """
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        # The library's own HTTP client closes itself when it is collected, in any event loop.
        http_client = DefaultAsyncHttpxClient()
        async with AsyncOpenAI(**self._client_options, http_client=http_client) as client:
            yield client


def check_base_url(url: str) -> None:
    """Raise ``InvalidArgument`` unless ``url`` is the URL of a server."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        # It is not repeated, because it may contain a password.
        raise InvalidArgument(
            "The base URL is not one of a server; write it as in http://127.0.0.1:11434/v1."
        )
