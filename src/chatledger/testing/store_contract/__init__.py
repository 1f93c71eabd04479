"""The contract suite: tests of every promise that a store makes, for any store.

The tests use nothing of a store but ``chatledger.stores.contract``. Subclass them in a test file of
your own, with one fixture each::

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

The tests need the packages of the extra ``testing``.
"""

from pkgutil import iter_modules

import pytest

# By default, pytest explains failed asserts in test files only; it must be told of other modules
# before they are imported.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from chatledger.testing.store_contract.clock import Clock  # noqa: E402
from chatledger.testing.store_contract.contracts import AsyncStoreContract, StoreContract  # noqa: E402
from chatledger.testing.store_contract.processes import ProcessesContract  # noqa: E402

__all__ = ["AsyncStoreContract", "Clock", "ProcessesContract", "StoreContract"]
