"""Opening language models by name, and the list of those that callers may ask for."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from threading import Lock
from typing import Final

from chatledger.errors import InvalidArgument, UnknownModel
from chatledger.extras import missing_package_error
from chatledger.models.offline import OfflineModel
from chatledger.models.protocol import OpenedModel, check_model

NAME_FORMS: Final = (
    "offline; bedrock:<model>, where <model> is the id or ARN of an Amazon Bedrock model or "
    "inference profile; or <provider>:<model>, where <provider> is one of LangChain's, such as "
    "openai:gpt-5"
)
"""The forms of a model name, for error messages and help texts."""

_PROVIDER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODEL: Final = re.compile(r"[^\s\x00-\x1f\x7f]+")
_EXTRAS: Final = {"boto3": "bedrock", "botocore": "bedrock", "langchain_core": "langchain"}


def open_model(name: str, *, offline_pace: float = 0.0) -> OpenedModel:
    """Open the model called ``name`` with its default settings; the caller closes it.

    Args:
        name: ``offline`` for the demonstration model; ``bedrock:amazon.nova-lite-v1:0`` for an
            Amazon Bedrock model, by the id or ARN of a model or inference profile; any other
            ``provider:model``, such as ``openai:gpt-5``, for a LangChain chat model.
        offline_pace: The seconds before each piece of the offline model's reply.

    Raises:
        UnknownModel: The name has none of these forms, or the model needs a package that is not
            installed.
        ModelRefused: The model cannot be opened, often because its API key is missing.
    """
    provider, model = _split_name(name)
    if provider == "offline":
        return OfflineModel(pace=offline_pace)
    try:
        if provider == "bedrock":
            from chatledger.models.bedrock import BedrockModel

            return BedrockModel(model)
        from chatledger.models.langchain import open_langchain_model
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise UnknownModel(missing_package_error(name, missing, _EXTRAS[package])) from missing
    return open_langchain_model(name)


def check_model_name(name: str) -> None:
    """Raise ``UnknownModel`` unless ``name`` has the form of a model name."""
    _split_name(name)


def _split_name(name: str) -> tuple[str, str]:
    """Split a model name into its provider and its model."""
    provider, colon, model = name.partition(":")
    if name == "offline":
        return name, ""
    if provider == "arn":
        raise UnknownModel(f"{name!r} is an ARN; name the model bedrock:{name}.")
    if (
        provider == "offline"
        or not colon
        or not _PROVIDER.fullmatch(provider)
        or not _MODEL.fullmatch(model)
    ):
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

        A model that is asked for afterwards is opened again.
        """
        with self._lock:
            opened, self._opened = self._opened, {}
        async with AsyncExitStack() as stack:
            for model in opened.values():
                stack.push_async_callback(model.close)
