"""Clients for the drop-in class, shared where the settings are equal: to make one takes 50 ms."""

import os
import time
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import boto3

from chatledger.langchain.segments import CHANCE
from chatledger.stores.dynamodb.boto3_calls import Boto3Calls
from chatledger.stores.dynamodb.calls import PATIENCE, Plan, patient, run
from chatledger.stores.dynamodb.clients import make_client

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

CLIENTS = 64
# What botocore makes a client by that has no session and no arguments.
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


def settings_of(session: boto3.Session | None, endpoint: str | None) -> Hashable:
    """Equal for what one client serves; a forked child needs connections of its own."""
    # As boto3.resource has it: what boto3.setup_default_session said holds here too.
    session = session or boto3.DEFAULT_SESSION
    # With the session itself, so that its id is given to no other.
    here = session or tuple(map(os.environ.get, _ENVIRONMENT))
    return (os.getpid(), endpoint, here)


def shared_client(session: boto3.Session | None, endpoint: str | None) -> "DynamoDBClient":
    """Raises as ``make_client``."""
    settings = settings_of(session, endpoint)
    client = _clients.get(settings)
    if client is not None:
        return client
    # One at a time: a session may not make clients in two threads at once.
    with _lock:
        client = _clients.get(settings)
        if client is None:
            of = session or boto3.DEFAULT_SESSION or boto3.Session()
            client = _clients[settings] = make_client(of, region=None, endpoint=endpoint)
            if len(_clients) > CLIENTS:
                _clients.popitem(last=False)
    return client


def complete(plan: Plan[T], client: "DynamoDBClient") -> T:
    """What the plan returns. Raises ``CallFailed`` where a call fails for good."""
    tried = patient(plan, seconds=PATIENCE, monotonic=time.monotonic, random=CHANCE)
    return run(tried, Boto3Calls(client).perform, time.sleep)


def _in_child() -> None:
    global _lock
    _lock = Lock()  # another thread of the parent's may have held it
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
