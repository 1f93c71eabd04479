"""The examples in docs/langchain.md, run in order against DynamoDB Local."""

from collections.abc import Callable
from pathlib import Path

from chatledger.testing.dynamodb_local import DynamoDBLocal

PAGE = Path(__file__).parents[2] / "docs" / "langchain.md"


def test_every_example_of_the_page_runs(
    dynamodb_local: DynamoDBLocal, run_page: Callable[[str], None]
) -> None:
    client = dynamodb_local.client()
    try:
        run_page(PAGE.read_text().replace("http://127.0.0.1:8000", dynamodb_local.endpoint))
    finally:
        for table in {"SessionTable", "CompositeTable"} & {*client.list_tables()["TableNames"]}:
            client.delete_table(TableName=table)
        client.close()
