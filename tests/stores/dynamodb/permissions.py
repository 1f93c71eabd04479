"""The IAM permissions that a client of DynamoDB uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TRANSACTION_ACTIONS = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"} | {
    "ConditionCheck": "ConditionCheckItem"
}


@contextmanager
def recorded_permissions(
    client: "DynamoDBClient", table_arn: str
) -> Iterator[set[tuple[str, str]]]:
    """Yield the set of actions that the client's calls need, each with its resource.

    The set grows with each call. A transaction needs the permissions of its parts.
    """
    used: set[tuple[str, str]] = set()

    def record(params: dict[str, Any], model: Any, **_: object) -> None:
        if model.name == "TransactWriteItems":
            kinds = [kind for part in params["TransactItems"] for kind in part]
            used.update((TRANSACTION_ACTIONS[kind], table_arn) for kind in kinds)
        elif "IndexName" in params:
            used.add((model.name, f"{table_arn}/index/{params['IndexName']}"))
        else:
            used.add((model.name, table_arn))

    client.meta.events.register("provide-client-params.dynamodb", record)
    try:
        yield used
    finally:
        client.meta.events.unregister("provide-client-params.dynamodb", record)
