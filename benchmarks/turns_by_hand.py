"""A hand-written turn, as in tutorials: boto3, and a write before and after the model's reply.

It saves the user's message, reads the last 20, calls the model, and saves the reply. It does no
more than that: the reply is lost if the model fails or the caller disconnects, concurrent turns mix
their messages, and there is no list of conversations and no owner.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WINDOW = 20


class History(Protocol):
    def add(self, conversation_id: str, role: str, text: str) -> None: ...

    def last(self, conversation_id: str, n: int) -> Sequence[tuple[str, str]]:
        """Return the role and text of the last messages, oldest first."""
        ...


class DynamoDBHistory:
    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table
        client.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": "conversation", "KeyType": "HASH"},
                {"AttributeName": "at", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "conversation", "AttributeType": "S"},
                {"AttributeName": "at", "AttributeType": "S"},
            ],
        )

    def add(self, conversation_id: str, role: str, text: str) -> None:
        self._client.put_item(
            TableName=self._table,
            Item={
                "conversation": {"S": conversation_id},
                "at": {"S": datetime.now(UTC).isoformat()},
                "role": {"S": role},
                "content": {"S": text},
            },
        )

    def last(self, conversation_id: str, n: int) -> list[tuple[str, str]]:
        items = self._client.query(
            TableName=self._table,
            KeyConditionExpression="conversation = :conversation",
            ExpressionAttributeValues={":conversation": {"S": conversation_id}},
            ConsistentRead=True,
            ScanIndexForward=False,
            Limit=n,
        )["Items"]
        return [(item["role"]["S"], item["content"]["S"]) for item in reversed(items)]


class SQLiteHistory:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._db:
            self._db.execute(
                "CREATE TABLE messages (conversation TEXT, n INTEGER PRIMARY KEY, role, content)"
            )
            self._db.execute("CREATE INDEX conversations ON messages (conversation, n)")

    def close(self) -> None:
        self._db.close()

    def add(self, conversation_id: str, role: str, text: str) -> None:
        with self._db:
            self._db.execute(
                "INSERT INTO messages (conversation, role, content) VALUES (?, ?, ?)",
                (conversation_id, role, text),
            )

    def last(self, conversation_id: str, n: int) -> list[tuple[str, str]]:
        rows = self._db.execute(
            "SELECT role, content FROM messages WHERE conversation = ? ORDER BY n DESC LIMIT ?",
            (conversation_id, n),
        ).fetchall()
        return rows[::-1]


def turn(
    history: History, bedrock: Any, model_id: str, conversation_id: str, text: str
) -> Iterator[str]:
    """Yield the pieces of the reply, and save the turn's messages."""
    history.add(conversation_id, "user", text)
    window = dropwhile(lambda message: message[0] != "user", history.last(conversation_id, WINDOW))
    pieces: list[str] = []
    for piece in call_model(bedrock, model_id, window):
        pieces.append(piece)
        yield piece
    history.add(conversation_id, "assistant", "".join(pieces))


def call_model(bedrock: Any, model_id: str, window: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the pieces of the model's reply, without saving it."""
    response = bedrock.converse_stream(
        modelId=model_id,
        messages=[{"role": role, "content": [{"text": text}]} for role, text in window],
    )
    for event in response["stream"]:
        if "contentBlockDelta" in event:
            yield event["contentBlockDelta"]["delta"]["text"]
