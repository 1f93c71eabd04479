"""The tables of the template, as CloudFormation makes them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.serverless.gateway import SERVERLESS

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Fields = dict[str, Any]

RESOURCES: Fields = json.loads((SERVERLESS / "resources.json").read_text())
"""What is merged into Chalice's own template."""


def of_type(template: Fields, kind: str) -> dict[str, Fields]:
    return {
        name: each
        for name, each in template["Resources"].items()
        if each.get("Type") == f"AWS::{kind}"
    }


def table_of(template: Fields, stage: str) -> Fields:
    """The one that CloudFormation makes where its parameter Stage says so."""
    (table,) = [
        each
        for each in of_type(template, "DynamoDB::Table").values()
        if template["Conditions"][each["Condition"]] == {"Fn::Equals": [{"Ref": "Stage"}, stage]}
    ]
    return table


@contextmanager
def made(client: "DynamoDBClient", table: Fields, *, ttl: bool) -> Iterator[str]:
    """The table of a template, as CloudFormation makes it, by a name of the test's own."""
    name = f"{table['Properties']['TableName']}-{uuid4()}"
    wanted = table["Properties"] | {"TableName": name, "DeletionProtectionEnabled": False}
    expiry = wanted.pop("TimeToLiveSpecification")
    wanted.pop("PointInTimeRecoverySpecification")
    client.create_table(**wanted)
    if ttl:
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=expiry)
    yield name
    client.delete_table(TableName=name)
