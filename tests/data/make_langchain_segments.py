"""The script that made ``langchain-segments.json`` with the last version that continued histories
in segments: ``python -m tests.data.make_langchain_segments FILE``.

Do not run it again: the file is what a user of that version may have, and every later version must
read it.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from langchain_core.messages import HumanMessage

from chatledger.langchain import DynamoDBChatMessageHistory, dropin
from chatledger.langchain.connections import shared_client
from chatledger.testing.dynamodb_local import KEY, REGION, DynamoDBLocal
from tests.langchain.community_history import community_history

MADE = 1_780_000_000  # in May 2026
LONG_LIFETIME = 10**9  # 30 years


class Died(BaseException):
    pass


def write(table: str, session: boto3.Session, endpoint: str, names: tuple[str, ...]) -> None:
    now = float(MADE)
    made = dropin.HistoryTable  # type: ignore[attr-defined]
    dropin.HistoryTable = partial(made, clock=lambda: now)  # type: ignore[attr-defined]
    connection: dict[str, Any] = {"endpoint_url": endpoint, "boto3_session": session}
    events = shared_client(session, endpoint).meta.events

    def key(session_id: str) -> dict[str, str]:
        if len(names) == 1:
            return {"SessionId": session_id}
        return {"PK": "user#bob", "SK": f"session#{session_id}"}

    def open(session_id: str, **options: Any) -> DynamoDBChatMessageHistory:
        options = {"segment_bytes": 1_024} | options
        return DynamoDBChatMessageHistory(
            table, session_id, key=key(session_id), **connection, **options
        )

    def add(session_id: str, first: int, last: int, **options: Any) -> None:
        for n in range(first, last):
            open(session_id, **options).add_messages([HumanMessage(f"{n}".ljust(200), id=f"{n}")])

    def die(operation: str, text: str, session_id: str, act: Any) -> None:
        def fail(params: dict[str, Any], **_: object) -> None:
            if text in str(params["body"]):
                raise Died

        events.register(f"before-call.dynamodb.{operation}", fail)
        try:
            act()
        except Died:
            return
        finally:
            events.unregister(f"before-call.dynamodb.{operation}", fail)
        raise AssertionError(f"{session_id} did not die")

    add("one", 0, 2)
    add("long", 0, 9)
    add("forever", 0, 9, ttl=LONG_LIFETIME)
    add("expired", 0, 9, ttl=60)
    # The old class adds a message, which is read before those of the segments.
    add("both", 1, 9)
    old: Any = community_history(table, "both", key=key("both"), **connection)
    old.add_messages([HumanMessage("0", id="0")])
    # A clear that was interrupted, and the messages of the next history.
    add("cleared", 0, 9)
    die("BatchWriteItem", "", "cleared", lambda: open("cleared").clear())
    add("begun", 0, 9)
    die("BatchWriteItem", "", "begun", lambda: open("begun").clear())
    item_key = {name: {"S": value} for name, value in key("begun").items()}
    shared_client(session, endpoint).update_item(
        TableName=table,
        Key=item_key,
        UpdateExpression="SET History = list_append(History, :new)",
        ExpressionAttributeValues={
            ":new": {
                "L": [
                    {
                        "M": {
                            "type": {"S": "human"},
                            "data": {"M": {"content": {"S": "new"}, "id": {"S": "new"}}},
                        }
                    }
                ]
            }
        },
    )
    # A writer that died after it closed the last segment.
    add("closed", 0, 9)
    die("PutItem", "", "closed", lambda: add("closed", 9, 12))
    dropin.HistoryTable = made  # type: ignore[attr-defined]


def main(path: Path) -> None:
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name=REGION)
    made: dict[str, list[Any]] = {}
    with DynamoDBLocal() as local:
        client: Any = session.client("dynamodb", endpoint_url=local.endpoint)
        for names in (("SessionId",), ("PK", "SK")):
            table = f"histories-{len(names)}"
            client.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[
                    {"AttributeName": name, "KeyType": kind}
                    for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
                ],
                AttributeDefinitions=[
                    {"AttributeName": name, "AttributeType": "S"} for name in names
                ],
            )
            write(table, session, local.endpoint, names)
            made[" ".join(names)] = client.scan(TableName=table)["Items"]
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
