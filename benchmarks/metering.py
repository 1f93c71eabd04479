"""What is asked of DynamoDB, and what that costs."""

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
    writes: float
    """Write units."""
    reads: float
    """Read units."""


class Meter:
    """Counts the requests of all clients that are made of ``session`` from now on."""

    def __init__(self, session: boto3.Session) -> None:
        self._answers: list[tuple[str, dict[str, Any]]] = []
        # Not where params are provided: there boto3's resources copy them, if nobody else has.
        session.events.register("before-parameter-build.dynamodb", _ask)
        session.events.register("after-call.dynamodb", self._note)

    def taken(self) -> Cost:
        """What was since this was last asked."""
        answers, self._answers = self._answers, []
        writes = sum(_units(*answer) for answer in answers if answer[0] not in READS)
        reads = sum(_units(*answer) for answer in answers if answer[0] in READS)
        return Cost(len(answers), writes, reads)

    def forget(self) -> None:
        self._answers = []

    def _note(self, parsed: dict[str, Any], model: Any, **_: object) -> None:
        self._answers.append((model.name, parsed))


def _ask(params: dict[str, Any], model: Any, **_: object) -> None:
    if "ReturnConsumedCapacity" in model.input_shape.members:
        params["ReturnConsumedCapacity"] = "TOTAL"


def _units(operation: str, answer: dict[str, Any]) -> float:
    """As DynamoDB reports them, but for a write whose condition failed. Of that it reports none; it
    takes those of the item (AWS: conditional writes), which has come along.
    """
    assert operation != "TransactWriteItems", "DynamoDB Local reports other units than AWS takes"
    if "Error" in answer:
        assert answer["Error"]["Code"] == "ConditionalCheckFailedException", answer["Error"]
        return ceil(size_of({"M": answer["Item"]}) / KB)
    consumed = answer["ConsumedCapacity"]
    tables: list[dict[str, float]] = consumed if isinstance(consumed, list) else [consumed]
    return sum(table["CapacityUnits"] for table in tables)
