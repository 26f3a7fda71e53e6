"""Sites for acceptance tests: real brokers, real workers, and a ledger as the witness."""

import uuid
from collections.abc import Iterator

import pytest

from tests.harness.site import Site, redis_site


@pytest.fixture
def name() -> str:
    """A name no other run in the ledger has, so that tests may share a site."""
    return f"n{uuid.uuid4().hex[:8]}"


@pytest.fixture
def site(redis_binary: str) -> Iterator[Site]:
    """A site of the test's own, without workers."""
    assert redis_binary
    with redis_site() as site:
        yield site
