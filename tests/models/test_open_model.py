"""Opening models by name, and the list of models that callers may ask for."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, sleep
from typing import Any

import pytest
from langchain.chat_models import base

from chatledger.errors import InvalidArgument, UnknownModel
from chatledger.messages import Message
from chatledger.models import Finished, Models, OpenedModel, Piece, check_model_name, open_model
from chatledger.models.offline import OfflineModel
from chatledger.models.providers import LANGCHAIN_PROVIDERS, OWN_PROVIDERS

pytestmark = pytest.mark.anyio

ARN = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0"
UNKNOWN = "There is no such model here; choose from: offline, openai:gpt-5."
GOOD = [
    "offline",
    "bedrock:amazon.nova-lite-v1:0",
    f"bedrock:{ARN}",
    "openai:gpt-5",
    "openai-compatible:meta-llama/Llama-3.2-3B",
    "my_models:parrot",
    "chatbots.models:Zoo.parrot",
    "azure_openai:my-deployment",
    "google-genai:gemini",
    "huggingface:microsoft/Phi-3-mini-4k-instruct",
    "ollama:llama3:8b",
]
BAD = [
    "",
    " ",
    "Offline",
    "offline ",
    "offline:",
    "offline:one",
    "gpt-5",
    "bedrock",
    "bedrock:",
    "bedrock: amazon.nova-lite-v1:0",
    "bedrock:one\n",
    ":gpt-5",
    "openai:",
    "open ai:gpt-5",
    "openai\n:gpt-5",
    "amazon.nova-lite-v1:0",
    "../openai:gpt-5",
    "my.models:gpt-5",
    "my-models.birds:parrot",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeModel:
    """A model that counts how often it was closed."""

    def __init__(self, id: str, *, fails: bool = False) -> None:
        self.id = id
        self.closed = 0
        self._fails = fails

    async def stream(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> AsyncGenerator[Piece | Finished, None]:
        yield Finished("end_turn")

    def stream_sync(
        self, messages: Sequence[Message], *, system_prompt: str | None = None
    ) -> Generator[Piece | Finished, None, None]:
        yield Finished("end_turn")

    async def close(self) -> None:
        self.closed += 1
        if self._fails:
            raise OSError("The connection was lost.")


class FakeOpener:
    """Opens fake models and records them."""

    def __init__(self) -> None:
        self.opened: list[FakeModel] = []
        self.fails: set[str] = set()

    def __call__(self, name: str) -> OpenedModel:
        self.opened.append(FakeModel(name, fails=name in self.fails))
        return self.opened[-1]

    @property
    def names(self) -> list[str]:
        return [model.id for model in self.opened]


def test_the_offline_model_is_opened_with_its_pace() -> None:
    model = open_model("offline", offline_pace=0.01)
    assert model.id == "offline"
    began = perf_counter()
    pieces = [*model.stream_sync([Message.user("Hello")])]
    assert perf_counter() - began >= (len(pieces) - 1) * 0.01


async def test_a_bedrock_model_is_opened_by_everything_after_the_colon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    for name in ("bedrock:amazon.nova-lite-v1:0", f"bedrock:{ARN}"):
        model = open_model(name)
        assert type(model).__name__ == "BedrockModel"
        assert model.id == name
        await model.close()


@pytest.mark.parametrize("name", GOOD)
def test_a_name_in_a_known_form_passes_the_check(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize("name", BAD)
def test_the_error_for_a_name_in_another_form_lists_the_known_ones(name: str) -> None:
    for function in (check_model_name, open_model):
        with pytest.raises(UnknownModel) as refused:
            function(name)
        for form in ("offline", "bedrock:<model>", "<provider>:<model>"):
            assert form in str(refused.value)


def test_the_error_for_a_bare_arn_says_how_to_name_the_model() -> None:
    with pytest.raises(UnknownModel, match=f"bedrock:{ARN}"):
        check_model_name(ARN)


def run(code: str) -> str:
    """Return what a new interpreter prints."""
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.stderr == ""
    return completed.stdout


def test_checking_a_name_imports_no_model() -> None:
    checks = "".join(f"chatledger.models.check_model_name({name!r})\n" for name in GOOD)
    loaded = run(f"import sys, chatledger.models\n{checks}print(*sys.modules)").split()
    assert "chatledger.models" in loaded
    assert not {"boto3", "botocore", "aiohttp", "langchain_core", "openai", "pydantic"} & set(
        loaded
    )


@pytest.mark.parametrize(
    ("missing", "name", "sentence"),
    [
        (
            "boto3",
            "bedrock:amazon.nova-lite-v1:0",
            "A Bedrock model needs boto3; install it with {pip} 'boto3>=1.40' 'aiohttp>=3.11'.",
        ),
        (
            "openai",
            "openai:gpt-5",
            "An OpenAI model needs openai; install it with {pip} 'openai>=2.54'.",
        ),
        (
            "openai",
            "openai-compatible:llama3.2",
            "An OpenAI model needs openai; install it with {pip} 'openai>=2.54'.",
        ),
        (
            "langchain_core",
            "groq:llama3",
            (
                "groq:llama3 needs langchain-core and langchain-groq; install them with {pip} "
                "'langchain-core>=0.3' langchain langchain-groq."
            ),
        ),
    ],
)
def test_the_error_for_a_missing_package_names_the_command_that_installs_it(
    missing: str, name: str, sentence: str
) -> None:
    output = run(
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from chatledger import UnknownModel\n"
        "from chatledger.models import open_model\n"
        f"try: open_model({name!r}, base_url='http://127.0.0.1:11434/v1')\n"
        "except UnknownModel as unknown: print(unknown)"
    )
    assert output == f"{sentence.format(pip=f'{sys.executable} -m pip install')}\n"


def test_the_known_providers_are_those_of_langchain() -> None:
    theirs = {
        name: module.partition(".")[0] for name, (module, *_) in base._BUILTIN_PROVIDERS.items()
    }
    ours = {name: package.replace("-", "_") for name, package in LANGCHAIN_PROVIDERS.items()}
    assert {name: theirs[name] for name in theirs.keys() - set(OWN_PROVIDERS)} == ours


def test_the_first_model_is_the_default() -> None:
    models = Models(["offline", "openai:gpt-5"])
    assert models.default == "offline"
    assert models.names == ("offline", "openai:gpt-5")
    assert models.get(None).id == models.get().id == "offline"


def test_each_model_is_opened_once_when_it_is_first_asked_for() -> None:
    opener = FakeOpener()
    models = Models(["a", "b", "c"], open=opener)
    assert opener.names == []
    assert models.get("b") is models.get("b")
    assert models.get() is models.get("a")
    assert opener.names == ["b", "a"]


def test_threads_that_ask_at_once_get_the_same_model() -> None:
    opener = FakeOpener()

    def open_slowly(name: str) -> OpenedModel:
        sleep(0.05)
        return opener(name)

    models = Models(["a", "b"], open=open_slowly)
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(models.get, ["a", "b"] * 8)]
    assert sorted(opener.names) == ["a", "b"]
    assert len(set(map(id, found))) == 2


@pytest.mark.parametrize(
    "name",
    [
        *("openai:gpt", "openai:gpt-5-pro", "OFFLINE", "offline ", "", "x"),
        *("bedrock:amazon.nova-lite-v1:0", "nonsense"),
    ],
)
def test_a_name_that_is_not_exactly_in_the_list_is_unknown(name: str) -> None:
    opener = FakeOpener()
    models = Models(["offline", "openai:gpt-5"], open=opener)
    with pytest.raises(UnknownModel) as refused:
        models.get(name)
    assert str(refused.value) == UNKNOWN
    assert opener.names == []
    assert name not in models


def test_the_names_can_be_iterated_and_counted() -> None:
    models = Models(["b", "a", "b"])
    assert [*models] == ["b", "a"]
    assert len(models) == 2
    assert "a" in models


def test_opening_is_tried_again_after_it_failed() -> None:
    opener = FakeOpener()
    attempts: list[str] = []

    def fail_once(name: str) -> OpenedModel:
        attempts.append(name)
        if len(attempts) == 1:
            raise UnknownModel("It is not installed yet.")
        return opener(name)

    models = Models(["a"], open=fail_once)
    with pytest.raises(UnknownModel):
        models.get()
    assert models.get().id == "a"
    assert len(attempts) == 2


async def test_closing_closes_the_opened_models_and_they_can_be_opened_again() -> None:
    opener = FakeOpener()
    models = Models(["a", "b", "c"], open=opener)
    models.get("a")
    models.get("b")
    await models.close()
    await models.close()
    assert [model.closed for model in opener.opened] == [1, 1]
    assert models.get("a") is opener.opened[2]
    assert opener.names == ["a", "b", "a"]


async def test_every_model_is_closed_even_if_closing_one_fails() -> None:
    opener = FakeOpener()
    opener.fails = {"b"}
    models = Models(["a", "b", "c"], open=opener)
    for name in models:
        models.get(name)
    with pytest.raises(OSError, match="lost"):
        await models.close()
    assert [model.closed for model in opener.opened] == [1, 1, 1]


@pytest.mark.parametrize("names", [[], (), "offline", None, 3, OfflineModel()])
def test_the_names_must_be_a_list_and_not_be_empty(names: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Models(names)
    assert str(refused.value) == (
        "names must be a list of at least one model name, such as ['offline']."
    )


@pytest.mark.parametrize("name", [OfflineModel(), None, 3, ["offline"]])
def test_a_model_in_place_of_a_name_is_refused_with_its_type(name: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Models(["offline", name])
    assert str(refused.value) == (
        f"names must contain names of models, such as 'offline', not a {type(name).__name__}; "
        "for models of your own, pass open= as well."
    )


class WithoutId(FakeModel):
    """Whoever wrote it forgot the id."""

    def __init__(self) -> None:
        super().__init__("")
        del self.id


@pytest.mark.parametrize("opened", [WithoutId(), FakeModel(""), None, 3])
async def test_what_was_opened_must_have_an_id(opened: Any) -> None:
    models = Models(["mine"], open=lambda name: opened)
    with pytest.raises(InvalidArgument) as refused:
        models.get()
    assert str(refused.value) == (
        f"{type(opened).__name__} is not a model: it has no id; set its id to the name under which "
        "its replies are recorded."
    )
    await models.close()


def test_a_name_in_place_of_an_opened_model_is_refused() -> None:
    nothing_opened: Any = str
    with pytest.raises(InvalidArgument) as refused:
        Models(["offline"], open=nothing_opened).get()
    assert str(refused.value) == (
        "A model is needed, not the name of one; chatledger.models.open_model opens it."
    )
