"""The DynamoDB tables of the template."""

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
"""The resources that are merged into Chalice's own template."""


def resources_of_type(template: Fields, kind: str) -> dict[str, Fields]:
    """Return the resources of a type such as ``DynamoDB::Table``, by their logical ids."""
    return {
        name: resource
        for name, resource in template["Resources"].items()
        if resource.get("Type") == f"AWS::{kind}"
    }


def stage_table(template: Fields, stage: str) -> Fields:
    """Return the table that CloudFormation creates if its parameter Stage is ``stage``."""
    (table,) = [
        candidate
        for candidate in resources_of_type(template, "DynamoDB::Table").values()
        if template["Conditions"][candidate["Condition"]]
        == {"Fn::Equals": [{"Ref": "Stage"}, stage]}
    ]
    return table


@contextmanager
def created_table(client: "DynamoDBClient", table: Fields, *, ttl: bool) -> Iterator[str]:
    """Create a table as CloudFormation would, but under a new name, and yield that name."""
    name = f"{table['Properties']['TableName']}-{uuid4()}"
    properties = table["Properties"] | {"TableName": name, "DeletionProtectionEnabled": False}
    ttl_setting = properties.pop("TimeToLiveSpecification")
    properties.pop("PointInTimeRecoverySpecification")
    client.create_table(**properties)
    if ttl:
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=ttl_setting)
    yield name
    client.delete_table(TableName=name)
