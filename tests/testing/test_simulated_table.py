"""The simulated table answers as DynamoDB Local does."""

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.messages import new_id
from chatledger.stores.dynamodb import create_table
from chatledger.stores.dynamodb.boto3_calls import failure
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.testing.simulation import SimulatedTable, Unknown
from chatledger.testing.simulation.items import Key
from chatledger.testing.simulation.limits import small_limits
from chatledger.testing.simulation.schedules import drawn, play_through

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Params = dict[str, Any]
SEEDS = range(40)
CALLS = 40


@pytest.fixture(scope="module")
def client(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def table(client: "DynamoDBClient") -> Iterator[str]:
    name = f"test-{new_id()}"
    create_table(client, name)
    yield name
    client.delete_table(TableName=name)


class Both:
    """DynamoDB Local and a simulated table, which are asked the same and must answer the same."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self.name = table
        self.page_items: int | None = None
        self._client = client
        self._simulated = SimulatedTable(table)
        self.replies = 0
        self.refusals: list[str] = []

    def perform(self, call: Call) -> Any:
        told, simulated = self._asked(call), self._simulation(call)
        assert _told(call, simulated) == _told(call, told), call
        if isinstance(told, CallFailed):
            self.refusals.append(told.code)
            raise told
        self.replies += 1
        if "ReturnConsumedCapacity" in call.params:
            _compare_units(call, simulated, told)
        return told

    def overdue(self, time: int) -> list[Key]:
        return self._simulated.overdue(time)

    def reap(self, key: Key, time: int) -> None:
        pk, sk = key
        self._client.delete_item(TableName=self.name, Key={"pk": {"S": pk}, "sk": {"S": sk}})
        self._simulated.reap(key, time)

    def items(self) -> Iterator[Item]:
        return self._simulated.items()

    def _simulation(self, call: Call) -> Any:
        try:
            return self._simulated.perform(call)
        except CallFailed as failed:
            return failed

    def _asked(self, call: Call) -> Any:
        operation = "".join(f"_{c.lower()}" if c.isupper() else c for c in call.operation)[1:]
        try:
            return getattr(self._client, operation)(**call.params)
        except self._client.exceptions.ClientError as error:
            return failure(error, call.operation, tries_once=True)


def _told(call: Call, reply: Any) -> Any:
    """What of a reply must be the same."""
    if isinstance(reply, CallFailed):
        return reply.code, reply.item, reply.reasons
    ignored = ("ResponseMetadata", "ConsumedCapacity", "ItemCollectionMetrics")
    told = {name: value for name, value in reply.items() if name not in ignored}
    if call.operation == "Scan":
        # Which partition comes first is DynamoDB's own affair; within one there is an order.
        told["Items"] = sorted(told["Items"], key=lambda item: str(item["pk"]["S"]))
    return told


def _compare_units(call: Call, simulated: Any, told: Any) -> None:
    units, theirs = _units(simulated), _units(told)
    match call.operation:
        case "GetItem" | "Query" | "Scan" if not any(theirs.values()):
            # Reading nothing costs the least there is, which DynamoDB Local does not say.
            assert sum(units.values()) in (0.5, 1), call
        case "TransactWriteItems":
            # DynamoDB Local reports twice the price, and parts of one price as one.
            assert sum(theirs.values()) <= 2 * sum(units.values()), call
            [part, *others] = call.params["TransactItems"]
            if not others and ("Put" in part or "Update" in part):
                assert {place: price / 2 for place, price in theirs.items()} == units, call
        case "BatchWriteItem" if "DeleteRequest" in str(call.params):
            # There DynamoDB Local takes two units for deleting what does not exist.
            assert units["table"] <= theirs["table"], call
        case _:
            assert units == theirs, call


def _units(reply: Any) -> dict[str, float]:
    consumed = reply.get("ConsumedCapacity", [])
    found: dict[str, float] = {}
    for entry in consumed if isinstance(consumed, list) else [consumed]:
        found["table"] = found.get("table", 0) + entry.get("Table", {}).get("CapacityUnits", 0)
        for index in entry.get("GlobalSecondaryIndexes", {}).values():
            found["index"] = found.get("index", 0) + index["CapacityUnits"]
    return found


class Calls:
    """Random calls on a few keys, that mostly mean something."""

    def __init__(self, seed: int, table: str) -> None:
        self._random = random.Random(seed)
        self._table = table
        self._partitions = [f"{seed}-{n}-é" for n in range(2)]
        self._owner = f"{seed}"

    def next(self) -> Call:
        pick = self._random.choice
        kind = pick(
            ["put"] * 3
            + ["update"] * 2
            + ["delete", "get", "index", "batch"]
            + ["query"] * 2
            + ["transact"] * 2
        )
        operation, params = getattr(self, f"_{kind}")()
        if "ExpressionAttributeNames" in params and self._random.random() < 0.05:
            params["ExpressionAttributeNames"] |= {"#unused": "unused"}
        params["ReturnConsumedCapacity"] = "INDEXES"
        return Call(operation, params)

    def _put(self) -> tuple[str, Params]:
        return "PutItem", {"TableName": self._table, "Item": self._item(), **self._condition()}

    def _update(self) -> tuple[str, Params]:
        return "UpdateItem", {"TableName": self._table, "Key": self._key(), **self._change()}

    def _delete(self) -> tuple[str, Params]:
        return "DeleteItem", {"TableName": self._table, "Key": self._key(), **self._condition()}

    def _get(self) -> tuple[str, Params]:
        consistent = self._random.random() < 0.5
        return "GetItem", {
            "TableName": self._table,
            "Key": self._key(),
            "ConsistentRead": consistent,
        }

    def _query(self) -> tuple[str, Params]:
        random = self._random
        low, high = sorted((random.choice(SORTS), random.choice(SORTS)))
        if random.random() < 0.05:
            low, high = high, low
        params: Params = {
            "TableName": self._table,
            "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :low AND :high",
            "ExpressionAttributeNames": {"#pk": "pk", "#sk": "sk"},
            "ExpressionAttributeValues": {
                ":pk": {"S": random.choice(self._partitions)},
                ":low": {"S": low},
                ":high": {"S": high},
            },
            "ConsistentRead": random.random() < 0.5,
            "ScanIndexForward": random.random() < 0.5,
        }
        if random.random() < 0.5:
            params["Limit"] = random.choice((1, 2, 3, 10))
        if random.random() < 0.3:
            params["FilterExpression"] = random.choice(
                ("attribute_not_exists(#n) OR #n < :n", "attribute_exists(#n) AND #n <> :n")
            )
            params["ExpressionAttributeNames"] |= {"#n": "n"}
            params["ExpressionAttributeValues"] |= {":n": {"N": "50"}}
        if random.random() < 0.3:
            params["ProjectionExpression"] = "#pk, #sk, #n"
            params["ExpressionAttributeNames"] |= {"#n": "n"}
        if random.random() < 0.3:
            pk = params["ExpressionAttributeValues"][":pk"]
            params["ExclusiveStartKey"] = {"pk": pk, "sk": {"S": random.choice(SORTS)}}
        return "Query", params

    def _index(self) -> tuple[str, Params]:
        random = self._random
        params: Params = {
            "TableName": self._table,
            "IndexName": "by_owner",
            "KeyConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": {"#owner": "owner"},
            "ExpressionAttributeValues": {":owner": {"S": self._owner}},
            "ScanIndexForward": random.random() < 0.5,
        }
        if random.random() < 0.5:
            params["Limit"] = random.choice((1, 2, 10))
        if random.random() < 0.05:
            params["ConsistentRead"] = True
        return "Query", params

    def _transact(self) -> tuple[str, Params]:
        random = self._random
        # What DynamoDB Local says of two parts for one item, and of wrong ones, is its own.
        places = random.sample([(pk, sk) for pk in self._partitions for sk in SORTS], 3)
        parts: list[Params] = []
        for pk, sk in places[: random.choice((1, 2, 3))]:
            key = {"pk": {"S": pk}, "sk": {"S": sk}}
            common = {"TableName": self._table}
            condition = self._condition()
            match random.choice(("Put", "Update", "Delete", "ConditionCheck")):
                case "Put":
                    parts.append({"Put": common | condition | {"Item": self._right_item() | key}})
                case "Update":
                    parts.append({"Update": common | {"Key": key} | self._change()})
                case "Delete":
                    parts.append({"Delete": common | {"Key": key} | condition})
                case "ConditionCheck" if condition:
                    parts.append({"ConditionCheck": common | {"Key": key} | condition})
        if not parts:
            return self._transact()
        return "TransactWriteItems", {"TransactItems": parts}

    def _batch(self) -> tuple[str, Params]:
        requests = [
            {"PutRequest": {"Item": self._item()}}
            if self._random.random() < 0.6
            else {"DeleteRequest": {"Key": self._key()}}
            for _ in range(self._random.choice((1, 2, 3)))
        ]
        return "BatchWriteItem", {"RequestItems": {self._table: requests}}

    def _key(self) -> Item:
        pick = self._random.choice
        key = {"pk": {"S": pick(self._partitions)}, "sk": {"S": pick(SORTS)}}
        if self._random.random() < 0.02:
            key |= pick(({"sk": {"S": "x" * 1025}}, {"pk": {"S": ""}}, {"sk": {"N": "1"}}))
        return key

    def _right_item(self) -> Item:
        random = self._random
        item = self._key()
        if random.random() < 0.7:
            item["n"] = {"N": str(random.choice((0, 1, 7, 49, 50, 100, 12_345, 10**12, 123_000)))}
        if random.random() < 0.5:
            item["text"] = {"S": "é" * random.choice((0, 1, 500, 1_000, 5_000))}
        if random.random() < 0.3:
            item["bytes"] = {"B": bytes(random.choice((1, 2_000)))}
        if random.random() < 0.3:
            item["closed"] = {"BOOL": True}
        if random.random() < 0.5:
            # Ties come in any order, and an owner without a time counts strangely there.
            item["updated_at"] = {"N": str(random.randrange(10**9))}
            if random.random() < 0.7:
                item["owner"] = {"S": self._owner}
        return item

    def _item(self) -> Item:
        random = self._random
        item = self._right_item()
        if random.random() < 0.02:
            item |= random.choice(
                (
                    {"text": {"S": "x" * 410_000}},
                    {"owner": {"S": ""}},
                    {"owner": {"N": "1"}},
                    {"updated_at": {"S": "1"}},
                )
            )
        return item

    def _condition(self) -> Params:
        random = self._random
        if random.random() < 0.3:
            return {}
        text = random.choice(CONDITIONS)
        return self._filled({"ConditionExpression": text}, text)

    def _change(self) -> Params:
        random = self._random
        text = random.choice(UPDATES)
        params = self._condition() if random.random() < 0.7 else {}
        condition = params.get("ConditionExpression", "")
        return params | self._filled({"UpdateExpression": text} | params, f"{condition} {text}")

    def _filled(self, params: Params, text: str) -> Params:
        random = self._random
        names = {f"#{name}": name for name in ("pk", "n", "owner", "updated_at", "text")}
        values = {
            ":n": {"N": str(random.choice((0, 1, 49, 50, 51)))},
            ":owner": {"S": random.choice((self._owner, "somebody else"))},
            ":updated_at": {"N": str(random.randrange(10**9))},
            ":text": {"S": "x" * random.choice((1, 3_000))},
        }
        params["ExpressionAttributeNames"] = {k: v for k, v in names.items() if _has(text, k)}
        if used := {name: value for name, value in values.items() if _has(text, name)}:
            params["ExpressionAttributeValues"] = used
        if random.random() < 0.7 and "ConditionExpression" in params:
            params["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return params


def _has(text: str, placeholder: str) -> bool:
    return placeholder in text.replace("(", " ").replace(")", " ").replace(",", " ").split()


SORTS = ("b#1", "b#2", "m#", "m#1", "m#2", "m#3", "é", "~head")
CONDITIONS = (
    "attribute_not_exists(#pk)",
    "attribute_exists(#pk)",
    "attribute_not_exists(#pk) OR #n < :n",
    "attribute_not_exists(#pk) OR #n <> :n",
    "#n = :n AND attribute_exists(#owner)",
    "#n = :n AND attribute_not_exists(#owner) OR #owner = :owner",
    "#n = :n AND (attribute_not_exists(#owner) OR #owner = :owner)",
    "#owner < :owner",
    "#n < :owner",
)
UPDATES = (
    "SET #n = :n",
    "SET #n = :n REMOVE #owner",
    "SET #owner = :owner, #updated_at = :updated_at",
    "SET #updated_at = :updated_at",
    "SET #text = :text",
    "REMOVE #text, #owner",
)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_calls_are_answered_alike(client: "DynamoDBClient", table: str, seed: int) -> None:
    both, calls = Both(client, table), Calls(seed, table)
    for _ in range(CALLS):
        with suppress(CallFailed):
            both.perform(calls.next())
    assert both.replies > CALLS / 4
    assert both.refusals


def test_pages_end_at_a_megabyte_alike(client: "DynamoDBClient", table: str) -> None:
    both = Both(client, table)
    for n in range(6):
        item = {"pk": {"S": "large"}, "sk": {"S": str(n)}, "text": {"S": "x" * 300_000}}
        both.perform(Call("PutItem", {"TableName": table, "Item": item}))
    params: Params = {
        "TableName": table,
        "KeyConditionExpression": "#pk = :pk",
        "ExpressionAttributeNames": {"#pk": "pk"},
        "ExpressionAttributeValues": {":pk": {"S": "large"}},
        "ReturnConsumedCapacity": "INDEXES",
    }
    for forward in (True, False):
        reply = both.perform(Call("Query", params | {"ScanIndexForward": forward}))
        start = {"ExclusiveStartKey": reply["LastEvaluatedKey"], "ScanIndexForward": forward}
        assert "LastEvaluatedKey" not in both.perform(Call("Query", params | start))


def test_a_scan_goes_through_a_partition_in_its_order_and_ends_alike(
    client: "DynamoDBClient",
) -> None:
    name = f"test-{new_id()}"
    create_table(client, name)
    both = Both(client, name)
    keys = [{"pk": {"S": "only"}, "sk": {"S": str(n)}} for n in range(5)]
    for key in keys:
        both.perform(Call("PutItem", {"TableName": name, "Item": key | {"n": {"N": "1"}}}))
    for limit in (1, 4, 5, 6):
        params: Params = {
            "TableName": name,
            "Limit": limit,
            "ProjectionExpression": "#pk, #sk",
            "ExpressionAttributeNames": {"#pk": "pk", "#sk": "sk"},
            "ConsistentRead": True,
            "ReturnConsumedCapacity": "INDEXES",
        }
        seen: list[Item] = []
        while True:
            reply = both.perform(Call("Scan", params))
            seen += reply["Items"]
            if "LastEvaluatedKey" not in reply:
                break
            params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]
        assert seen == keys
    client.delete_table(TableName=name)


def test_an_update_answers_with_the_new_item_alike(client: "DynamoDBClient", table: str) -> None:
    both = Both(client, table)
    params = {
        "TableName": table,
        "Key": {"pk": {"S": "updated"}, "sk": {"S": "1"}},
        "UpdateExpression": "SET #n = :n",
        "ExpressionAttributeNames": {"#n": "n"},
        "ExpressionAttributeValues": {":n": {"N": "7"}},
        "ReturnValues": "ALL_NEW",
    }
    assert both.perform(Call("UpdateItem", params))["Attributes"]["n"] == {"N": "7"}


@pytest.mark.parametrize("seed", range(0, 2_000, 200))
def test_a_whole_schedule_goes_alike(client: "DynamoDBClient", seed: int) -> None:
    name = SimulatedTable().name
    create_table(client, name)
    try:
        both = Both(client, name)
        with small_limits():
            assert play_through(drawn(seed, table=both)) is None
    finally:
        client.delete_table(TableName=name)
    assert both.replies > 10


@pytest.mark.parametrize("condition", ["size(#n) = :n", "#n > :n", "n = :n", "#n = #n", "", "#n"])
def test_what_the_simulation_does_not_know_it_refuses(condition: str) -> None:
    params = {
        "TableName": "simulated",
        "Key": {"pk": {"S": "1"}, "sk": {"S": "1"}},
        "ConditionExpression": condition,
        "ExpressionAttributeNames": {"#n": "n"},
        "ExpressionAttributeValues": {":n": {"N": "7"}},
    }
    with pytest.raises(Unknown):
        SimulatedTable().perform(Call("DeleteItem", params))


def test_ttl_deletes_only_what_is_overdue() -> None:
    table = SimulatedTable()
    for sk, stamp in (("due", 100), ("later", 200), ("never", None)):
        item: Item = {"pk": {"S": "1"}, "sk": {"S": sk}}
        if stamp is not None:
            item["expires_at"] = {"N": str(stamp)}
        table.perform(Call("PutItem", {"TableName": "simulated", "Item": item}))
    assert table.overdue(150) == [("1", "due")]
    for sk in ("due", "later", "never"):
        table.reap(("1", sk), 150)
    assert [item["sk"]["S"] for item in table.items()] == ["later", "never"]
