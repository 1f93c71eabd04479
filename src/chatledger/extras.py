"""The packages of the optional features: how to install them, and what they may log."""

import logging
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

REQUIREMENTS: Final = {
    "async": ("boto3>=1.40", "aiohttp>=3.11"),
    "auth": ("joserfc>=1.8",),
    "bedrock": ("boto3>=1.40", "aiohttp>=3.11"),
    "dynamodb": ("boto3>=1.40",),
    "langchain": ("langchain-core>=0.3",),
    "langgraph": ("langgraph-checkpoint>=4.1",),
    "openai": ("openai>=2.54",),
    "server": (
        "fastapi>=0.162",
        "uvicorn>=0.40",
        "msgspec>=0.20",
        "typer>=0.29",
        "prometheus-client>=0.22",
    ),
}
"""The requirements of each extra that an error may name; pyproject.toml has the same."""
_MODULES: Final = {"langgraph-checkpoint": "langgraph"}
"""The top-level modules of the packages that are called otherwise."""


def missing_package_error(
    subject: str, missing: ModuleNotFoundError, extra: str, *further: str
) -> str:
    """Return the sentence that says what ``subject`` needs and how to install it.

    It names the package that could not be imported and all others that are not installed, so that
    one installation is enough.

    Args:
        subject: The feature that needs the package, such as ``A Bedrock model``.
        missing: The error of the import.
        extra: The extra that the package belongs to.
        further: Packages of no extra that the feature needs too.
    """
    required = [re.split("[<>=!~]", requirement)[0] for requirement in REQUIREMENTS[extra]]
    first = str(missing.name).partition(".")[0]
    names = [name for name in (*required, *further) if first != _module(name) and _is_missing(name)]
    names.insert(0, first.replace("_", "-"))
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    pronoun = "it" if len(names) == 1 else "them"
    return f"{subject} needs {listed}; install {pronoun} with {install_command(extra, *further)}."


def install_command(extra: str, *packages: str) -> str:
    """Return the command that installs the packages of ``extra`` and these further ``packages``.

    It names the packages and not the extra, and thus works however Chatledger was installed: from a
    clone, from a wheel or from a package index. It is this interpreter's own pip: that of the shell
    may belong to another environment.
    """
    requirements = [shlex.quote(requirement) for requirement in REQUIREMENTS[extra]]
    pip = f"{shlex.quote(sys.executable or 'python')} -m pip"
    return " ".join([pip, "install", *requirements, *packages])


def _module(package: str) -> str:
    """Return the name of the top-level module of a package."""
    return _MODULES.get(package, package.replace("-", "_"))


def _is_missing(package: str) -> bool:
    return find_spec(_module(package)) is None


def import_on_first_use(
    package: str, modules: Mapping[str, str], extras: Mapping[str, str]
) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package that imports its modules on first use.

    Args:
        package: The name of the package.
        modules: The module of each name, absolute or relative to the package.
        extras: The extra that each required top-level package belongs to.
    """

    def get_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(modules[name], package)
        except ModuleNotFoundError as missing:
            extra = extras.get((missing.name or "").partition(".")[0])
            if extra is None:
                raise
            message = missing_package_error(name, missing, extra)
            raise ModuleNotFoundError(message, name=missing.name) from missing
        return getattr(module, name)

    return get_attribute


def keep_messages_out_of_logs(*packages: str) -> None:
    """Set the packages' loggers to INFO, except those that have a level already.

    At DEBUG, libraries that call models and stores log whole requests and responses, some of them
    with credentials. With this, a program that logs everything at DEBUG still logs no message. To
    debug such a library, set its level explicitly:
    ``logging.getLogger("botocore").setLevel("DEBUG")``.
    """
    for package in packages:
        logger = logging.getLogger(package)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
