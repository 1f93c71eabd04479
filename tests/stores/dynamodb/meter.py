"""What a client's calls cost, as DynamoDB says."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from chatledger.stores.dynamodb.compression import UNIT
from chatledger.stores.dynamodb.records import size_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})
PRICED, LEAST = "priced", "least"


@dataclass(frozen=True, slots=True)
class Request:
    """One request and its units; those of a failed one are not reported."""

    operation: str
    units: float
    error: str | None = None


class Cost:
    """The requests of a block, in their order."""

    def __init__(self) -> None:
        self.made: list[Request] = []

    @property
    def requests(self) -> int:
        return len(self.made)

    @property
    def operations(self) -> list[str]:
        return [request.operation for request in self.made]

    @property
    def writes(self) -> float:
        return _units(request for request in self.made if request.operation not in READS)

    @property
    def reads(self) -> float:
        return _units(request for request in self.made if request.operation in READS)

    @property
    def figures(self) -> tuple[int, float, float]:
        """Requests, write units and read units."""
        return self.requests, self.writes, self.reads


class Meter:
    """Measures what ``client`` does within ``measured``.

    The units are asked for on the way, since the store does not ask for them. But for transactions:
    of those DynamoDB Local reports twice the price, and of parts that cost the same only one. They
    are priced as AWS documents it, at 2 units for each KB of each part. A read that finds nothing
    costs something too, which DynamoDB Local does not say.
    """

    def __init__(self, client: "DynamoDBClient") -> None:
        self._costs: list[Cost] = []
        events: Any = client.meta.events
        events.register("provide-client-params.dynamodb", self._ask)
        events.register("after-call.dynamodb", self._count)

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """What happens within the block; complete at its end."""
        cost = Cost()
        self._costs.append(cost)
        try:
            yield cost
        finally:
            self._costs.remove(cost)

    def _ask(
        self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: object
    ) -> dict[str, Any] | None:
        if model.name == "TransactWriteItems":
            context[PRICED] = _price(params["TransactItems"])
        if model.name in READS:
            context[LEAST] = 1.0 if params.get("ConsistentRead") else 0.5
        if "ReturnConsumedCapacity" not in model.input_shape.members:
            return None
        return params | {"ReturnConsumedCapacity": "TOTAL"}

    def _count(
        self, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: object
    ) -> None:
        consumed = parsed.get("ConsumedCapacity", [])
        tables = consumed if isinstance(consumed, list) else [consumed]
        units = sum(table["CapacityUnits"] for table in tables)
        units = context.get(PRICED, max(units, context.get(LEAST, 0)))
        request = Request(model.name, units, parsed.get("Error", {}).get("Code"))
        for cost in self._costs:
            cost.made.append(request)


def _price(parts: list[dict[str, Any]]) -> float:
    """Of parts that put items outside the index. What else a part may do is not priced here."""
    return sum(2 * ceil(size_of(part["Put"]["Item"]) / UNIT) for part in parts)


def _units(requests: Iterable[Request]) -> float:
    made = list(requests)
    failed = [request for request in made if request.error]
    assert not failed, f"what a failed request costs is not reported: {failed}"
    return sum(request.units for request in made)
