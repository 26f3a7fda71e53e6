"""The store under test on a real server."""

from collections.abc import Iterator

import pytest

from tests.harness.redis_server import RedisServer
from tests.store.rig import Rig, open_rig


@pytest.fixture
def rig(redis_server: RedisServer) -> Iterator[Rig]:
    """A store on the shared, emptied server."""
    made = open_rig(redis_server)
    yield made
    made.store.close()
    made.raw.close()
