"""Sequences of store operations that are written once, for sync and async stores."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar, cast

from chatledger.errors import ChatledgerError

T = TypeVar("T")
Steps: TypeAlias = Generator[Callable[[], Any], Any, T]
"""A generator that yields store operations without calling them. It is sent the result of each, or
has the ``ChatledgerError`` that the operation raised thrown into it."""


def run(steps: Steps[T]) -> T:
    """Run ``steps`` over a sync store and return their result."""
    result: Any = None
    error: ChatledgerError | None = None
    while True:
        try:
            operation = steps.throw(error) if error else steps.send(result)
        except StopIteration as end:
            return cast(T, end.value)
        result, error = None, None
        try:
            result = operation()
        except ChatledgerError as raised:
            error = raised


async def arun(steps: Steps[T]) -> T:
    """Run ``steps`` over an async store, whose operations are awaited, and return their result."""
    result: Any = None
    error: ChatledgerError | None = None
    while True:
        try:
            operation = steps.throw(error) if error else steps.send(result)
        except StopIteration as end:
            return cast(T, end.value)
        result, error = None, None
        try:
            result = await cast(Callable[[], Awaitable[Any]], operation)()
        except ChatledgerError as raised:
            error = raised
