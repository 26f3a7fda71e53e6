"""What is found wrong with lock servers that are several, when a worker or beat starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onceguard.rules.address import read_address, read_masters
from onceguard.store.danger import Findings, check_server
from tests.harness.cluster import Cluster
from tests.harness.masters import Masters
from tests.harness.running import running
from tests.harness.waiting import eventually
from tests.store.rig import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onceguard.rules.address import Address
    from tests.harness.redis_server import RedisServer

TIMEOUT = 2.0


def look(address: Address) -> Findings:
    return check_server(address, prefix=PREFIX, socket_timeout=TIMEOUT)


@pytest.fixture(scope="module")
def cluster(redis_binary: str) -> Iterator[Cluster]:
    """Three masters; tests leave them as they were."""
    assert redis_binary
    yield from running(Cluster())


@pytest.fixture
def masters(redis_binary: str) -> Iterator[Masters]:
    """Three independent masters."""
    assert redis_binary
    yield from running(Masters(3))


def test_nothing_is_wrong_with_a_cluster_as_it_comes(cluster: Cluster) -> None:
    """Told one node, all are looked at; nothing is left on them."""
    assert look(read_address(cluster.urls[0])) == Findings()
    for node in cluster.nodes:
        assert node.ask("DBSIZE") == 0


def test_every_node_of_a_cluster_is_looked_at(cluster: Cluster) -> None:
    """One that evicts is as bad as all."""
    node = cluster.nodes[2]
    node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        (warning,) = look(read_address(cluster.urls[0])).warnings
    finally:
        node.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert f"redis+cluster://127.0.0.1:{node.port} drops keys" in warning


def test_scripts_that_a_node_refuses_are_refused_with_what_allows_them(
    cluster: Cluster,
) -> None:
    """An access list is set on each node, and forgotten on one."""
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "app", "on", "nopass", "~*", "+@all")
    cluster.nodes[1].ask("ACL", "SETUSER", "app", "-evalsha", "-eval")
    try:
        url = cluster.urls[0].replace("://", "://app:any@")
        (refusal,) = look(read_address(url)).refusals
    finally:
        for node in cluster.nodes:
            node.ask("ACL", "DELUSER", "app")
    assert "refuses the scripts" in refusal
    assert "ACL SETUSER app" in refusal


def test_a_node_is_not_taken_for_a_server(cluster: Cluster) -> None:
    """It would answer MOVED for two thirds of the keys."""
    url = cluster.urls[0].replace("redis+cluster", "redis")
    (refusal,) = look(read_address(url)).refusals
    assert "is a node of a Redis Cluster" in refusal
    assert "redis+cluster://host:port" in refusal


def test_a_server_is_not_taken_for_a_node(redis_server: RedisServer) -> None:
    """What works today would not survive the day it gets a second node."""
    url = redis_server.url.replace("redis://", "redis+cluster://").removesuffix("/0")
    (refusal,) = look(read_address(url)).refusals
    assert "is in no Redis Cluster. Write its URL with redis://" in refusal


def test_a_cluster_that_is_away_is_no_fault() -> None:
    """It is asked again when it is needed."""
    found = look(read_address("redis+cluster://127.0.0.1:1"))
    assert found.refusals == ()
    assert all("does not answer" in warning for warning in found.warnings)
    assert found.warnings


def test_nothing_is_wrong_with_masters_as_they_come(masters: Masters) -> None:
    """Nothing is left on them."""
    assert look(read_masters(masters.urls)) == Findings()
    for server in masters.servers:
        assert server.ask("DBSIZE") == 0


def test_one_server_under_two_names_is_refused(masters: Masters) -> None:
    """Two of its votes and one other would be a majority of two servers."""
    one, two, _ = masters.urls
    again = one.replace("127.0.0.1", "localhost")
    (refusal,) = look(read_masters([one, two, again])).refusals
    assert f"{again} is the same server as {one}" in refusal


def test_each_master_is_looked_at(masters: Masters) -> None:
    """One that evicts is warned of, one that is away too: a majority works."""
    evicting, away, _ = masters.servers
    evicting.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    away.stop()
    found = look(read_masters(masters.urls))
    assert found.refusals == ()
    assert [evicting.url in found.warnings[0], away.url in found.warnings[1]] == [True] * 2


def test_what_a_master_must_allow_includes_the_turns(masters: Masters) -> None:
    """Pottery's keys have a name of their own."""
    for server in masters.servers:
        server.ask(
            "ACL", "SETUSER", "app", "on", "nopass", "~once1:*", "+@all", "-eval", "-evalsha"
        )
    urls = [url.replace("://", "://app:any@") for url in masters.urls]
    refusals = look(read_masters(urls)).refusals
    assert len(refusals) == 3
    assert all(" ~redlock:once1:*" in refusal for refusal in refusals)


def test_memory_is_warned_of() -> None:
    """A worker whose children can't see its locks looks guarded and is not."""
    (warning,) = look(read_address("memory://")).warnings
    assert "this process's own memory" in warning


def test_a_minority_of_masters_that_is_no_use_keeps_nobody_from_starting(
    masters: Masters,
) -> None:
    """A worker that is restarted then is needed as much as one that runs."""
    lost, other, _ = masters.servers
    lost.require("changed")
    (warning,) = look(read_masters(masters.urls)).warnings
    assert "does not let us in" in warning
    assert warning.endswith("A majority of the others keeps locks without it meanwhile.")
    masters.kill(2)
    warning, away = look(read_masters(masters.urls)).warnings
    assert warning.endswith(
        "The others can keep locks without it, when those that are away are back."
    )
    assert "does not answer" in away
    masters.servers[2].start()
    other.require("changed")
    assert len(look(read_masters(masters.urls)).refusals) == 2


def test_a_replica_that_lets_nobody_in_is_warned_of(redis_binary: str) -> None:
    """Users are not replicated; after a failover it would be too late to find out."""
    assert redis_binary
    made = Cluster(replicas=1)
    try:
        made.start()
        for node in made.nodes[:-1]:
            node.ask("ACL", "SETUSER", "app", "on", ">any", "~*", "+@all")
        last = str(made.nodes[-1].port)
        for node in made.nodes[:3]:
            eventually(lambda: last in str(node.ask("CLUSTER", "SLOTS")), "it was known")  # noqa: B023
        url = made.urls[0].replace("://", "://app:any@")
        (warning,) = look(read_address(url)).warnings
    finally:
        made.close()
    assert f"127.0.0.1:{made.nodes[-1].port} does not let us in" in warning
    assert warning.endswith("All partitions keep locks at present, on other nodes.")
