"""The packages of the optional features, for errors that say how to install them."""

from typing import Final

REQUIREMENTS: Final = {
    "async": ("boto3>=1.40", "aiohttp>=3.11"),
    "auth": ("joserfc>=1.8",),
    "bedrock": ("boto3>=1.40", "aiohttp>=3.11"),
    "dynamodb": ("boto3>=1.40",),
    "langchain": ("langchain-core>=0.3",),
    "server": ("fastapi>=0.162", "uvicorn>=0.40", "msgspec>=0.20", "typer>=0.29"),
}
"""The requirements of each extra that an error may name; pyproject.toml has the same."""


def missing_package_error(subject: str, missing: ModuleNotFoundError, extra: str) -> str:
    """Return the sentence that says what ``subject`` needs and how to install it.

    Args:
        subject: The feature that needs the package, such as ``A Bedrock model``.
        missing: The error of the import.
        extra: The extra that the package belongs to.
    """
    package = str(missing.name).partition(".")[0].replace("_", "-")
    return f"{subject} needs {package}; install it with {install_command(extra)}."


def install_command(extra: str, *packages: str) -> str:
    """Return the command that installs the packages of ``extra`` and these further ``packages``.

    It names the packages and not the extra, and thus works however Chatledger was installed: from a
    clone, from a wheel or from a package index.
    """
    requirements = [f"'{requirement}'" for requirement in REQUIREMENTS[extra]]
    return " ".join(["pip install", *requirements, *packages])
