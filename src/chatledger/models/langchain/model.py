"""LangChain chat models as models of turns."""

import logging
import re
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from importlib import import_module
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.runnables import Runnable

from chatledger.errors import InvalidArgument, ModelRefused, UnknownModel
from chatledger.extras import keep_messages_out_of_logs, missing_package_error
from chatledger.langchain_messages import from_chatledger
from chatledger.messages import Message
from chatledger.models.langchain.replies import LangChainReplyReader
from chatledger.models.protocol import Finished, Piece
from chatledger.models.provider_errors import translate_errors
from chatledger.models.providers import langchain_package

_LOGGING_PACKAGES = (
    "openai",
    "anthropic",
    "groq",
    "httpx",
    "httpcore",
    "langchain",
    "langchain_core",
)
"""The packages below LangChain's models that log requests at DEBUG."""
logger = logging.getLogger("chatledger.models")


class LangChainModel:
    """A LangChain chat model, with or without bound tools, or a chain that ends in a chat model.

    Retries (``max_retries``) and timeouts are left to the LangChain model. If it does not stream,
    the reply is one piece.

    Args:
        model: The LangChain model or chain.
        id: The name under which replies are recorded; by default the LangChain model's name.

    Raises:
        InvalidArgument: ``model`` is not a LangChain model.
    """

    def __init__(
        self, model: Runnable[LanguageModelInput, BaseMessage | str], *, id: str | None = None
    ) -> None:
        if not isinstance(model, Runnable):
            raise InvalidArgument(
                f"LangChainModel needs a LangChain chat model, not {type(model).__name__}; "
                "open_model opens models by name."
            )
        keep_messages_out_of_logs(*_LOGGING_PACKAGES, type(model).__module__.partition(".")[0])
        self._model = model
        self.id = id or _name(model)

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        reader = LangChainReplyReader(self.id)
        langchain_messages = _prompt(messages, system_prompt)
        with translate_errors(self.id):
            stream = cast(AsyncGenerator[Any, None], self._model.astream(langchain_messages))
        async with aclosing(stream):
            while True:
                # Not around the yield: an error thrown in by the consumer is not the model's error.
                with translate_errors(self.id):
                    item = await anext(stream, None)
                    piece = "" if item is None else reader.read(item)
                if item is None:
                    break
                if piece:
                    yield piece
        yield reader.finished()

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        reader = LangChainReplyReader(self.id)
        langchain_messages = _prompt(messages, system_prompt)
        with translate_errors(self.id):
            stream = cast(Generator[Any, None, None], self._model.stream(langchain_messages))
        with closing(stream):
            while True:
                with translate_errors(self.id):
                    item = next(stream, None)
                    piece = "" if item is None else reader.read(item)
                if item is None:
                    break
                if piece:
                    yield piece
        yield reader.finished()

    async def close(self) -> None:
        """Do nothing: LangChain models close their connections when they are garbage-collected."""


def _name(model: Any) -> str:
    """Return the name of the innermost model, or of its class if it has no name."""
    for _ in range(10):
        for name in ("model_name", "model", "model_id"):
            if isinstance(value := getattr(model, name, None), str) and value:
                return value
        inner = getattr(model, "bound", None) or getattr(model, "runnable", None)
        if inner is None:
            break
        model = inner
    return type(model).__name__


# Prompts ------------------------------------------------------------------------------------------


def _prompt(messages: Sequence[Message], system_prompt: str | None) -> list[BaseMessage]:
    """Return the LangChain messages for ``messages``, with at most one system message in front.

    That message joins ``system_prompt`` and the system messages at the start of ``messages``,
    because some providers accept only one.
    """
    converted = [_without_other_calls(from_chatledger(message)) for message in messages]
    first = next((n for n, each in enumerate(converted) if each.type != "system"), len(converted))
    instructions: list[str | list[Any]] = [system_prompt] if system_prompt else []
    instructions += [each.content for each in converted[:first] if each.content]
    if not instructions:
        return converted[first:]
    return [SystemMessage(_joined(instructions)), *converted[first:]]


