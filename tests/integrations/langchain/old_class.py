"""What langchain-community 0.4.2's class of the same name does with an item, in its own words.

The sunset package itself brings SQLAlchemy, numpy and langchain-classic along, and warns when it is
imported. Its class reads the item with boto3's resource and hands the list to LangChain; it writes
by reading all, adding, and setting the whole list.
"""

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, messages_from_dict, messages_to_dict

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table


class OldHistory:
    """Reads and writes one history as the old class does."""

    def __init__(
        self,
        table: "Table",
        key: dict[str, Any],
        *,
        history: str = "History",
        ttl: int | None = None,
        ttl_name: str = "expireAt",
    ) -> None:
        self.table = table
        self.key = key
        self.history = history
        self.ttl = ttl
        self.ttl_name = ttl_name

    @property
    def messages(self) -> list[BaseMessage]:
        reply = self.table.get_item(Key=self.key)
        items: Any = reply["Item"][self.history] if "Item" in reply else []
        return messages_from_dict(items)

    def add_messages(self, messages: list[BaseMessage]) -> None:
        """With ``coerce_float_to_decimal=True``, without which it takes no floats."""
        kept = _coerced(messages_to_dict(self.messages) + messages_to_dict(messages))
        expression, values = f"set {self.history} = :h", {":h": kept}
        if self.ttl:
            expression += f", {self.ttl_name} = :t"
            values[":t"] = int(time.time()) + self.ttl
        self.table.update_item(
            Key=self.key, UpdateExpression=expression, ExpressionAttributeValues=values
        )

    def clear(self) -> None:
        self.table.delete_item(Key=self.key)


def _coerced(value: Any) -> Any:
    if isinstance(value, list):
        return [_coerced(each) for each in value]
    if isinstance(value, dict):
        return {name: _coerced(each) for name, each in value.items()}
    return Decimal(str(value)) if isinstance(value, float) else value
