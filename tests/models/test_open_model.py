"""Models by name: which there are, which a caller may ask for, and what is said of the others."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, sleep
from typing import Any

import pytest

from chatledger.errors import InvalidArgument, UnknownModel
from chatledger.messages import Message
from chatledger.models import Finished, Models, OpenedModel, Piece, check_model, open_model

pytestmark = pytest.mark.anyio

ARN = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0"
UNKNOWN = "There is no such model here; there is: offline, openai:gpt-5."
GOOD = [
    "offline",
    "bedrock:amazon.nova-lite-v1:0",
    f"bedrock:{ARN}",
    "openai:gpt-5",
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
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Fake:
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
            raise OSError("The connection was gone.")


class Opening:
    """Opens fakes and remembers them."""

    def __init__(self) -> None:
        self.opened: list[Fake] = []
        self.fails: set[str] = set()

    def __call__(self, name: str) -> OpenedModel:
        self.opened.append(Fake(name, fails=name in self.fails))
        return self.opened[-1]

    @property
    def names(self) -> list[str]:
        return [model.id for model in self.opened]


def test_offline_is_opened_at_its_pace() -> None:
    model = open_model("offline", offline_pace=0.01)
    assert model.id == "offline"
    began = perf_counter()
    pieces = [*model.stream_sync([Message.user("Hello")])]
    assert perf_counter() - began >= (len(pieces) - 1) * 0.01


async def test_bedrocks_models_are_opened_by_all_that_follows_the_colon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    for name in ("bedrock:amazon.nova-lite-v1:0", f"bedrock:{ARN}"):
        model = open_model(name)
        assert type(model).__name__ == "BedrockModel"
        assert model.id == name
        await model.close()


@pytest.mark.parametrize("name", GOOD)
def test_a_name_in_a_known_form_is_one_to_check(name: str) -> None:
    check_model(name)


@pytest.mark.parametrize("name", BAD)
def test_a_name_in_no_known_form_is_answered_with_the_forms(name: str) -> None:
    for asked in (check_model, open_model):
        with pytest.raises(UnknownModel) as refused:
            asked(name)
        for form in ("offline", "bedrock:<model>", "<provider>:<model>"):
            assert form in str(refused.value)


def test_an_arn_alone_is_answered_with_the_name_it_needs() -> None:
    with pytest.raises(UnknownModel, match=f"bedrock:{ARN}"):
        check_model(ARN)


def test_what_is_not_allowed_is_not_opened() -> None:
    assert open_model("offline", allowed=["offline", "openai:gpt-5"]).id == "offline"
    for name in ("bedrock:amazon.nova-lite-v1:0", "openai:gpt", "openai:gpt-5-pro", "nonsense"):
        with pytest.raises(UnknownModel) as refused:
            open_model(name, allowed=["offline", "openai:gpt-5"])
        assert str(refused.value) == UNKNOWN


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout


def test_a_name_is_checked_without_loading_what_opens_it() -> None:
    checks = "".join(f"chatledger.models.check_model({name!r})\n" for name in GOOD)
    loaded = run(f"import sys, chatledger.models\n{checks}print(*sys.modules)").split()
    assert "chatledger.models" in loaded
    assert not {"boto3", "botocore", "aiohttp", "langchain_core", "pydantic"} & set(loaded)


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("boto3", "bedrock:amazon.nova-lite-v1:0", "bedrock"),
        ("langchain_core", "openai:gpt-5", "langchain"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    missing: str, name: str, extra: str
) -> None:
    said = run(
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from chatledger import UnknownModel\n"
        "from chatledger.models import open_model\n"
        f"try: open_model({name!r})\n"
        "except UnknownModel as unknown: print(unknown)"
    )
    assert missing in said
    assert f"pip install 'chatledger[{extra}]'" in said


def test_the_first_model_answers_where_none_is_asked_for() -> None:
    models = Models(["offline", "openai:gpt-5"])
    assert models.default == "offline"
    assert models.names == ("offline", "openai:gpt-5")
    assert models.get(None).id == models.get().id == "offline"


def test_each_is_opened_when_it_is_asked_for_and_once() -> None:
    opening = Opening()
    models = Models(["a", "b", "c"], open=opening)
    assert opening.names == []
    assert models.get("b") is models.get("b")
    assert models.get() is models.get("a")
    assert opening.names == ["b", "a"]


def test_threads_that_ask_at_once_get_the_same() -> None:
    opening = Opening()

    def slowly(name: str) -> OpenedModel:
        sleep(0.05)
        return opening(name)

    models = Models(["a", "b"], open=slowly)
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(models.get, ["a", "b"] * 8)]
    assert sorted(opening.names) == ["a", "b"]
    assert len(set(map(id, found))) == 2


@pytest.mark.parametrize("name", ["openai:gpt", "openai:gpt-5-pro", "OFFLINE", "offline ", "", "x"])
def test_a_name_that_is_not_exactly_in_the_list_is_unknown(name: str) -> None:
    opening = Opening()
    models = Models(["offline", "openai:gpt-5"], open=opening)
    with pytest.raises(UnknownModel) as refused:
        models.get(name)
    assert str(refused.value) == UNKNOWN
    assert opening.names == []
    assert name not in models


def test_the_list_can_be_gone_through() -> None:
    models = Models(["b", "a", "b"])
    assert [*models] == ["b", "a"]
    assert len(models) == 2
    assert "a" in models


def test_what_fails_to_open_is_opened_when_it_is_asked_for_again() -> None:
    opening = Opening()
    tries: list[str] = []

    def second_time(name: str) -> OpenedModel:
        tries.append(name)
        if len(tries) == 1:
            raise UnknownModel("It is not installed yet.")
        return opening(name)

    models = Models(["a"], open=second_time)
    with pytest.raises(UnknownModel):
        models.get()
    assert models.get().id == "a"
    assert len(tries) == 2


async def test_those_that_were_opened_are_closed_and_open_anew() -> None:
    opening = Opening()
    models = Models(["a", "b", "c"], open=opening)
    models.get("a")
    models.get("b")
    await models.close()
    await models.close()
    assert [model.closed for model in opening.opened] == [1, 1]
    assert models.get("a") is opening.opened[2]
    assert opening.names == ["a", "b", "a"]


async def test_one_that_does_not_close_leaves_none_open() -> None:
    opening = Opening()
    opening.fails = {"b"}
    models = Models(["a", "b", "c"], open=opening)
    for name in models:
        models.get(name)
    with pytest.raises(OSError, match="gone"):
        await models.close()
    assert [model.closed for model in opening.opened] == [1, 1, 1]


@pytest.mark.parametrize("names", [[], (), "offline"])
def test_a_list_without_names_is_refused(names: Any) -> None:
    with pytest.raises(InvalidArgument):
        Models(names)
