"""Several operations of stores as one, written once for sync and async stores."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar, cast

from chatledger.errors import ChatledgerError

T = TypeVar("T")
Steps: TypeAlias = Generator[Callable[[], Any], Any, T]
"""Yields operations, not yet called; is sent their answers, or thrown Chatledger's errors."""


def run(steps: Steps[T]) -> T:
    """What ``steps`` return, over a sync store."""
    reply: Any = None
    failed: ChatledgerError | None = None
    while True:
        try:
            call = steps.throw(failed) if failed else steps.send(reply)
        except StopIteration as end:
            return cast(T, end.value)
        reply, failed = None, None
        try:
            reply = call()
        except ChatledgerError as error:
            failed = error


async def arun(steps: Steps[T]) -> T:
    """What ``steps`` return, over an async store: their operations are awaited."""
    reply: Any = None
    failed: ChatledgerError | None = None
    while True:
        try:
            call = steps.throw(failed) if failed else steps.send(reply)
        except StopIteration as end:
            return cast(T, end.value)
        reply, failed = None, None
        try:
            reply = await cast(Callable[[], Awaitable[Any]], call)()
        except ChatledgerError as error:
            failed = error
