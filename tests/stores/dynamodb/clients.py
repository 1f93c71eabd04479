"""Clients to which something happens on the way."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ReadTimeoutError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Params = dict[str, Any]
Hook = Callable[[str, Params], None]


class Died(BaseException):
    """The process of a store ended here, for good: nothing of a plan catches it."""


def watched_client(
    client: "DynamoDBClient", *, before: Hook | None = None, behind: Hook | None = None
) -> "DynamoDBClient":
    """``client``, with ``before`` and ``behind`` called around each of its calls.

    They are told the operation, such as ``put_item``, and its parameters. What they raise is
    raised from the call: from ``before`` it never arrives, from ``behind`` its answer is lost.
    """
    return cast("DynamoDBClient", _Watched(client, before, behind))


class _Watched:
    def __init__(self, client: Any, before: Hook | None, behind: Hook | None) -> None:
        self._client = client
        self._before = before
        self._behind = behind

    def __getattr__(self, operation: str) -> Any:
        call = getattr(self._client, operation)
        if operation not in self._client.meta.method_to_api_mapping:
            return call

        def watched(**params: Any) -> Any:
            if self._before is not None:
                self._before(operation, params)
            try:
                return call(**params)
            finally:
                if self._behind is not None:
                    self._behind(operation, params)

        return watched


def dying_at(client: "DynamoDBClient", call: int, *, landed: bool) -> "DynamoDBClient":
    """A client whose process dies at its ``call``-th call (the first is 0), as that arrives or
    once it has ``landed``.
    """
    calls = -1

    def count(operation: str, params: Params) -> None:
        nonlocal calls
        calls += 1
        if calls == call and not landed:
            raise Died

    def die(operation: str, params: Params) -> None:
        if calls == call and landed:
            raise Died

    return watched_client(client, before=count, behind=die)


def no_answer(*_: object) -> None:
    """For ``behind``: the call took effect, and its answer never came."""
    raise ReadTimeoutError(endpoint_url="")
