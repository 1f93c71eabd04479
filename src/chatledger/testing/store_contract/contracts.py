"""All laws together: the contracts of stores and of async stores."""

from typing import ClassVar

import pytest

from chatledger.stores.contract import Store
from chatledger.testing.store_contract.appending import AppendingLaws
from chatledger.testing.store_contract.asynchronous import AsynchronousLaws
from chatledger.testing.store_contract.beginning import BeginningLaws
from chatledger.testing.store_contract.claiming import ClaimingLaws
from chatledger.testing.store_contract.clock import Clock
from chatledger.testing.store_contract.creation_keys import CreationKeyLaws
from chatledger.testing.store_contract.entries import EntryLaws
from chatledger.testing.store_contract.entry_lives import EntryLifeLaws
from chatledger.testing.store_contract.expiring import ExpiringLaws
from chatledger.testing.store_contract.fork_keys import ForkKeyLaws
from chatledger.testing.store_contract.forking import ForkingLaws
from chatledger.testing.store_contract.invalid_arguments import InvalidArgumentLaws
from chatledger.testing.store_contract.iterating import IteratingLaws
from chatledger.testing.store_contract.keys import KeyLaws
from chatledger.testing.store_contract.lifecycle import LifecycleLaws
from chatledger.testing.store_contract.listing import ListingLaws
from chatledger.testing.store_contract.message_removal import MessageRemovalLaws
from chatledger.testing.store_contract.metadata_revisions import MetadataRevisionLaws
from chatledger.testing.store_contract.naming import NamingLaws
from chatledger.testing.store_contract.operation_rules import HistoryLaws
from chatledger.testing.store_contract.ownership import OwnershipLaws
from chatledger.testing.store_contract.readers import ReaderLaws
from chatledger.testing.store_contract.reading import ReadingLaws
from chatledger.testing.store_contract.removing import RemovingLaws
from chatledger.testing.store_contract.restoring import RestoringLaws
from chatledger.testing.store_contract.rivals import RivalLaws
from chatledger.testing.store_contract.roundtrip import RoundtripLaws
from chatledger.testing.store_contract.scanning import ScanningLaws
from chatledger.testing.store_contract.searching import SearchingLaws


# pytest runs the tests of the last base class first. The plain ones come last here, because their
# failures explain the most.
class Laws(
    HistoryLaws,
    ReaderLaws,
    RivalLaws,
    RestoringLaws,
    ForkKeyLaws,
    CreationKeyLaws,
    ClaimingLaws,
    IteratingLaws,
    ScanningLaws,
    SearchingLaws,
    RoundtripLaws,
    InvalidArgumentLaws,
    NamingLaws,
    EntryLifeLaws,
    EntryLaws,
    ExpiringLaws,
    OwnershipLaws,
    ForkingLaws,
    MessageRemovalLaws,
    RemovingLaws,
    ListingLaws,
    ReadingLaws,
    KeyLaws,
    MetadataRevisionLaws,
    BeginningLaws,
    AppendingLaws,
    LifecycleLaws,
):
    """Every law that stores and async stores share; the fixture ``subject`` is the store."""

    examples: ClassVar[int] = 100
    """The number of random histories, of 40 operations each, and of random messages to try."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()


class StoreContract(Laws):
    """The contract of ``Store``; your fixture ``store`` returns an open store.

    The store must use the fixture ``clock`` as its clock, and conversations created without
    ``expires_in`` must not expire. The store may be empty or not, and new for each test or shared
    by all of them; if it is shared, override ``clock`` with one that is shared too. The tests use
    ids and owners of their own. They call ``sweep``, but do not close the store or count its other
    conversations.

    Set ``examples`` on your class to try fewer random histories and messages with a slow store, or
    more overnight.
    """

    @pytest.fixture
    def subject(self, store: Store) -> Store:
        return store


class AsyncStoreContract(AsynchronousLaws, Laws):
    """The contract of ``AsyncStore``: that of ``Store``, and the promises to async callers.

    Your fixture ``store`` returns the store as an async context manager that has not been entered:
    each test enters and leaves it in an event loop (asyncio) of its own. Concurrent callers are
    tasks instead of threads. Otherwise the requirements are those of ``StoreContract``.
    """
