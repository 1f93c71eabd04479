"""Durable, ordered memory for AI applications, on DynamoDB or one SQLite file."""
