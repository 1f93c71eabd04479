"""boto3 clients with faults: hooks around each call, crashes and lost replies."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ReadTimeoutError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Params = dict[str, Any]
Hook = Callable[[str, Params], None]


class Crashed(BaseException):
    """The process that uses the store died here. Plans do not catch a ``BaseException``."""


def client_with_hooks(
    client: "DynamoDBClient", *, before: Hook | None = None, after: Hook | None = None
) -> "DynamoDBClient":
    """Return ``client`` with ``before`` and ``after`` called around each of its calls.

    The hooks receive the operation, such as ``put_item``, and its parameters. An exception that a
    hook raises is raised from the call: if ``before`` raises, the request is never sent; if
    ``after`` raises, its reply is lost.
    """
    return cast("DynamoDBClient", _ClientWithHooks(client, before, after))


class _ClientWithHooks:
    def __init__(self, client: Any, before: Hook | None, after: Hook | None) -> None:
        self._client = client
        self._before = before
        self._after = after

    def __getattr__(self, operation: str) -> Any:
        call = getattr(self._client, operation)
        if operation not in self._client.meta.method_to_api_mapping:
            return call

        def call_with_hooks(**params: Any) -> Any:
            if self._before is not None:
                self._before(operation, params)
            try:
                return call(**params)
            finally:
                if self._after is not None:
                    self._after(operation, params)

        return call_with_hooks


def crashing_client(client: "DynamoDBClient", call: int, *, landed: bool) -> "DynamoDBClient":
    """Return a client whose process crashes at call number ``call`` (the first is 0): after the
    call took effect if ``landed``, before it is sent otherwise.
    """
    calls = -1

    def crash_before(operation: str, params: Params) -> None:
        nonlocal calls
        calls += 1
        if calls == call and not landed:
            raise Crashed

    def crash_after(operation: str, params: Params) -> None:
        if calls == call and landed:
            raise Crashed

    return client_with_hooks(client, before=crash_before, after=crash_after)


def lose_reply(*_: object) -> None:
    """An ``after`` hook: the call took effect, but its reply never arrived."""
    raise ReadTimeoutError(endpoint_url="")
