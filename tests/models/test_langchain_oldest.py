"""Models of LangChain's with the oldest core that is supported."""

from pathlib import Path

from tests.langchain.test_oldest import run

FOLDER = Path(__file__).parent
TESTS = ("test_langchain", "test_langchain_opening")


def test_models_work_with_the_oldest_core_too() -> None:
    files = [str(FOLDER / f"{name}.py") for name in TESTS]
    # Its pydantic models warn, and its langsmith brings a plugin for another pytest.
    options = ["-p", "no:langsmith_plugin", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::DeprecationWarning", "-q"]
    tested = run("-m", "pytest", *options, *files)
    assert tested.returncode == 0, tested.stdout[-5_000:] + tested.stderr[-2_000:]
