"""LangGraph's own conformance suite, which reports each capability by name."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate

from chatledger import open_async_store, open_store
from chatledger.langgraph import ChatledgerSaver

CAPABILITIES = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
"""The number of tests of each capability in version 0.0.2."""


@pytest.mark.anyio
@pytest.mark.parametrize("is_async", [True, False], ids=["async store", "sync store"])
async def test_the_saver_has_every_capability_and_passes_every_test(
    url: str, is_async: bool, tmp_path: Path
) -> None:
    @checkpointer_test(name="ChatledgerSaver")
    async def saver() -> AsyncIterator[ChatledgerSaver]:
        if is_async:
            async with open_async_store(url) as store:
                yield ChatledgerSaver(store)
        else:
            with open_store(url) as store:
                yield ChatledgerSaver(store)

    report = await validate(saver)
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert failures == []
    assert all(result.detected for result in report.results.values())
    passed = {name: result.tests_passed for name, result in report.results.items()}
    assert passed == CAPABILITIES
