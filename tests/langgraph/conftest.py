"""Fixtures: stores of each kind, sync and async, for LangGraph's runtime on them."""

from tests.langchain.conftest import anyio_backend, async_store, log_table, run_page, store, url
from tests.langgraph.memory import async_entry_store, entry_store
from tests.stores.dynamodb.conftest import aws_environment, client, clock

__all__ = [
    "anyio_backend",
    "async_entry_store",
    "async_store",
    "aws_environment",
    "client",
    "clock",
    "entry_store",
    "log_table",
    "run_page",
    "store",
    "url",
]
