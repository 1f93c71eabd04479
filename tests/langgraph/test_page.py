"""The examples in docs/langgraph.md, run in order, and what the page says of the tests."""

from collections.abc import Callable
from pathlib import Path

from chatledger.testing.dynamodb_local import REGION, DynamoDBLocal
from tests.langgraph.graphs import chat_graph, config_of, question
from tests.langgraph.peers import dynamodb_saver, new_checkpoint_table
from tests.langgraph.test_conformance import CAPABILITIES

PAGE = Path(__file__).parents[2] / "docs" / "langgraph.md"


def test_every_example_of_the_page_runs(
    dynamodb_local: DynamoDBLocal, run_page: Callable[[str], None]
) -> None:
    client = dynamodb_local.client()
    table = new_checkpoint_table(client)
    graph = chat_graph(dynamodb_saver(table, region_name=REGION))
    for turn in range(2):
        graph.invoke({"messages": [question(turn)]}, config_of("theirs"))
    try:
        run_page(PAGE.read_text().replace('"checkpoints"', f'"{table}"'))
    finally:
        client.delete_table(TableName=table)
        client.close()


def test_the_page_names_the_conformance_tests_that_pass() -> None:
    text = PAGE.read_text()
    assert all(f"| `{name}` | {passed} |" in text for name, passed in CAPABILITIES.items())
