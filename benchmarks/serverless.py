"""A cold start of the serverless chatbot compared with a minimal Chalice application."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measurement import Elapsed, Figure, Ratio, benchmark
from chatledger.stores.dynamodb import create_table
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal

SERVERLESS = Path(__file__).parents[1] / "serverless"

START = """
import json, sys
from time import perf_counter, process_time
cpu, wall = process_time(), perf_counter()
"""
REQUEST = """
if {makes_request}:
    event = dict(
        requestContext=dict(httpMethod="POST", resourcePath="/chat"),
        headers={{"content-type": "application/json", "host": "localhost"}},
        pathParameters=None,
        multiValueQueryStringParameters=None,
        stageVariables=None,
        body=json.dumps(dict(message="Hi, I am Bob", user_id="bob")),
    )
    response = app(event, None)
    assert response["statusCode"] == 200, response
print(process_time() - cpu, perf_counter() - wall)
"""
CHATLEDGER = "from app import app\n"
MINIMAL = """
import boto3
from chalice.app import Chalice

app = Chalice(app_name="minimal")
clients = []

@app.route("/chat", methods=["POST"])
def chat():
    if not clients:
        clients.append(boto3.client("dynamodb", endpoint_url={endpoint!r}))
    body = app.current_request.json_body
    key = dict(pk=dict(S=body["user_id"]), sk=dict(S="minimal"))
    clients[0].get_item(TableName={table!r}, Key=key, ConsistentRead=True)
    item = dict(key, messages=dict(S=body["message"]))
    clients[0].put_item(TableName={table!r}, Item=item)
    return dict(response="Hello", conversation_id="minimal")
"""


@benchmark("Serverless: cold start", rounds=15)
def cold_start(folder: Path) -> Iterator[Sequence[Figure]]:
    """Start each application in a new process, which has not imported anything."""
    with DynamoDBLocal() as local:
        client = local.client()
        create_table(client, "conversations")
        client.close()
        environment = dict(os.environ)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # measure with compiled modules
        environment |= {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": REGION,
            "CHATLEDGER_STORE": f"dynamodb://conversations?endpoint={local.endpoint}",
            "CHATLEDGER_OFFLINE_PACE": "0",
            "CHATLEDGER_TURNS_A_MINUTE": "off",
        }
        minimal = MINIMAL.format(endpoint=local.endpoint, table="conversations")

        def start(program: str, *, makes_request: bool) -> Elapsed:
            completed = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    START + program + REQUEST.format(makes_request=makes_request),
                ],
                cwd=SERVERLESS,
                env=environment,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            cpu, wall = map(float, completed.stdout.split())
            return Elapsed(cpu, wall)

        yield [
            Ratio(
                "import, vs. a minimal Chalice app that imports boto3",
                lambda: start(CHATLEDGER, makes_request=False),
                lambda: start(minimal, makes_request=False),
            ),
            Ratio(
                "import and first request, vs. a minimal app that gets and puts an item",
                lambda: start(CHATLEDGER, makes_request=True),
                lambda: start(minimal, makes_request=True),
            ),
        ]
