"""A LangChain chat model by name."""

import re
from importlib import import_module
from typing import Any

from chatledger.errors import ChatledgerError, ModelRefused, UnknownModel
from chatledger.models.langchain.model import LangChainModel


def open_langchain_model(name: str, **options: Any) -> LangChainModel:
    """The model ``provider:model``, as LangChain's ``init_chat_model`` opens it with ``options``.

    Such as ``openai:gpt-5`` or ``anthropic:claude-sonnet-5``; keys are where the provider's package
    looks for them. Raises ``UnknownModel`` for a name in another form, for a provider that
    LangChain does not know, and where a package is missing, with the command that installs it;
    ``ModelRefused`` where the model cannot be opened, often for want of a key.
    """
    provider, _, model = name.partition(":")
    if not provider or not model:
        raise UnknownModel(
            f"There is no model {name!r}; name it provider:model, such as openai:gpt-5."
        )
    try:
        opened = _init_chat_model()(model, model_provider=provider, **options)
    except ChatledgerError:
        raise
    except ImportError as missing:
        package = _package(missing, provider)
        raise UnknownModel(f"{name} needs {package}; {_install(package)}") from missing
    except Exception as failed:
        # A missing key too is a ValueError with some: only LangChain's own is told by its text.
        if isinstance(failed, ValueError) and str(failed).startswith("Unsupported "):
            raise UnknownModel(
                f"LangChain knows no provider {provider!r}, which {name} asks for; "
                "name one of those that its init_chat_model lists."
            ) from failed
        raise ModelRefused(
            f"{name} cannot be opened ({type(failed).__name__}): "
            "see that its key is in the environment and its options are right."
        ) from failed
    return LangChainModel(opened, id=name)


def _init_chat_model() -> Any:
    try:
        return import_module("langchain.chat_models").init_chat_model
    except ModuleNotFoundError as missing:
        package = (missing.name or "langchain").partition(".")[0].replace("_", "-")
        raise UnknownModel(
            f"Models of LangChain's providers need {package}; {_install('langchain-<provider>')}"
        ) from missing


def _package(missing: ImportError, provider: str) -> str:
    """What LangChain says is to be installed."""
    told = re.search(r"pip install (?:-U )?([\w.-]+)", str(missing))
    return told[1] if told else f"langchain-{provider}"


def _install(package: str) -> str:
    return f"install it with pip install 'chatledger[langchain]' langchain {package}."