def _joined(contents: Sequence[str | list[Any]]) -> str | list[Any]:
    texts = [each for each in contents if isinstance(each, str)]
    if len(texts) == len(contents):
        return "\n\n".join(texts)
    blocks: list[Any] = []
    for each in contents:
        blocks += [{"type": "text", "text": each}] if isinstance(each, str) else each
    return blocks


def _without_other_calls(message: BaseMessage) -> BaseMessage:
    """Return the message, changed in place, with no tool calls but those in ``tool_calls``.

    Only the calls in ``tool_calls`` are followed by a result. A provider's package may also send
    the invalid ones, and those in the provider's own format; the provider then refuses the request.
    """
    if isinstance(message, AIMessage):
        message.invalid_tool_calls = []
        for name in ("tool_calls", "function_call"):
            message.additional_kwargs.pop(name, None)
    return message


# Opening models by name ---------------------------------------------------------------------------


def open_langchain_model(
    name: str, *, max_tokens: int | None = None, **options: Any
) -> LangChainModel:
    """Open the model ``provider:model`` with LangChain's ``init_chat_model``.

    The provider's package finds its API key as usual, most often in an environment variable.

    Args:
        name: The provider and the model, such as ``ollama:llama3.2`` or
            ``anthropic:claude-sonnet-5``.
        max_tokens: The most tokens that a reply may have. If the model has no setting of that name,
            a warning is logged and its replies are not limited.
        options: Keyword arguments for ``init_chat_model``.

    Raises:
        UnknownModel: The name has another form, LangChain does not know the provider, or a package
            is missing; the error then names the command that installs it.
        ModelRefused: The model cannot be opened, often because its API key is missing.
    """
    provider, _, model = name.partition(":")
    if not provider or not model:
        raise UnknownModel(
            f"{name!r} is not the name of a model; write provider:model, such as ollama:llama3.2."
        )
    try:
        init_chat_model = import_module("langchain.chat_models").init_chat_model
        opened = init_chat_model(model, model_provider=provider, **options)
    except ImportError as missing:
        raise _not_installed(name, missing) from missing
    except Exception as error:
        # Some packages also raise a ValueError for a missing key, so LangChain's own ValueError is
        # recognised by its text.
        if isinstance(error, ValueError) and str(error).startswith("Unsupported "):
            raise UnknownModel(
                f"LangChain does not know the provider {provider!r} of {name}; "
                "use one that init_chat_model supports."
            ) from error
        raise ModelRefused(
            f"{name} cannot be opened ({type(error).__name__}); "
            "check that its key is in the environment and that its options are valid."
        ) from error
    if max_tokens is not None and not _limit_reply(opened, max_tokens):
        logger.warning(
            "%s has no setting max_tokens; the length of its replies is not limited.", name
        )
    return LangChainModel(opened, id=name)


def _limit_reply(model: Any, max_tokens: int) -> bool:
    """Set the model's ``max_tokens``; return whether it has that setting.

    Some providers' packages have it under another name, with ``max_tokens`` as the alias.
    """
    for name, field in getattr(type(model), "model_fields", {}).items():
        if "max_tokens" in (name, field.alias):
            setattr(model, name, max_tokens)
            return True
    return False


def _not_installed(name: str, missing: ImportError) -> UnknownModel:
    """Return the error that names everything that the model ``name`` needs and is not installed."""
    # LangChain says what to install for a provider, but not in the error's attributes.
    named = re.search(r"pip install (?:-U )?([\w.-]+)", str(missing))
    package = named[1] if named else langchain_package(name.partition(":")[0])
    first = package if named or not missing.name else missing.name
    missing = ModuleNotFoundError(name=first.replace("-", "_"))
    return UnknownModel(missing_package_error(name, missing, "langchain", "langchain", package))
