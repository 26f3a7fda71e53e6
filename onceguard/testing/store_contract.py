"""The contract that every store keeps, as tests: for stores of ours and of anyone else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onceguard.testing.beat import Beat
from onceguard.testing.case import Case
from onceguard.testing.claims import Claims
from onceguard.testing.ends import Ends
from onceguard.testing.firings import Firings
from onceguard.testing.listing import Listing
from onceguard.testing.overlap import Overlap
from onceguard.testing.refusals import Refusals
from onceguard.testing.remembering import Remembering
from onceguard.testing.renewals import Renewals
from onceguard.testing.sending import Sending
from onceguard.testing.sharing import Sharing
from onceguard.testing.starts import Starts
from onceguard.testing.superseding import Superseding

if TYPE_CHECKING:
    from onceguard.store.contract import Store


class StoreContract(
    Claims,
    Starts,
    Refusals,
    Ends,
    Renewals,
    Firings,
    Overlap,
    Sending,
    Superseding,
    Remembering,
    Listing,
    Sharing,
):
    """
    Every rule of the protocol that can be seen through a store's methods.

    Give a subclass a fixture ``store``, and pytest runs them all over it. Each test has
    keys, entries and messages of its own, so that the store may be shared with other
    tests, and with anyone else, at the same time. Lives that have to end are waited for.

    Give it a fixture ``other`` as well to see that two stores with the same data agree;
    it is the same store otherwise.

    Attributes:
        short: A life that is waited for, in seconds. A tenth of it must be enough to
            take a lease: raise it for a store that is slow.
        long: A life that outlasts a test, in seconds.
        slack: How many seconds the clocks of store and test may be apart, and how
            precise lives are.
    """

    short = 0.5
    long = 600.0
    slack = 1.0

    @pytest.fixture
    def other(self, store: Store) -> Store:
        """Give the store that others use; override it to have two."""
        return store

    @pytest.fixture
    def case(self, store: Store, other: Store) -> Case:
        """Give what one test asks the store about."""
        return Case(store, other, self.short, self.long, self.slack)

    @pytest.fixture(params=[False, True], ids=["together", "apart"])
    def beat(self, case: Case, request: pytest.FixtureRequest) -> Beat:
        """Give what beat asks of an entry, in the partition of its key and in another."""
        return Beat(case, apart=request.param)
