"""The laws together, for stores and for async stores."""

from typing import ClassVar

import pytest

from chatledger.stores.contract import Store
from chatledger.testing.store_contract.appending import AppendingLaws
from chatledger.testing.store_contract.asynchronous import AsynchronousLaws
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.expiring import ExpiringLaws
from chatledger.testing.store_contract.forking import ForkingLaws
from chatledger.testing.store_contract.histories import HistoryLaws
from chatledger.testing.store_contract.keys import KeyLaws
from chatledger.testing.store_contract.listing import ListingLaws
from chatledger.testing.store_contract.moving import MovingLaws
from chatledger.testing.store_contract.naming import NamingLaws
from chatledger.testing.store_contract.ownership import OwningLaws
from chatledger.testing.store_contract.reading import ReadingLaws
from chatledger.testing.store_contract.refusing import RefusingLaws
from chatledger.testing.store_contract.removing import RemovingLaws
from chatledger.testing.store_contract.rivals import RivalLaws
from chatledger.testing.store_contract.roundtrip import KeepingLaws
from chatledger.testing.store_contract.scanning import ScanningLaws
from chatledger.testing.store_contract.starting import StartingLaws


# pytest runs the tests of the last class first: the plain ones, whose failures say the most.
class Laws(
    HistoryLaws,
    RivalLaws,
    MovingLaws,
    ScanningLaws,
    KeepingLaws,
    RefusingLaws,
    NamingLaws,
    ExpiringLaws,
    OwningLaws,
    ForkingLaws,
    RemovingLaws,
    ListingLaws,
    ReadingLaws,
    KeyLaws,
    AppendingLaws,
    StartingLaws,
):
    """Every law, of the store that the fixture ``subject`` gives."""

    examples: ClassVar[int] = 100
    """How many random histories of 40 operations are tried, and how many random messages."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()


class StoreContract(Laws):
    """The contract of ``Store``. Your fixture ``store`` gives one that is open.

    Of the store it asks that it was opened with the fixture ``clock`` as its clock, and that
    conversations live for ever where ``expires_in`` says nothing. It may be empty or not, new for
    each test or the same for all (then override ``clock`` with one that lives as long): the tests
    use ids and owners of their own, and sweep, but neither close it nor count what else is in it.

    ``examples`` is how hard the laws about random histories and random messages try; set it on
    your class, lower for a slow store, higher over night.
    """

    @pytest.fixture
    def subject(self, store: Store) -> Store:
        return store


class AsyncStoreContract(AsynchronousLaws, Laws):
    """The contract of ``AsyncStore``: that of ``Store``, and what async callers rely on.

    Your fixture ``store`` gives an async context manager of the store, not entered: each test
    enters and leaves it in an event loop (asyncio) of its own, where threads become tasks. Else it
    asks the same as ``StoreContract``.
    """
