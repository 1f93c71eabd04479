"""LangChain models by name, through a stub of langchain, which is not installed for the tests.

The stub raises errors of the same form as the real package.
"""

import subprocess
import sys
from pathlib import Path

import pytest

STUB = """
import importlib
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from pydantic import Field


class FieldModel(FakeListChatModel):
    max_tokens: int | None = None

    def _call(self, *arguments, **options):
        return f"at most {self.max_tokens}"


class AliasModel(FakeListChatModel):
    max_output_tokens: int | None = Field(default=None, alias="max_tokens")

    def _call(self, *arguments, **options):
        return f"at most {self.max_output_tokens}"


PACKAGES = {"azure_openai": "langchain_openai", "ollama": "langchain_ollama"}


def init_chat_model(model, *, model_provider=None, **options):
    if model_provider == "fake":
        return FakeListChatModel(responses=[f"{model}, {options}"])
    if model_provider in ("field", "alias"):
        kind = {"field": FieldModel, "alias": AliasModel}[model_provider]
        return kind(responses=[""])
    if model_provider == "keyless":
        raise ValueError("api_key sk-secret is not valid")
    if model_provider not in PACKAGES:
        raise ValueError(f"Unsupported {model_provider=}.\\n\\nSupported model providers are: fake")
    package = PACKAGES[model_provider]
    try:
        importlib.import_module(package)
    except ImportError as e:
        name = package.replace("_", "-")
        if model_provider == "azure_openai":  # as up to langchain 1.0
            raise ImportError(
                f"Unable to import {package}. Please install with `pip install -U {name}`"
            ) from e
        raise ImportError(
            f"Initializing ChatOllama requires the {name} package. Please install it with "
            f"`pip install {name}`"
        ) from e
"""
OPEN_AND_PRINT = """
import sys
from chatledger.errors import ChatledgerError
from chatledger.models import open_model
try:
    model = open_model(sys.argv[1])
except ChatledgerError as error:
    print(f"{type(error).__name__}: {error}", end="")
else:
    print(model.id, *model.stream_sync([]), sep="|", end="")
"""


@pytest.fixture
def langchain(tmp_path: Path) -> Path:
    """A folder that contains the stub of langchain."""
    package = tmp_path / "langchain" / "chat_models"
    package.mkdir(parents=True)
    # langchain-core reads these; its oldest supported version needs them.
    (package.parent / "__init__.py").write_text("verbose = debug = False\nllm_cache = None\n")
    (package / "__init__.py").write_text(STUB)
    return tmp_path


def run_in(name: str, folder: Path, code: str = OPEN_AND_PRINT) -> str:
    completed = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=folder,  # python -c imports from here first
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.stderr == ""
    return completed.stdout


def test_a_providers_model_is_opened_by_name(langchain: Path) -> None:
    output = run_in("fake:some.model-v1:0", langchain)
    model_id, *pieces, finished = output.split("|")
    assert model_id == "fake:some.model-v1:0"
    assert "".join(pieces) == "some.model-v1:0, {}"
    assert finished.startswith("Finished(")


def test_options_are_passed_to_the_model(langchain: Path) -> None:
    code = """
from chatledger.models.langchain import open_langchain_model
model = open_langchain_model("fake:one", temperature=0.5)
print(model.id, *[piece for piece in model.stream_sync([]) if isinstance(piece, str)], sep="")
"""
    assert run_in("", langchain, code) == "fake:oneone, {'temperature': 0.5}\n"


@pytest.mark.parametrize("provider", ["field", "alias"])
def test_a_model_with_the_setting_is_told_how_long_its_reply_may_be(
    langchain: Path, provider: str
) -> None:
    code = """
import sys
from langchain_core.messages import HumanMessage
from chatledger.models import open_model
model = open_model(sys.argv[1], max_tokens=300)
print(model._model.invoke([HumanMessage("Hi")]).content, end="")
"""
    assert run_in(f"{provider}:model-1", langchain, code) == "at most 300"


def test_a_warning_names_a_model_whose_replies_cannot_be_limited(langchain: Path) -> None:
    code = """
import logging, sys
from chatledger.models import open_model
logging.basicConfig(stream=sys.stdout, format="%(message)s")
open_model("fake:model-1", max_tokens=300)
"""
    assert run_in("", langchain, code) == (
        "fake:model-1 has no setting max_tokens; the length of its replies is not limited.\n"
    )


@pytest.mark.parametrize(
    ("provider", "package"), [("azure_openai", "langchain-openai"), ("ollama", "langchain-ollama")]
)
def test_a_providers_missing_package_is_named(langchain: Path, provider: str, package: str) -> None:
    assert run_in(f"{provider}:model-1", langchain) == (
        f"UnknownModel: {provider}:model-1 needs {package}; install it with "
        f"{sys.executable} -m pip install 'langchain-core>=0.3' langchain {package}."
    )


def test_a_provider_that_langchain_does_not_know_is_unknown(langchain: Path) -> None:
    output = run_in("acme:model-1", langchain)
    assert output.startswith(
        "UnknownModel: LangChain does not know the provider 'acme' of acme:model-1;"
    )


def test_the_error_for_a_model_that_does_not_open_leaves_out_the_providers_text(
    langchain: Path,
) -> None:
    output = run_in("keyless:model-1", langchain)
    assert output.startswith("ModelRefused: keyless:model-1 cannot be opened (ValueError); ")
    assert "sk-secret" not in output


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (["langchain"], "needs langchain and langchain-ollama; install them"),
        (
            ["langchain", "langchain_core"],
            "needs langchain-core, langchain and langchain-ollama; install them",
        ),
    ],
)
def test_all_missing_packages_are_named_at_once(
    tmp_path: Path, missing: list[str], sentence: str
) -> None:
    masks = "".join(f"sys.modules[{module!r}] = None\n" for module in missing)
    assert run_in("ollama:model-1", tmp_path, f"import sys\n{masks}{OPEN_AND_PRINT}") == (
        f"UnknownModel: ollama:model-1 {sentence} with {sys.executable} -m pip install "
        "'langchain-core>=0.3' langchain langchain-ollama."
    )
