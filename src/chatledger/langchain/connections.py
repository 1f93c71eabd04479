"""DynamoDB clients of the drop-in class: one for equal settings, because making one takes 50 ms."""

import os
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import TYPE_CHECKING

import boto3

from chatledger.stores.dynamodb.clients import make_client

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_CLIENTS = 64
# The environment variables that botocore uses for a client without a session or arguments.
_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
)

_clients: "OrderedDict[Hashable, DynamoDBClient]" = OrderedDict()
_lock = Lock()


def _client_key(session: boto3.Session | None, endpoint: str | None) -> Hashable:
    """Return a key that is equal for settings that can share a client.

    It includes the process id, because a forked child needs connections of its own.
    """
    # boto3.resource also honors boto3.setup_default_session.
    session = session or boto3.DEFAULT_SESSION
    # Holding the session itself keeps its identity from being reused by another one.
    settings = session or tuple(map(os.environ.get, _ENVIRONMENT))
    return (os.getpid(), endpoint, settings)


def shared_client(session: boto3.Session | None, endpoint: str | None) -> "DynamoDBClient":
    """Return the client for these settings, created with ``make_client`` on first use."""
    key = _client_key(session, endpoint)
    client = _clients.get(key)
    if client is not None:
        return client
    # A session must not create clients in two threads at the same time.
    with _lock:
        client = _clients.get(key)
        if client is None:
            used_session = session or boto3.DEFAULT_SESSION or boto3.Session()
            client = make_client(used_session, region=None, endpoint=endpoint)
            _clients[key] = client
            if len(_clients) > MAX_CLIENTS:
                _clients.popitem(last=False)
    return client


def _reset_in_child() -> None:
    global _lock
    _lock = Lock()  # another thread of the parent may have held the old one
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)
