"""How long a new container of the serverless chatbot takes, against a bare Chalice application."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measuring import Figure, Ratio, Taken, benchmark
from chatledger.stores.dynamodb import create_table
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal

SERVERLESS = Path(__file__).parents[1] / "serverless"

START = """
import json, sys
from time import perf_counter, process_time
cpu, wall = process_time(), perf_counter()
"""
REQUEST = """
if {asks}:
    event = dict(
        requestContext=dict(httpMethod="POST", resourcePath="/chat"),
        headers={{"content-type": "application/json"}},
        pathParameters=None,
        multiValueQueryStringParameters=None,
        stageVariables=None,
        body=json.dumps(dict(message="Hi, I am Bob", user_id="bob")),
    )
    answer = app(event, None)
    assert answer["statusCode"] == 200, answer
print(process_time() - cpu, perf_counter() - wall)
"""
OURS = "from app import app\n"
BARE = """
import boto3
from chalice.app import Chalice

app = Chalice(app_name="bare")
clients = []

@app.route("/chat", methods=["POST"])
def chat():
    if not clients:
        clients.append(boto3.client("dynamodb", endpoint_url={endpoint!r}))
    said = app.current_request.json_body
    key = dict(pk=dict(S=said["user_id"]), sk=dict(S="bare"))
    found = clients[0].get_item(TableName={table!r}, Key=key, ConsistentRead=True)
    item = dict(key, messages=dict(S=said["message"]))
    clients[0].put_item(TableName={table!r}, Item=item)
    return dict(response="Hello", conversation_id="bare")
"""


@benchmark("Serverless: a new container", rounds=15)
def container(folder: Path) -> Iterator[Sequence[Figure]]:
    """Each in a process of its own, which has imported nothing yet."""
    with DynamoDBLocal() as local:
        client = local.client()
        create_table(client, "conversations")
        client.close()
        environment = dict(os.environ)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what was never compiled is no measure
        environment |= {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": REGION,
            "CHATLEDGER_STORE": f"dynamodb://conversations?endpoint={local.endpoint}",
            "CHATLEDGER_OFFLINE_PACE": "0",
        }
        bare = BARE.format(endpoint=local.endpoint, table="conversations")

        def started(program: str, *, asks: bool) -> Taken:
            ran = subprocess.run(
                [sys.executable, "-c", START + program + REQUEST.format(asks=asks)],
                cwd=SERVERLESS,
                env=environment,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            cpu, wall = map(float, ran.stdout.split())
            return Taken(cpu, wall)

        yield [
            Ratio(
                "import, against a bare Chalice app that imports boto3",
                lambda: started(OURS, asks=False),
                lambda: started(bare, asks=False),
            ),
            Ratio(
                "import and first request, against a bare one that gets and puts an item",
                lambda: started(OURS, asks=True),
                lambda: started(bare, asks=True),
            ),
        ]
