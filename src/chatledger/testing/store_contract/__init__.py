"""What every store promises, as tests that any store can turn on with one fixture.

They know nothing of a store but ``chatledger.stores.contract``. In a test file of your own::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path, clock):
            with MyStore(tmp_path, clock=clock) as store:
                yield store

    class TestMyStoreAsync(AsyncStoreContract):
        @pytest.fixture
        def store(self, tmp_path, clock):
            return MyAsyncStore(tmp_path, clock=clock)

    class TestMyStoreProcesses(ProcessesContract):
        @pytest.fixture
        def store_url(self, tmp_path):
            return f"mystore:///{tmp_path}"

The tests need ``chatledger[testing]``.
"""

import pytest

# pytest explains the asserts of test files alone, unless it is told before these are imported.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "appending",
            "asynchronous",
            "expiring",
            "forking",
            "histories",
            "keeping",
            "keys",
            "listing",
            "lives",
            "moving",
            "naming",
            "owning",
            "processes",
            "readers",
            "reading",
            "refusing",
            "removing",
            "rivals",
            "scanning",
            "starting",
            "terms",
        )
    )
)

from chatledger.testing.store_contract.clock import Clock  # noqa: E402
from chatledger.testing.store_contract.contracts import AsyncStoreContract, StoreContract  # noqa: E402
from chatledger.testing.store_contract.processes import ProcessesContract  # noqa: E402

__all__ = ["AsyncStoreContract", "Clock", "ProcessesContract", "StoreContract"]
