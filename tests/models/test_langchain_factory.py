"""LangChain's models by name, through a langchain of this test's: the real one is not installed.

Its errors are of the shapes of langchain's own.
"""

import subprocess
import sys
from pathlib import Path

import pytest

STUB = """
import importlib
from langchain_core.language_models.fake_chat_models import FakeListChatModel

PACKAGES = {"openai": "langchain_openai", "ollama": "langchain_ollama"}


def init_chat_model(model, *, model_provider=None, **options):
    if model_provider == "fake":
        return FakeListChatModel(responses=[f"{model}, {options}"])
    if model_provider == "keyless":
        raise ValueError("api_key sk-secret is not valid")
    if model_provider not in PACKAGES:
        raise ValueError(f"Unsupported {model_provider=}.\\n\\nSupported model providers are: fake")
    package = PACKAGES[model_provider]
    try:
        importlib.import_module(package)
    except ImportError as e:
        name = package.replace("_", "-")
        if model_provider == "openai":  # as up to langchain 1.0
            raise ImportError(
                f"Unable to import {package}. Please install with `pip install -U {name}`"
            ) from e
        raise ImportError(
            f"Initializing ChatOllama requires the {name} package. Please install it with "
            f"`pip install {name}`"
        ) from e
"""
TRY = """
import sys
from chatledger.errors import ChatledgerError
from chatledger.models import open_model
try:
    model = open_model(sys.argv[1])
except ChatledgerError as failed:
    print(f"{type(failed).__name__}: {failed}", end="")
else:
    print(model.id, *model.stream_sync([]), sep="|", end="")
"""


@pytest.fixture
def langchain(tmp_path: Path) -> Path:
    """A folder with a package called langchain in it."""
    package = tmp_path / "langchain" / "chat_models"
    package.mkdir(parents=True)
    # What the oldest core looks up there.
    (package.parent / "__init__.py").write_text("verbose = debug = False\nllm_cache = None\n")
    (package / "__init__.py").write_text(STUB)
    return tmp_path


def opened(name: str, folder: Path, code: str = TRY) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=folder,  # which is where python -c looks first
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_a_providers_model_is_opened_by_its_name(langchain: Path) -> None:
    said = opened("fake:some.model-v1:0", langchain)
    model_id, *pieces, finished = said.split("|")
    assert model_id == "fake:some.model-v1:0"
    assert "".join(pieces) == "some.model-v1:0, {}"
    assert finished.startswith("Finished(")


def test_options_are_the_models(langchain: Path) -> None:
    code = """
from chatledger.models.langchain import open_langchain_model
model = open_langchain_model("fake:one", temperature=0.5)
print(model.id, *[piece for piece in model.stream_sync([]) if isinstance(piece, str)], sep="")
"""
    assert opened("", langchain, code) == "fake:oneone, {'temperature': 0.5}\n"


@pytest.mark.parametrize("provider", ["openai", "ollama"])
def test_a_providers_missing_package_is_named(langchain: Path, provider: str) -> None:
    assert opened(f"{provider}:one", langchain) == (
        f"UnknownModel: {provider}:one needs langchain-{provider}; install it with "
        f"pip install 'chatledger[langchain]' langchain langchain-{provider}."
    )


def test_a_provider_that_langchain_does_not_know_is_unknown(langchain: Path) -> None:
    said = opened("acme:one", langchain)
    assert said.startswith("UnknownModel: LangChain knows no provider 'acme', which acme:one asks")


def test_a_model_that_does_not_open_is_refused_without_the_providers_text(langchain: Path) -> None:
    said = opened("keyless:one", langchain)
    assert said.startswith("ModelRefused: keyless:one cannot be opened (ValueError): ")
    assert "sk-secret" not in said


def test_without_langchain_the_packages_to_install_are_named(tmp_path: Path) -> None:
    (tmp_path / "langchain.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'langchain'\", name='langchain')"
    )
    assert opened("openai:one", tmp_path) == (
        "UnknownModel: Models of LangChain's providers need langchain; install it with "
        "pip install 'chatledger[langchain]' langchain langchain-<provider>."
    )


def test_without_langchains_core_the_extra_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['langchain_core'] = None" + TRY
    assert opened("openai:one", tmp_path, code) == (
        "UnknownModel: openai:one needs langchain_core; "
        "install it with pip install 'chatledger[langchain]'."
    )
