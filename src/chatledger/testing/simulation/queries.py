"""Which items a query finds, in a partition of the table or of its index."""

from collections.abc import Iterable

from chatledger.stores.dynamodb.calls import Item
from chatledger.testing.simulation.expressions import KeyCondition, Unknown
from chatledger.testing.simulation.items import Index, Items
from chatledger.testing.simulation.parameters import Params, invalid, key_alone, placeholders


def of_partition(
    items: Items, params: Params, wanted: KeyCondition
) -> tuple[Iterable[Item], str | None]:
    """In their order, and the sort key that nothing lies beyond, where there is one."""
    names, values = placeholders(params)
    name, value = wanted.partition
    if names[name] != "pk":
        raise invalid("Query condition missed key schema element: pk")
    pk, least, most = values[value]["S"], None, None
    if wanted.between is not None:
        name, low, high = wanted.between
        if names[name] != "sk":
            raise invalid("Query condition missed key schema element: sk")
        least, most = values[low]["S"], values[high]["S"]
        if least > most:
            raise invalid("The BETWEEN operator requires upper bound >= lower bound")
    forward = params.get("ScanIndexForward", True)
    end = most if forward else least
    behind = None
    if "ExclusiveStartKey" in params:
        start, behind = key_alone(params["ExclusiveStartKey"])
        beyond = (least and behind < least) or (most and behind > most) or behind == end
        if start != pk or beyond:
            raise invalid("The provided starting key does not match the key predicate")
    return items.within(pk, least, most, behind=behind, forward=forward), end


def of_index(items: Items, index: Index, params: Params, wanted: KeyCondition) -> Iterable[Item]:
    """In their order."""
    names, values = placeholders(params)
    name, value = wanted.partition
    if params["IndexName"] != index.name:
        raise invalid(f"The table does not have the index {params['IndexName']}")
    if wanted.between is not None or names[name] != index.partition:
        raise Unknown("a query of the index by more than its partition key")
    if params.get("ConsistentRead"):
        raise invalid("Consistent reads are not supported on global secondary indexes")
    found = items.indexed(values[value]["S"])
    forward = params.get("ScanIndexForward", True)
    start = params.get("ExclusiveStartKey")
    if start is not None:
        if start.keys() != {"pk", "sk", index.partition, index.sort}:
            raise invalid("The provided starting key is invalid")
        if start[index.partition] != values[value]:
            raise invalid("The provided starting key is outside query boundaries")
        place = index.place(start)
        found = [item for item in found if (index.place(item) > place) is forward]
        found = [item for item in found if index.place(item) != place]
    return found if forward else found[::-1]
