"""Running generators that yield what is to be done: the same for sync and async callers."""

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import pytest

from chatledger.errors import Conflict, NotFound
from chatledger.sansio import Steps, arun, run

pytestmark = pytest.mark.anyio

Runner: TypeAlias = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["run", "arun"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Run the generator with ``run`` or ``arun``; either way it must be awaited."""

    async def run_with(
        steps: Generator[Any, Any, Any], perform: Callable[[Any], Any], **options: Any
    ) -> Any:
        if request.param == "run":
            return run(steps, perform, **options)

        async def perform_async(step: Any) -> Any:
            return perform(step)

        return await arun(steps, perform_async, **options)

    return run_with


def raise_error(error: Exception) -> Any:
    raise error


async def test_each_step_gets_its_result_and_the_generators_result_is_returned(
    runner: Runner,
) -> None:
    def steps() -> Generator[int, int, list[int]]:
        return [(yield 1), (yield 2), (yield 3)]

    assert await runner(steps(), lambda number: 10 * number) == [10, 20, 30]


async def test_an_error_of_a_step_is_thrown_into_the_generator_which_goes_on(
    runner: Runner,
) -> None:
    def steps() -> Generator[Exception | None, Any, list[Any]]:
        seen: list[Any] = []
        for error in (NotFound("talk"), None, NotFound("walk")):
            try:
                seen.append((yield error))
            except NotFound as raised:
                seen.append(raised.conversation_id)
        return seen

    def perform(error: Exception | None) -> str:
        return raise_error(error) if error else "done"

    assert await runner(steps(), perform) == ["talk", "done", "walk"]


async def test_an_error_that_the_generator_does_not_handle_is_raised(runner: Runner) -> None:
    def steps() -> Steps[None]:
        try:
            yield lambda: None
        except Conflict:
            pytest.fail("This is another error.")

    missing = NotFound("talk")
    with pytest.raises(NotFound) as raised:
        await runner(steps(), lambda step: raise_error(missing))
    assert raised.value is missing


@pytest.mark.parametrize("error", [ValueError("a bug"), StopIteration("no end of the generator")])
async def test_errors_that_are_not_caught_do_not_reach_the_generator(
    runner: Runner, error: Exception
) -> None:
    def steps() -> Steps[str]:
        try:
            yield lambda: None
        except Exception:
            pytest.fail("The generator got the error.")
        return "the end"

    with pytest.raises((type(error), RuntimeError)):  # a coroutine turns StopIteration into one
        await runner(steps(), lambda step: raise_error(error))


async def test_the_caller_names_the_errors_that_are_thrown_into_the_generator(
    runner: Runner,
) -> None:
    def steps() -> Steps[str]:
        try:
            yield lambda: None
        except KeyError:
            return "caught"
        return "not raised"

    def perform(step: object) -> Any:
        raise KeyError

    assert await runner(steps(), perform, catch=(KeyError, NotFound)) == "caught"


async def test_store_operations_are_called_if_nothing_else_is_to_perform_them() -> None:
    def steps() -> Steps[list[int]]:
        return [(yield lambda: 1)]

    async def operation() -> int:
        return 2

    def async_steps() -> Steps[list[int]]:
        return [(yield operation)]

    assert run(steps()) == [1]
    assert await arun(async_steps()) == [2]
