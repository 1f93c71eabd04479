"""Find the items of a query, in a partition of the table or of its index."""

from collections.abc import Iterable

from chatledger.stores.dynamodb.calls import Item
from tests.simulation.expressions import KeyCondition, Unsupported
from tests.simulation.items import Index, Items
from tests.simulation.parameters import Params, key_from_param, placeholders, validation_error


def query_table(
    items: Items, params: Params, condition: KeyCondition, age: int = 0
) -> tuple[Iterable[Item], str | None]:
    """Return the items in order, and the sort key at which the query ends, if there is one.

    They are as they were before the last ``age`` changes of the partition.
    """
    names, values = placeholders(params)
    name, value = condition.partition
    if names[name] != "pk":
        raise validation_error("Query condition missed key schema element: pk")
    pk, low, high = values[value]["S"], None, None
    if condition.between is not None:
        name, low_value, high_value = condition.between
        if names[name] != "sk":
            raise validation_error("Query condition missed key schema element: sk")
        low, high = values[low_value]["S"], values[high_value]["S"]
        if low > high:
            raise validation_error("The BETWEEN operator requires upper bound >= lower bound")
    forward = params.get("ScanIndexForward", True)
    end = high if forward else low
    after = None
    if "ExclusiveStartKey" in params:
        start_pk, after = key_from_param(params["ExclusiveStartKey"])
        is_outside = (low and after < low) or (high and after > high) or after == end
        if start_pk != pk or is_outside:
            raise validation_error("The provided starting key does not match the key predicate")
    if age and low is not None and high is not None:
        stale = items.in_stale_partition(pk, low, high, after=after, forward=forward, age=age)
        return stale, end
    return items.in_partition(pk, low, high, after=after, forward=forward), end


def query_index(
    items: Items, index: Index, params: Params, condition: KeyCondition
) -> Iterable[Item]:
    """Return the items in order."""
    names, values = placeholders(params)
    name, value = condition.partition
    if params["IndexName"] != index.name:
        raise validation_error(f"The table does not have the index {params['IndexName']}")
    if condition.between is not None or names[name] != index.partition:
        raise Unsupported("a query of the index by more than its partition key")
    if params.get("ConsistentRead"):
        raise validation_error("Consistent reads are not supported on global secondary indexes")
    found = items.in_index(values[value]["S"])
    forward = params.get("ScanIndexForward", True)
    start = params.get("ExclusiveStartKey")
    if start is not None:
        if start.keys() != {"pk", "sk", index.partition, index.sort}:
            raise validation_error("The provided starting key is invalid")
        if start[index.partition] != values[value]:
            raise validation_error("The provided starting key is outside query boundaries")
        start_key = index.sort_key(start)
        found = [item for item in found if (index.sort_key(item) > start_key) is forward]
        found = [item for item in found if index.sort_key(item) != start_key]
    return found if forward else found[::-1]
