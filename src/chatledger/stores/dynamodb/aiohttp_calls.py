"""Calls over aiohttp, which are awaited and need no thread."""

import asyncio
import json
from binascii import a2b_base64, b2a_base64
from functools import partial
from typing import Any, TypeVar

import aiohttp
from botocore.parsers import ResponseParserError

from chatledger.aws.errors import REQUEST_ERRORS
from chatledger.aws.http import HttpClient
from chatledger.aws.session import Endpoint, InvalidCABundle, Session, boto3_session, find_endpoint
from chatledger.errors import AccessRefused
from chatledger.extras import keep_messages_out_of_logs
from chatledger.sansio import arun
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan, Wait, patient, reported
from chatledger.stores.dynamodb.clients import CONNECT_TIMEOUT, READ_TIMEOUT, make_client
from chatledger.stores.dynamodb.errors import (
    closed_error,
    failure_from_error,
    failure_from_reply,
    store_error,
)
from chatledger.stores.dynamodb.table import Table
from chatledger.stores.operations import OnCall

T = TypeVar("T")

MAX_CONNECTIONS = 256
"""The most connections that are open at once; further calls wait for one."""


class AiohttpCalls:
    """Runs plans in one event loop; the first call connects.

    A call that fails temporarily is tried again for ``patience`` seconds.
    """

    def __init__(
        self,
        *,
        session: Session | None,
        region: str | None,
        endpoint: str | None,
        patience: float,
        on_call: OnCall | None = None,
    ) -> None:
        keep_messages_out_of_logs("botocore")
        self._on_call = on_call
        self._patience = patience
        self._client = HttpClient(
            partial(_find_endpoint, session, region, endpoint),
            timeout=aiohttp.ClientTimeout(
                sock_connect=CONNECT_TIMEOUT,
                sock_read=min(READ_TIMEOUT, patience),
                # sock_read alone would never end a reply that arrives byte by byte.
                total=CONNECT_TIMEOUT + 2 * READ_TIMEOUT,
            ),
            max_connections=MAX_CONNECTIONS,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def run(self, plan: Plan[T], table: Table) -> T:
        """Run ``plan`` to its result, and translate a failure that it does not handle."""
        retrying = patient(
            table.compare_clock(plan),
            seconds=self._patience,
            monotonic=table.monotonic,
            random=table.random,
            time=table.time,
        )
        try:
            return await arun(reported(retrying, self._on_call), self.perform, catch=CallFailed)
        except CallFailed as failed:
            raise store_error(failed, table.name) from failed.__cause__

    async def close(self) -> None:
        self._closed = True
        await self._client.close()

    async def perform(self, call: Call | Wait) -> Any:
        """Make one call and return the reply, or wait. Raises ``CallFailed``."""
        if isinstance(call, Wait):
            return await asyncio.sleep(call.seconds)
        if self._closed:
            raise closed_error()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError(
                    "A store works in one event loop; open another store for this one."
                )
            self._loop = loop
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{call.operation}",
        }
        try:
            async with self._client.post(headers, _encode(call.params).encode()) as response:
                body = await response.read()
            if response.status == 200:
                # As in the replies of boto3.
                return _decoded(body) | {"ResponseMetadata": {"HTTPHeaders": response.headers}}
        except REQUEST_ERRORS as error:
            failed = failure_from_error(error, call.operation, single_attempt=True)
            if self._closed:
                raise closed_error(may_have_landed=failed.unknown) from error
            raise failed from error
        raise _failure(response.status, body)


def _find_endpoint(session: Session | None, region: str | None, endpoint: str | None) -> Endpoint:
    """Find DynamoDB's endpoint.

    Raises the errors of ``make_client`` and ``find_endpoint``, and ``AccessRefused`` if the CA
    bundle cannot be read.
    """
    aws_session = boto3_session(session)
    client = make_client(aws_session, region=region, endpoint=endpoint)
    client.close()  # it was made only to find the endpoint
    try:
        return find_endpoint(aws_session, client)
    except InvalidCABundle as error:
        raise AccessRefused(str(error)) from error


def _failure(status: int, body: bytes) -> CallFailed:
    try:
        reply = _json_object(body)
    except ResponseParserError:
        reply = {}  # not from DynamoDB, but from a proxy, for example
    code = str(reply.get("__type", f"HTTP {status}")).rpartition("#")[2]
    message = str(reply.get("message") or reply.get("Message") or "")
    return failure_from_reply(code, message, status=status, reply=decode_bytes(reply))


# DynamoDB's JSON, which carries bytes as base64 ---------------------------------------------------


def _base64_text(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


_encode = json.JSONEncoder(separators=(",", ":"), default=_base64_text).encode


def _json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``; raise ``ResponseParserError`` if it is something else."""
    try:
        reply = json.loads(body)
    except ValueError as error:
        raise ResponseParserError("The reply is not JSON.") from error
    if not isinstance(reply, dict):
        raise ResponseParserError("The reply is not a JSON object.")
    return reply


def _decoded(body: bytes) -> dict[str, Any]:
    """Return the reply in ``body``; raise ``ResponseParserError`` if it is damaged."""
    try:
        return decode_bytes(_json_object(body))
    except (AttributeError, TypeError, ValueError) as error:
        raise ResponseParserError("The reply is damaged.") from error


def decode_bytes(reply: dict[str, Any]) -> dict[str, Any]:
    """Decode the binary attributes of all items in ``reply``, in place, and return it."""
    for item in reply.get("Items", ()):
        _decode_attributes(item)
    for name in ("Item", "Attributes", "LastEvaluatedKey"):
        _decode_attributes(reply.get(name, {}))
    for reason in reply.get("CancellationReasons", ()):
        _decode_attributes(reason.get("Item", {}))
    for requests in reply.get("UnprocessedItems", {}).values():
        for request in requests:
            _decode_attributes(request.get("PutRequest", {}).get("Item", {}))
    return reply


def _decode_attributes(attributes: dict[Any, Any]) -> None:
    for attribute in attributes.values():
        if "S" in attribute or "N" in attribute:
            continue  # a shortcut: a reply has hundreds of these
        for kind, value in attribute.items():
            match kind:
                case "B":
                    attribute[kind] = a2b_base64(value)
                case "BS":
                    attribute[kind] = [a2b_base64(each) for each in value]
                case "M":
                    _decode_attributes(value)
                case "L":
                    _decode_attributes(dict(enumerate(value)))
