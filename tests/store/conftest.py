"""The store under test on a real server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import missing
from tests.harness.certificates import Authority, TlsServer
from tests.harness.redis_server import RedisServer
from tests.harness.running import running
from tests.harness.sentinels import Sentinels
from tests.store.behind import Pair, a_pair, open_rig_behind
from tests.store.rig import Rig, open_rig


@pytest.fixture
def rig(redis_server: RedisServer) -> Iterator[Rig]:
    """A store on the shared, emptied server."""
    made = open_rig(redis_server)
    yield made
    made.store.close()
    made.raw.close()


@pytest.fixture(scope="session")
def authority(redis_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of servers here, which must know TLS."""
    assert redis_binary
    made = Authority(tmp_path_factory.mktemp("ca"))
    try:
        _ = [*running(TlsServer(made))]
    except RuntimeError:
        missing("TLS in redis-server")
    return made


@pytest.fixture
def make(redis_binary: str) -> Iterator[Callable[..., Sentinels]]:
    """Start a master, a replica and three sentinels of the test's own."""
    assert redis_binary
    with ExitStack() as closing:

        def start(**passwords: str) -> Sentinels:
            made = Sentinels(**passwords)
            closing.callback(made.close)
            return made.start()

        yield start


@pytest.fixture
def watched(make: Callable[..., Sentinels]) -> tuple[Sentinels, Rig]:
    """A set without passwords, and a rig behind it."""
    sentinels = make()
    return sentinels, open_rig_behind(sentinels.url, sentinels.options, sentinels.master)


@pytest.fixture
def pair(redis_binary: str) -> Iterator[Pair]:
    """A master, its replica, and a sentinel that can be told what to say."""
    with a_pair(redis_binary) as made:
        yield made
