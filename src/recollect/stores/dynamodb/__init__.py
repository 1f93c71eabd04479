"""Conversations in a DynamoDB table."""

from recollect.stores.dynamodb.store import DynamoDBStore

__all__ = ["DynamoDBStore"]
