"""Models of one's own, named by the module and the object: ``my_models:parrot``."""

import re
from importlib import import_module
from typing import Any, Final, cast

from chatledger.errors import InvalidArgument, UnknownModel
from chatledger.models.protocol import OpenedModel, check_model

OBJECT_NAME: Final = re.compile(
    r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<object>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)",
    re.ASCII,
)


def open_own_model(name: str) -> OpenedModel:
    """Import the model that ``name`` names; a class or a function is called to make it.

    Raises:
        UnknownModel: There is no such module or object, or it is not a model.
    """
    parts = OBJECT_NAME.fullmatch(name)
    assert parts is not None
    model = _found(name, parts["module"], parts["object"])
    if _makes_models(model):
        try:
            model = model()
        except Exception as error:
            raise UnknownModel(
                f"{name} could not be made ({type(error).__name__}); it is called without "
                "arguments. The cause of this error has the details."
            ) from error
    try:
        check_model(model)
    except InvalidArgument as problem:
        raise UnknownModel(f"{name} is not a model: {problem}") from problem
    if not any(callable(getattr(model, method, None)) for method in ("stream", "stream_sync")):
        raise UnknownModel(
            f"{name} is of type {type(model).__name__}, which is not a model: it has neither of "
            "the methods stream and stream_sync; see Your own model in docs/models.md."
        )
    return cast(OpenedModel, model)


def _found(name: str, module: str, path: str) -> Any:
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module}.".startswith(f"{missing.name}."):
            raise _cannot_import(module, missing) from missing
        raise UnknownModel(
            f"There is no module {missing.name}, which {name} names; run this in the folder that "
            "contains it, or install it. A model of a provider is named by the provider first, as "
            "in openai:gpt-5 or ollama:llama3.2."
        ) from missing
    except Exception as error:
        raise _cannot_import(module, error) from error
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise UnknownModel(
                f"The module {module} has no {path}, which {name} names; write the name of the "
                "model in it, or of a class or function that makes the model."
            )
        found = getattr(found, attribute)
    return found


def _makes_models(found: Any) -> bool:
    return isinstance(found, type) or (callable(found) and not hasattr(found, "id"))


def _cannot_import(module: str, error: Exception) -> UnknownModel:
    # The error's own text may contain anything that the module works with.
    return UnknownModel(
        f"The module {module} cannot be imported ({type(error).__name__}); python -c 'import "
        f"{module}' shows why."
    )
