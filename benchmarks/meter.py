"""Counting requests to DynamoDB and their cost in capacity units."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import boto3

from chatledger.langchain.values import size_of

READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
KB = 1024


@dataclass(frozen=True, slots=True)
class Cost:
    requests: int
    write_requests: int
    writes: float
    """Write units."""
    reads: float
    """Read units."""


class Meter:
    """Counts the requests of every client that ``session`` makes from now on."""

    def __init__(self, session: boto3.Session) -> None:
        self._responses: list[tuple[str, dict[str, Any]]] = []
        # Not at provide-client-params, where boto3's resources would copy the params.
        session.events.register("before-parameter-build.dynamodb", _request_capacity)
        session.events.register("after-call.dynamodb", self._record)

    def take_cost(self) -> Cost:
        """Return the cost since the last call, and start again from zero."""
        responses, self._responses = self._responses, []
        writes = [_units(*response) for response in responses if response[0] not in READS]
        reads = [_units(*response) for response in responses if response[0] in READS]
        return Cost(len(responses), len(writes), sum(writes), sum(reads))

    def reset(self) -> None:
        self._responses = []

    def _record(self, parsed: dict[str, Any], model: Any, **_: object) -> None:
        self._responses.append((model.name, parsed))


def _request_capacity(params: dict[str, Any], model: Any, **_: object) -> None:
    if "ReturnConsumedCapacity" in model.input_shape.members:
        params["ReturnConsumedCapacity"] = "TOTAL"


def _units(operation: str, response: dict[str, Any]) -> float:
    """Return the units of one request, as DynamoDB reports them.

    It reports none for a write whose condition failed. Such a write consumes the units of the
    existing item (AWS documentation on conditional writes), which the response contains.
    """
    assert operation != "TransactWriteItems", "DynamoDB Local reports other units than AWS charges"
    if "Error" in response:
        assert response["Error"]["Code"] == "ConditionalCheckFailedException", response["Error"]
        return ceil(size_of({"M": response["Item"]}) / KB)
    consumed = response["ConsumedCapacity"]
    tables: list[dict[str, float]] = consumed if isinstance(consumed, list) else [consumed]
    return sum(table["CapacityUnits"] for table in tables)
