"""The cost of a client's calls, as DynamoDB reports it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from chatledger.stores.dynamodb.records import UNIT, size_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
DOCUMENTED_UNITS, MIN_UNITS = "documented units", "minimum units"  # keys of a call's context


@dataclass(frozen=True, slots=True)
class Request:
    """A request and its units; DynamoDB does not report the units of a failed one."""

    operation: str
    units: float
    error: str | None = None


class Cost:
    """The requests of a ``measured`` block, in order."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    @property
    def operations(self) -> list[str]:
        return [request.operation for request in self.requests]

    @property
    def writes(self) -> float:
        return _total_units(request for request in self.requests if request.operation not in READS)

    @property
    def reads(self) -> float:
        return _total_units(request for request in self.requests if request.operation in READS)

    @property
    def figures(self) -> tuple[int, float, float]:
        """Requests, write units and read units."""
        return len(self.requests), self.writes, self.reads


class Meter:
    """Measures the calls that ``client`` makes within ``measured``.

    It asks for the consumed capacity with each call, because the store does not. DynamoDB Local
    reports wrong units in two cases, which are priced here as AWS documents them: a transaction
    costs 2 units for each KB of each item (reported: twice as much, and only one of several items
    of the same cost), and a read that finds nothing costs the minimum (reported: nothing).
    """

    def __init__(self, client: "DynamoDBClient") -> None:
        self._costs: list[Cost] = []
        self._events: Any = client.meta.events

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """Measure the calls in the block; the cost is complete when the block ends."""
        cost = Cost()
        # Only meanwhile, because other tests use the same client.
        self._events.register("provide-client-params.dynamodb", self._request_capacity)
        self._events.register("after-call.dynamodb", self._record_request)
        self._costs.append(cost)
        try:
            yield cost
        finally:
            self._costs.remove(cost)
            self._events.unregister("provide-client-params.dynamodb", self._request_capacity)
            self._events.unregister("after-call.dynamodb", self._record_request)

    def _request_capacity(
        self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: object
    ) -> dict[str, Any] | None:
        if model.name == "TransactWriteItems":
            context[DOCUMENTED_UNITS] = _documented_units(params["TransactItems"])
        if model.name in READS:
            context[MIN_UNITS] = 1.0 if params.get("ConsistentRead") else 0.5
        if "ReturnConsumedCapacity" not in model.input_shape.members:
            return None
        return params | {"ReturnConsumedCapacity": "TOTAL"}

    def _record_request(
        self, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: object
    ) -> None:
        consumed = parsed.get("ConsumedCapacity", [])
        tables = consumed if isinstance(consumed, list) else [consumed]
        units = sum(table["CapacityUnits"] for table in tables)
        units = context.get(DOCUMENTED_UNITS, max(units, context.get(MIN_UNITS, 0)))
        request = Request(model.name, units, parsed.get("Error", {}).get("Code"))
        for cost in self._costs:
            cost.requests.append(request)


def _documented_units(actions: list[dict[str, Any]]) -> float:
    """Return the units of a transaction whose puts are outside the index.

    Its updates and condition checks are priced at the minimum, although larger items cost more.
    """
    sizes = [size_of(action["Put"]["Item"]) if "Put" in action else 1 for action in actions]
    return sum(2 * ceil(size / UNIT) for size in sizes)


def _total_units(requests: Iterable[Request]) -> float:
    requests = list(requests)
    failed = [request for request in requests if request.error]
    assert not failed, f"the cost of a failed request is not reported: {failed}"
    return sum(request.units for request in requests)
