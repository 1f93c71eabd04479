"""Opening language models by name, and the list of those that callers may ask for."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from threading import Lock
from typing import Final

from chatledger.errors import InvalidArgument, UnknownModel
from chatledger.extras import missing_package_error
from chatledger.models.offline import OfflineModel
from chatledger.models.own import OBJECT_NAME, open_own_model
from chatledger.models.protocol import OpenedModel, check_model
from chatledger.models.providers import COMPATIBLE, is_known, langchain_package

NAME_FORMS: Final = (
    "offline; bedrock:<model>, where <model> is the id or ARN of an Amazon Bedrock model or "
    "inference profile; openai:<model>, such as openai:gpt-5; openai-compatible:<model>, on the "
    "server at the base URL; <provider>:<model>, where <provider> is another one of LangChain's, "
    "such as ollama:llama3.2; or <module>:<object>, a model of your own, such as my_models:parrot"
)
"""The forms of a model name, for error messages and help texts."""

_PROVIDER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODEL: Final = re.compile(r"[^\s\x00-\x1f\x7f]+")


def open_model(
    name: str,
    *,
    offline_pace: float = 0.0,
    max_tokens: int | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
) -> OpenedModel:
    """Open the model called ``name``, otherwise with its default settings; the caller closes it.

    A known provider before the colon comes first: a module of the same name cannot be used.

    Args:
        name: ``offline`` for the demonstration model; ``bedrock:amazon.nova-lite-v1:0`` for an
            Amazon Bedrock model, by the id or ARN of a model or inference profile;
            ``openai:gpt-5`` for a model of OpenAI; ``openai-compatible:llama3.2`` for a model on
            the server at ``base_url``; ``ollama:llama3.2`` or another ``provider:model`` for a
            LangChain chat model; ``my_models:parrot`` for the object ``parrot`` of the module
            ``my_models``, which is a model, or a class or function without arguments that makes
            one.
        offline_pace: The seconds before each piece of the offline model's reply.
        max_tokens: The most tokens that a reply may have; by default the model decides. The offline
            model, whose replies are short, and models of your own have no such setting. Nor have
            some LangChain models; for these a warning is logged.
        base_url: The URL of the server of an ``openai-compatible`` model; others ignore it.
        api_key: The key of that server, if it needs one; others ignore it.

    Raises:
        UnknownModel: The name has none of these forms, there is no such object, or the model needs
            a package that is not installed.
        InvalidArgument: The base URL is missing, or is not a URL.
        ModelRefused: The model cannot be opened, often because its API key is missing.
    """
    provider, model = _split_name(name)
    if provider == "offline":
        return OfflineModel(pace=offline_pace)
    if provider == "bedrock":
        from chatledger.models.bedrock import BedrockModel

        return BedrockModel(model, max_tokens=max_tokens)
    if provider == "openai":
        from chatledger.models.openai import OpenAIModel

        return OpenAIModel(model, max_tokens=max_tokens)
    if provider == COMPATIBLE:
        from chatledger.models.openai import OpenAIModel

        if base_url is None:
            raise InvalidArgument(missing_base_url(name))
        return OpenAIModel(model, base_url=base_url, api_key=api_key, max_tokens=max_tokens)
    if not is_known(provider) and OBJECT_NAME.fullmatch(name):
        return open_own_model(name)
    try:
        from chatledger.models.langchain import open_langchain_model
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "langchain_core":
            raise
        further = ("langchain", langchain_package(provider))
        raise UnknownModel(missing_package_error(name, missing, "langchain", *further)) from missing
    return open_langchain_model(name, max_tokens=max_tokens)


def missing_base_url(name: str) -> str:
    """Return the sentence that says that the model ``name`` needs a base URL."""
    return (
        f"{name} needs the base URL of its server, such as http://127.0.0.1:11434/v1 for Ollama; "
        "set CHATLEDGER_BASE_URL, or pass base_url."
    )


def check_model_name(name: str) -> None:
    """Raise ``UnknownModel`` unless ``name`` has the form of a model name."""
    _split_name(name)


def is_compatible(name: str) -> bool:
    """Return whether ``name`` is that of a model which needs a base URL."""
    return name.startswith(f"{COMPATIBLE}:")


def _split_name(name: str) -> tuple[str, str]:
    """Split a model name into its provider, or its module, and its model."""
    provider, colon, model = name.partition(":")
    if name == "offline":
        return name, ""
    if provider == "arn":
        raise UnknownModel(f"{name!r} is an ARN; name the model bedrock:{name}.")
    has_form = colon and _PROVIDER.fullmatch(provider) and _MODEL.fullmatch(model)
    if provider == "offline" or not (has_form or OBJECT_NAME.fullmatch(name)):
        raise UnknownModel(f"{name!r} is not the name of a model; use one of these: {NAME_FORMS}.")
    return provider, model


class Models:
    """A fixed list of models, each of which is opened when it is first asked for.

    Threads may share the list.

    Args:
        names: The names of the models; the first is the default.
        open: The function that opens a model by name.

    Raises:
        InvalidArgument: ``names`` is not a list of names, or is empty.
    """

    def __init__(
        self, names: Sequence[str], *, open: Callable[[str], OpenedModel] = open_model
    ) -> None:
        if isinstance(names, str) or not isinstance(names, Sequence) or not names:
            raise InvalidArgument(
                "names must be a list of at least one model name, such as ['offline']."
            )
        for name in names:
            if not isinstance(name, str):
                raise InvalidArgument(
                    "names must contain names of models, such as 'offline', not a "
                    f"{type(name).__name__}; for models of your own, pass open= as well."
                )
        self.names = tuple(dict.fromkeys(names))
        self._open = open
        self._opened: dict[str, OpenedModel] = {}
        self._lock = Lock()

    @property
    def default(self) -> str:
        """The name of the model that is used if the caller names none."""
        return self.names[0]

    def get(self, model_id: str | None = None) -> OpenedModel:
        """Return the model with exactly the name ``model_id``, or the default model for None.

        Raises:
            UnknownModel: The name is not in the list; the text contains the list.
            InvalidArgument: ``open`` returned something that is not a model.
            ChatledgerError: The model could not be opened; the next call tries again.
        """
        name = self.default if model_id is None else model_id
        if name not in self.names:
            # The name is left out, because servers send this text and must not repeat their input.
            raise UnknownModel(
                f"There is no such model here; choose from: {', '.join(self.names)}."
            )
        with self._lock:
            if name not in self._opened:
                opened = self._open(name)
                check_model(opened)
                self._opened[name] = opened
            return self._opened[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    async def close(self) -> None:
        """Close every opened model, even if closing one of them fails.

        A model that is asked for afterwards is opened again. A model of one's own that has no
        method ``close`` is not closed.
        """
        with self._lock:
            opened, self._opened = self._opened, {}
        async with AsyncExitStack() as stack:
            for model in opened.values():
                if hasattr(model, "close"):
                    stack.push_async_callback(model.close)
