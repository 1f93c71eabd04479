"""Hand-written code for the work of the DynamoDB stores: boto3, json and zlib, without any checks.

Like Chatledger, it makes the same requests with the same conditions and item sizes, and caches each
conversation's last record: the code that a careful programmer would write for one application.
Messages are dicts, and times are text.
"""

import json
import uuid
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]


class DynamoDBByHand:
    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table
        self._last_records: dict[str, Item] = {}

    def append(
        self, conversation_id: str, role: str, text: str, *, owner: str, reply_follows: bool = False
    ) -> int:
        last = (
            self._last_records.get(conversation_id) or self._head_and_records(conversation_id, 1)[1]
        )
        if last["o"]["S"] != owner:
            raise LookupError(conversation_id)
        now = datetime.now(UTC)
        message = {
            "role": role,
            "content": text,
            "id": str(uuid.uuid4()),
            "created_at": now.isoformat(timespec="milliseconds"),
        }
        body = json.dumps([message], ensure_ascii=False, separators=(",", ":"))
        seq = int(last["sk"]["S"][2:]) + 1
        item: Item = {
            "pk": {"S": f"c#{conversation_id}"},
            "sk": {"S": f"m#{seq:016d}"},
            "v": {"N": "1"},
            "k": {"S": str(uuid.uuid4())},
            "l": last["l"],
            "c": last["c"],
            "u": {"N": str(int(now.timestamp() * 1000))},
            "a": {"N": str(seq - 1)},
            "n": {"N": "1"},
            "q": {"N": str(int(last["q"]["N"]) + 1)},
            "o": {"S": owner},
            "b": {"B": zlib.compress(body.encode())},
        }
        self._client.put_item(
            TableName=self._table,
            Item=item,
            ConditionExpression="attribute_not_exists(#pk)",
            ExpressionAttributeNames={"#pk": "pk"},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
        self._last_records[conversation_id] = item
        if not reply_follows:
            self._update_head(item, seq)
        return seq

    def tail(
        self, conversation_id: str, n: int, *, owner: str
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        head, *records = self._head_and_records(conversation_id, n)
        if records[0]["o"]["S"] != owner:
            raise LookupError(conversation_id)
        messages: list[dict[str, Any]] = []
        for record in reversed(records):
            bodies = json.loads(zlib.decompress(record["b"]["B"]))
            first = int(record["sk"]["S"][2:])
            messages += [{"seq": seq} | body for seq, body in enumerate(bodies, first)]
        return head, messages[-n:]

    def _update_head(self, item: Item, seq: int) -> None:
        self._client.update_item(
            TableName=self._table,
            Key={"pk": item["pk"], "sk": {"S": "~head"}},
            UpdateExpression=(
                "SET #v = :v_, #life = :life_, #owner = :owner_, #created_at = :created_at_,"
                " #updated_at = :updated_at_, #message_count = :message_count_,"
                " #revision = :revision_ REMOVE #expiry, #expires_at"
            ),
            ConditionExpression=(
                "#revision < :revision_ AND #life = :life_ AND #created_at = :created_at_"
            ),
            ExpressionAttributeNames={
                "#revision": "revision",
                "#life": "life",
                "#created_at": "created_at",
                "#v": "v",
                "#owner": "owner",
                "#updated_at": "updated_at",
                "#message_count": "message_count",
                "#expiry": "expiry",
                "#expires_at": "expires_at",
            },
            ExpressionAttributeValues={
                ":v_": item["v"],
                ":life_": item["l"],
                ":owner_": item["o"],
                ":created_at_": item["c"],
                ":updated_at_": item["u"],
                ":message_count_": item["q"],
                ":revision_": {"N": str(seq)},
            },
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    def _head_and_records(self, conversation_id: str, n: int) -> list[Item]:
        """Return the head, then the last records, newest first."""
        return self._client.query(
            TableName=self._table,
            KeyConditionExpression="#pk = :pk AND #sk BETWEEN :low AND :high",
            ExpressionAttributeNames={"#pk": "pk", "#sk": "sk"},
            ExpressionAttributeValues={
                ":pk": {"S": f"c#{conversation_id}"},
                ":low": {"S": "m#"},
                ":high": {"S": "~head"},
            },
            ConsistentRead=True,
            ScanIndexForward=False,
            Limit=n + 1,
        )["Items"]
