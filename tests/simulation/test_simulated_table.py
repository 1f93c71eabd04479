"""The simulated table answers as DynamoDB Local does."""

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from chatledger.stores.dynamodb import create_table
from chatledger.stores.dynamodb.calls import Call, CallFailed, Item
from chatledger.stores.dynamodb.errors import failure_from_error
from chatledger.testing.dynamodb_local import DynamoDBLocal
from chatledger.values import new_id
from tests.simulation import SimulatedTable, Unsupported
from tests.simulation.items import Key
from tests.simulation.limits import simulation_settings
from tests.simulation.schedules import draw_schedule, run_and_check

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


class ComparedTables:
    """A table of DynamoDB Local and a simulated one, which must answer each call alike."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self.name = table
        self.page_items: int | None = None
        self._client = client
        self._simulated = SimulatedTable(table)
        self.replies = 0
        self.errors: list[str] = []

    def perform(self, call: Call) -> Any:
        real, simulated = self._perform_really(call), self._simulate(call)
        assert _comparable(call, simulated) == _comparable(call, real), call
        if isinstance(real, CallFailed):
            self.errors.append(real.code)
            raise real
        self.replies += 1
        if "ReturnConsumedCapacity" in call.params:
            _compare_units(call, simulated, real)
        return real

    def overdue_keys(self, time: int) -> list[Key]:
        return self._simulated.overdue_keys(time)

    def delete_overdue(self, key: Key, time: int) -> None:
        pk, sk = key
        self._client.delete_item(TableName=self.name, Key={"pk": {"S": pk}, "sk": {"S": sk}})
        self._simulated.delete_overdue(key, time)

    def items(self) -> Iterator[Item]:
        return self._simulated.items()

    # DynamoDB Local shows every change at once, and so must the other table here.

    def delay_index(self, *, delay: bool) -> None:
        pass

    def update_index(self, number: int | None = None) -> None:
        pass

    def commit(self) -> None:
        pass

    def keep_changes(self) -> None:
        pass

    def _simulate(self, call: Call) -> Any:
        try:
            return self._simulated.perform(call)
        except CallFailed as failed:
            return failed

    def _perform_really(self, call: Call) -> Any:
        operation = "".join(f"_{c.lower()}" if c.isupper() else c for c in call.operation)[1:]
        try:
            return getattr(self._client, operation)(**call.params)
        except self._client.exceptions.ClientError as error:
            return failure_from_error(error, call.operation, single_attempt=True)


def _comparable(call: Call, reply: Any) -> Any:
    """Return the parts of a reply or an error that must be the same."""
    if isinstance(reply, CallFailed):
        return reply.code, reply.item, reply.reasons
    ignored = ("ResponseMetadata", "ConsumedCapacity", "ItemCollectionMetrics")
    compared = {name: value for name, value in reply.items() if name not in ignored}
    if call.operation == "Scan":
        # DynamoDB scans partitions in an order of its own; within one, the order is defined.
        compared["Items"] = sorted(compared["Items"], key=lambda item: str(item["pk"]["S"]))
    return compared


def _compare_units(call: Call, simulated_reply: Any, real_reply: Any) -> None:
    simulated, real = _units(simulated_reply), _units(real_reply)
    match call.operation:
        case "GetItem" | "Query" | "Scan" if not any(real.values()):
            # Reading nothing costs the minimum, but DynamoDB Local reports zero.
            assert sum(simulated.values()) in (0.5, 1), call
        case "TransactWriteItems":
            # DynamoDB Local reports twice the units, and counts parts of the same size once.
            assert sum(real.values()) <= 2 * sum(simulated.values()), call
            [part, *others] = call.params["TransactItems"]
            if not others and ("Put" in part or "Update" in part):
                assert {name: units / 2 for name, units in real.items()} == simulated, call
        case "BatchWriteItem" if "DeleteRequest" in str(call.params):
            # DynamoDB Local takes two units for deleting an item that does not exist.
            assert simulated["table"] <= real["table"], call
        case _:
            assert simulated == real, call


def _units(reply: Any) -> dict[str, float]:
    """Return the capacity units that a reply reports, of the table and of the index."""
    consumed = reply.get("ConsumedCapacity", [])
    found: dict[str, float] = {}
    for entry in consumed if isinstance(consumed, list) else [consumed]:
        found["table"] = found.get("table", 0) + entry.get("Table", {}).get("CapacityUnits", 0)
        for index in entry.get("GlobalSecondaryIndexes", {}).values():
            found["index"] = found.get("index", 0) + index["CapacityUnits"]
    return found


class RandomCalls:
    """Random calls on a few keys, most of which do something."""

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
        # Only valid parts on different items: DynamoDB Local reports other errors of its own.
        keys = random.sample([(pk, sk) for pk in self._partitions for sk in SORTS], 3)
        parts: list[Params] = []
        for pk, sk in keys[: random.choice((1, 2, 3))]:
            key = {"pk": {"S": pk}, "sk": {"S": sk}}
            common = {"TableName": self._table}
            condition = self._condition()
            match random.choice(("Put", "Update", "Delete", "ConditionCheck")):
                case "Put":
                    parts.append({"Put": common | condition | {"Item": self._valid_item() | key}})
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

    def _valid_item(self) -> Item:
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
            # Few ties, whose order is undefined; and an owner only together with a time, because
            # DynamoDB Local counts units differently without.
            item["updated_at"] = {"N": str(random.randrange(10**9))}
            if random.random() < 0.7:
                item["owner"] = {"S": self._owner}
        return item

    def _item(self) -> Item:
        random = self._random
        item = self._valid_item()
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
        return self._with_placeholders({"ConditionExpression": text}, text)

    def _change(self) -> Params:
        random = self._random
        text = random.choice(UPDATES)
        params = self._condition() if random.random() < 0.7 else {}
        condition = params.get("ConditionExpression", "")
        return params | self._with_placeholders(
            {"UpdateExpression": text} | params, f"{condition} {text}"
        )

    def _with_placeholders(self, params: Params, text: str) -> Params:
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
    "attribute_not_exists(#n) OR #n > :n",
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
def test_both_answer_random_calls_alike(client: "DynamoDBClient", table: str, seed: int) -> None:
    tables, calls = ComparedTables(client, table), RandomCalls(seed, table)
    for _ in range(CALLS):
        with suppress(CallFailed):
            tables.perform(calls.next())
    assert tables.replies > CALLS / 4
    assert tables.errors


def test_both_end_pages_at_a_megabyte(client: "DynamoDBClient", table: str) -> None:
    tables = ComparedTables(client, table)
    for n in range(6):
        item = {"pk": {"S": "large"}, "sk": {"S": str(n)}, "text": {"S": "x" * 300_000}}
        tables.perform(Call("PutItem", {"TableName": table, "Item": item}))
    params: Params = {
        "TableName": table,
        "KeyConditionExpression": "#pk = :pk",
        "ExpressionAttributeNames": {"#pk": "pk"},
        "ExpressionAttributeValues": {":pk": {"S": "large"}},
        "ReturnConsumedCapacity": "INDEXES",
    }
    for forward in (True, False):
        reply = tables.perform(Call("Query", params | {"ScanIndexForward": forward}))
        start = {"ExclusiveStartKey": reply["LastEvaluatedKey"], "ScanIndexForward": forward}
        assert "LastEvaluatedKey" not in tables.perform(Call("Query", params | start))


def test_both_scan_a_partition_in_order_and_to_the_same_end(client: "DynamoDBClient") -> None:
    name = f"test-{new_id()}"
    create_table(client, name)
    tables = ComparedTables(client, name)
    keys = [{"pk": {"S": "only"}, "sk": {"S": str(n)}} for n in range(5)]
    for key in keys:
        tables.perform(Call("PutItem", {"TableName": name, "Item": key | {"n": {"N": "1"}}}))
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
            reply = tables.perform(Call("Scan", params))
            seen += reply["Items"]
            if "LastEvaluatedKey" not in reply:
                break
            params["ExclusiveStartKey"] = reply["LastEvaluatedKey"]
        assert seen == keys
    client.delete_table(TableName=name)


def test_both_answer_an_update_with_the_new_item(client: "DynamoDBClient", table: str) -> None:
    tables = ComparedTables(client, table)
    params = {
        "TableName": table,
        "Key": {"pk": {"S": "updated"}, "sk": {"S": "1"}},
        "UpdateExpression": "SET #n = :n",
        "ExpressionAttributeNames": {"#n": "n"},
        "ExpressionAttributeValues": {":n": {"N": "7"}},
        "ReturnValues": "ALL_NEW",
    }
    assert tables.perform(Call("UpdateItem", params))["Attributes"]["n"] == {"N": "7"}


@pytest.mark.parametrize("seed", range(0, 2_000, 200))
def test_both_run_a_whole_schedule_alike(client: "DynamoDBClient", seed: int) -> None:
    name = SimulatedTable().name
    create_table(client, name)
    try:
        tables = ComparedTables(client, name)
        with simulation_settings():
            assert run_and_check(draw_schedule(seed, table=tables)) is None
    finally:
        client.delete_table(TableName=name)
    assert tables.replies > 10


@pytest.mark.parametrize("condition", ["size(#n) = :n", "#n >= :n", "n = :n", "#n = #n", "", "#n"])
def test_the_simulation_refuses_expressions_it_does_not_support(condition: str) -> None:
    params = {
        "TableName": "simulated",
        "Key": {"pk": {"S": "1"}, "sk": {"S": "1"}},
        "ConditionExpression": condition,
        "ExpressionAttributeNames": {"#n": "n"},
        "ExpressionAttributeValues": {":n": {"N": "7"}},
    }
    with pytest.raises(Unsupported):
        SimulatedTable().perform(Call("DeleteItem", params))


def test_ttl_deletes_only_overdue_items() -> None:
    table = SimulatedTable()
    for sk, ttl in (("due", 100), ("later", 200), ("never", None)):
        item: Item = {"pk": {"S": "1"}, "sk": {"S": sk}}
        if ttl is not None:
            item["expires_at"] = {"N": str(ttl)}
        table.perform(Call("PutItem", {"TableName": "simulated", "Item": item}))
    assert table.overdue_keys(150) == [("1", "due")]
    for sk in ("due", "later", "never"):
        table.delete_overdue(("1", sk), 150)
    assert [item["sk"]["S"] for item in table.items()] == ["later", "never"]


def put(table: SimulatedTable, sk: str, **attributes: str) -> None:
    item = {name: {"S": value} for name, value in {"pk": "1", "sk": sk, **attributes}.items()}
    table.perform(Call("PutItem", {"TableName": "simulated", "Item": item | {"t": {"N": "1"}}}))


def sort_keys(table: SimulatedTable, *, consistent: bool = True) -> list[str]:
    params = {
        "TableName": "simulated",
        "KeyConditionExpression": "#pk = :pk AND #sk BETWEEN :low AND :high",
        "ExpressionAttributeNames": {"#pk": "pk", "#sk": "sk"},
        "ExpressionAttributeValues": {":pk": {"S": "1"}, ":low": {"S": "a"}, ":high": {"S": "z"}},
        "ConsistentRead": consistent,
    }
    return [item["sk"]["S"] for item in table.perform(Call("Query", params))["Items"]]


def test_queries_see_a_transaction_in_part_until_it_is_committed() -> None:
    table = SimulatedTable(choose_hidden=lambda keys: keys[:1])
    parts = [
        {
            "Put": {
                "TableName": "simulated",
                "Item": {"pk": {"S": "1"}, "sk": {"S": sk}},
                "ConditionExpression": "attribute_not_exists(#pk)",
                "ExpressionAttributeNames": {"#pk": "pk"},
            }
        }
        for sk in ("a", "b")
    ]
    table.perform(Call("TransactWriteItems", {"TransactItems": parts}))
    assert sort_keys(table) == ["b"]
    table.commit()
    assert sort_keys(table) == ["a", "b"]


def test_a_call_of_an_item_in_a_transaction_waits_until_it_is_committed() -> None:
    table = SimulatedTable(choose_hidden=lambda keys: keys[:1])
    writes = [
        {"Put": {"TableName": "simulated", "Item": {"pk": {"S": "1"}, "sk": {"S": sk}}}}
        for sk in ("a", "b")
    ]
    table.perform(Call("TransactWriteItems", {"TransactItems": writes}))
    get = {"TableName": "simulated", "Key": {"pk": {"S": "1"}, "sk": {"S": "a"}}}
    assert "Item" in table.perform(Call("GetItem", get))
    assert sort_keys(table) == ["a", "b"]


def test_an_eventually_consistent_query_misses_the_last_changes() -> None:
    table = SimulatedTable(choose_age=lambda: 2)
    put(table, "a")
    table.keep_changes()
    put(table, "b")
    put(table, "c")
    put(table, "d")
    assert sort_keys(table) == ["a", "b", "c", "d"]
    assert sort_keys(table, consistent=False) == ["a", "b"]
    table.keep_changes()
    assert sort_keys(table, consistent=False) == ["a", "b", "c", "d"]


def test_an_eventually_consistent_query_sees_nothing_that_is_hidden_from_consistent_ones() -> None:
    table = SimulatedTable(choose_age=lambda: 1, choose_hidden=lambda keys: keys[:1])
    put(table, "a")
    table.keep_changes()
    writes = [
        {"Put": {"TableName": "simulated", "Item": {"pk": {"S": "1"}, "sk": {"S": sk}}}}
        for sk in ("b", "c")
    ]
    table.perform(Call("TransactWriteItems", {"TransactItems": writes}))
    assert sort_keys(table) == ["a", "c"]
    assert sort_keys(table, consistent=False) == ["a"]
    table.commit()
    assert sort_keys(table, consistent=False) == ["a", "b"]


def test_the_index_lags_until_it_is_updated() -> None:
    table = SimulatedTable()
    table.delay_index(delay=True)
    for sk in ("a", "b"):
        item: Item = {"pk": {"S": "1"}, "sk": {"S": sk}}
        item |= {"owner": {"S": "ada"}, "updated_at": {"N": "1"}}
        table.perform(Call("PutItem", {"TableName": "simulated", "Item": item}))

    def listed() -> list[str]:
        params = {
            "TableName": "simulated",
            "IndexName": "by_owner",
            "KeyConditionExpression": "#owner = :owner",
            "ExpressionAttributeNames": {"#owner": "owner"},
            "ExpressionAttributeValues": {":owner": {"S": "ada"}},
        }
        return [item["sk"]["S"] for item in table.perform(Call("Query", params))["Items"]]

    assert listed() == []
    table.update_index(1)
    assert listed() == ["a"]
    table.delay_index(delay=False)
    assert listed() == ["a", "b"]
