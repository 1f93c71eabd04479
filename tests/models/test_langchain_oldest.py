"""LangChain models with the oldest supported version of langchain-core."""

from pathlib import Path

from tests.langchain.test_oldest import run

FOLDER = Path(__file__).parent
TEST_MODULES = ("test_langchain", "test_langchain_factory")


def test_models_work_with_the_oldest_core() -> None:
    files = [str(FOLDER / f"{name}.py") for name in TEST_MODULES]
    # Its pydantic models warn, and its langsmith has a plugin for another version of pytest.
    options = ["-p", "no:langsmith_plugin", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::DeprecationWarning", "-q"]
    completed = run("-m", "pytest", *options, *files)
    assert completed.returncode == 0, completed.stdout[-5_000:] + completed.stderr[-2_000:]
