"""The examples in docs/langchain.md, run in order against DynamoDB Local.

The ``python`` blocks also run with the rest of the documentation. A ``py`` block needs a table, or
a warning filter that another block sets.
"""

from pathlib import Path

import boto3
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal

PAGE = Path(__file__).parents[2] / "docs" / "langchain.md"


@pytest.mark.usefixtures("aws_environment")
def test_every_example_of_the_page_runs(
    dynamodb_local: DynamoDBLocal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local.endpoint)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text().replace("```py\n", "```python\n")
    copy = tmp_path / "langchain.md"
    copy.write_text(text.replace("http://127.0.0.1:8000", dynamodb_local.endpoint))
    client = dynamodb_local.client()
    try:
        for example in Sybil(parsers=[PythonCodeBlockParser()]).parse(copy).examples():
            example.evaluate()
    finally:
        for table in {"SessionTable", "CompositeTable"} & {*client.list_tables()["TableNames"]}:
            client.delete_table(TableName=table)
        client.close()
