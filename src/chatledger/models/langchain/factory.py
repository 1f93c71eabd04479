"""Opening a LangChain chat model by name."""

import re
from importlib import import_module
from typing import Any

from chatledger.errors import ChatledgerError, ModelRefused, UnknownModel
from chatledger.extras import install_command
from chatledger.models.langchain.model import LangChainModel


def open_langchain_model(name: str, **options: Any) -> LangChainModel:
    """Open the model ``provider:model`` with LangChain's ``init_chat_model``.

    The provider's package finds its API key as usual, most often in an environment variable.

    Args:
        name: The provider and the model, such as ``openai:gpt-5`` or
            ``anthropic:claude-sonnet-5``.
        options: Keyword arguments for ``init_chat_model``.

    Raises:
        UnknownModel: The name has another form, LangChain does not know the provider, or a package
            is missing; the error then names the command that installs it.
        ModelRefused: The model cannot be opened, often because its API key is missing.
    """
    provider, _, model = name.partition(":")
    if not provider or not model:
        raise UnknownModel(
            f"{name!r} is not the name of a model; write provider:model, such as openai:gpt-5."
        )
    try:
        opened = _init_chat_model()(model, model_provider=provider, **options)
    except ChatledgerError:
        raise
    except ImportError as missing:
        package = _missing_package(missing, provider)
        raise UnknownModel(f"{name} needs {package}; {_install_advice(package)}") from missing
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
    return LangChainModel(opened, id=name)


def _init_chat_model() -> Any:
    try:
        return import_module("langchain.chat_models").init_chat_model
    except ModuleNotFoundError as missing:
        package = (missing.name or "langchain").partition(".")[0].replace("_", "-")
        raise UnknownModel(
            f"LangChain's models need {package}; {_install_advice('langchain-<provider>')}"
        ) from missing


def _missing_package(missing: ImportError, provider: str) -> str:
    """Return the package that LangChain's error says to install."""
    named = re.search(r"pip install (?:-U )?([\w.-]+)", str(missing))
    return named[1] if named else f"langchain-{provider}"


def _install_advice(package: str) -> str:
    return f"install it with {install_command('langchain', 'langchain', package)}."
