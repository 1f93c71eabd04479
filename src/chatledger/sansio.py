"""Logic without I/O: generators that yield the steps to perform, run by sync or async callers.

A generator yields steps, such as store operations that it does not call itself. It is sent the
result of each, or has the error of the step thrown into it. So the logic that can go wrong is
written once, and tests can run it with any results in any order.
"""

import operator
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from chatledger.errors import ChatledgerError

P = ParamSpec("P")
T = TypeVar("T")
Step = TypeVar("Step")
Errors: TypeAlias = type[Exception] | tuple[type[Exception], ...]
Steps: TypeAlias = Generator[Callable[[], Any], Any, T]
"""A generator that yields store operations."""

_CALL: Any = operator.call  # of type Any, so that it is a default for steps of any type


def call(operation: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> Steps[T]:
    """Call an operation of a store or a source and return its result."""
    result: T = yield partial(operation, *arguments, **options)
    return result


def run(
    steps: Generator[Step, Any, T],
    perform: Callable[[Step], Any] = _CALL,
    *,
    catch: Errors = ChatledgerError,
) -> T:
    """Run a generator and return its result.

    Args:
        steps: The generator.
        perform: Performs one step and returns its result; by default, the step is called.
        catch: The errors of ``perform`` that are thrown into the generator; all others, and those
            that the generator does not handle, are raised.
    """
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration as end:
            return cast(T, end.value)
        try:
            result, error = perform(step), None
        except catch as raised:
            error = raised


async def arun(
    steps: Generator[Step, Any, T],
    perform: Callable[[Step], Awaitable[Any]] = _CALL,
    *,
    catch: Errors = ChatledgerError,
) -> T:
    """Do the same as ``run``, but await what ``perform`` returns."""
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration as end:
            return cast(T, end.value)
        try:
            result, error = await perform(step), None
        except catch as raised:
            error = raised
