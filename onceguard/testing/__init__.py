"""
Tests for what plugs into onceguard: a store of your own keeps the contract or fails them.

    from onceguard.testing import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self):
            return MyStore(...)

Needs pytest, which onceguard itself does not.
"""

import pytest

_WITH_ASSERTS = (
    "beat",
    "case",
    "claims",
    "ends",
    "firings",
    "listing",
    "overlap",
    "refusals",
    "remembering",
    "renewals",
    "sending",
    "sharing",
    "starts",
    "superseding",
)

pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_ASSERTS))

from onceguard.testing.store_contract import StoreContract  # noqa: E402 - rewritten from here on

__all__ = ["StoreContract"]
