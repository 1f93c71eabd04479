"""Models of one's own, named by their module and object."""

from pathlib import Path

import pytest

from chatledger.chat import SyncChat
from chatledger.errors import UnknownModel
from chatledger.models import Models, open_model
from chatledger.stores.urls import open_store

MODELS = """
import dataclasses
from chatledger.models import Finished


class Parrot:
    def __init__(self, id="parrot"):
        self.id = id

    def stream_sync(self, messages, *, system_prompt=None):
        yield messages[-1].text
        yield Finished("end_turn")


class Zoo:
    parrot = Parrot("parrot of the zoo")


class Speaking(Parrot):
    def __call__(self):
        raise AssertionError("It is a model already.")


def make():
    return Parrot("made")


def fail():
    raise ValueError("secret")


def need(argument):
    return Parrot(argument)


class WithoutId:
    stream_sync = Parrot.stream_sync


class WithoutStream:
    id = "silent"


parrot = Parrot()
speaking = Speaking("speaking")
number = 3
name = "offline"
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module and a package with models, in a folder of the module path."""
    (tmp_path / "birds_of_the_test.py").write_text(MODELS)
    package = tmp_path / "package_of_the_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(MODELS)
    (package / "incomplete.py").write_text("import a_package_that_nobody_has")
    (package / "broken.py").write_text("raise RuntimeError('secret')")
    (tmp_path / "groq.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "birds_of_the_test"


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("birds_of_the_test:parrot", "parrot"),
        ("birds_of_the_test:Parrot", "parrot"),
        ("birds_of_the_test:make", "made"),
        ("birds_of_the_test:speaking", "speaking"),
        ("birds_of_the_test:Zoo.parrot", "parrot of the zoo"),
        ("package_of_the_test.models:parrot", "parrot"),
    ],
)
def test_an_object_a_class_or_a_function_is_found_by_name(path: str, id: str) -> None:
    model = open_model(path, max_tokens=300)
    assert model.id == id
    with open_store("sqlite:///:memory:") as store:
        assert SyncChat(store, model).send("Hi", owner="bob").text == "Hi"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("birds_of_prey:hawk", "There is no module birds_of_prey, which birds_of_prey:hawk names"),
        ("package_of_the_test.birds:x", "There is no module package_of_the_test.birds, which"),
        ("birds_of_the_test:hawk", "The module birds_of_the_test has no hawk, which"),
        ("birds_of_the_test:Zoo.hawk", "The module birds_of_the_test has no Zoo.hawk, which"),
        (
            "package_of_the_test.incomplete:x",
            (
                "The module package_of_the_test.incomplete cannot be imported "
                "(ModuleNotFoundError); python -c 'import package_of_the_test.incomplete' shows why"
            ),
        ),
        ("package_of_the_test.broken:x", "cannot be imported (RuntimeError)"),
        ("birds_of_the_test:fail", "birds_of_the_test:fail could not be made (ValueError)"),
        ("birds_of_the_test:need", "could not be made (TypeError); it is called without arguments"),
        ("birds_of_the_test:number", "birds_of_the_test:number is not a model: int is not a model"),
        ("birds_of_the_test:name", "birds_of_the_test:name is not a model: A model is needed"),
        ("birds_of_the_test:WithoutId", "it has no id"),
        ("birds_of_the_test:WithoutStream", "neither of the methods stream and stream_sync"),
    ],
)
def test_a_sentence_says_what_is_wrong_with_the_name(path: str, sentence: str) -> None:
    with pytest.raises(UnknownModel) as refused:
        open_model(path)
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["groq:parrot", "Groq:parrot"])
def test_a_known_provider_comes_before_a_module_of_its_name(name: str) -> None:
    with pytest.raises(UnknownModel, match=r"needs .*langchain-groq"):
        open_model(name)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_model_without_the_method_close_is_left_open(anyio_backend: str) -> None:
    models = Models(["birds_of_the_test:parrot"])
    assert models.get().id == "parrot"
    await models.close()
