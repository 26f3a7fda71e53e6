"""A Cluster that changes while locks are held: slots move, masters die or hang."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, cast

import pytest
from redis.crc import key_slot

from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.messages import PARTITIONS
from onceguard.store.cluster import Cluster as Server
from onceguard.store.contract import Answer, Renewed
from onceguard.store.opening import open_store
from onceguard.store.replicas import Replicas
from onceguard.store.scripts import PROBE, Call
from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.running import running
from tests.harness.sentinels import in_step
from tests.harness.waiting import eventually
from tests.store.rig import PREFIX, Rig, call, record_of, token_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

pytestmark = pytest.mark.oldest
TIMEOUT = 2.0


def a_rig(cluster: Cluster, *urls: str, timeout: float = TIMEOUT) -> Rig:
    """A store that is told some nodes, or the first only, and a client past it."""
    url = ";".join(urls or cluster.urls[:1])
    store = open_store(url, prefix=PREFIX, socket_timeout=timeout)
    return Rig(store, cast("redis.Redis", cluster.client()))


def slot_of(rig: Rig, key: str) -> int:
    """The slot in which everything of a key lies."""
    return int(key_slot(rig.names(call("-", key=key)).lock(call("-", key=key)).encode()))


def of(rig: Rig, node: ClusterNode, cluster: Cluster) -> str:
    """A key that a node has."""
    keys = (f"task({number})" for number in range(1000))
    return next(key for key in keys if cluster.node_of(slot_of(rig, key)) is node)


@pytest.fixture(scope="module")
def three_masters(redis_binary: str) -> Iterator[Cluster]:
    """Masters without replicas, for tests that put slots back."""
    assert redis_binary
    yield from running(Cluster())


@pytest.fixture
def cluster(three_masters: Cluster) -> Cluster:
    """The three masters, emptied."""
    three_masters.flush()
    return three_masters


@pytest.fixture
def replicated(redis_binary: str) -> Iterator[Cluster]:
    """Three masters with a replica each, to be killed."""
    assert redis_binary
    yield from running(Cluster(replicas=1))


def test_one_node_is_enough_to_find_the_others(cluster: Cluster) -> None:
    """Every partition is reached, and its node is asked directly from then on."""
    rig = a_rig(cluster)
    keys = [f"task({number})" for number in range(4 * PARTITIONS)]
    assert all(rig.claim(call(f"m{key}", key=key)) is None for key in keys)
    for node in cluster.nodes:
        node.ask("CONFIG", "RESETSTAT")
    for key in keys:
        rig.run(call(f"m{key}", key=key), "n1")
    counts = [node.command_counts().get("evalsha", 0) for node in cluster.nodes]
    assert all(counts)
    assert sum(counts) <= len(keys) + len(cluster.nodes)  # each learns `start` once


def test_every_node_is_given_the_scripts_that_it_does_not_know(cluster: Cluster) -> None:
    """A node that was restarted or added has none."""
    rig = a_rig(cluster)
    for round_ in range(2):
        for node in cluster.nodes:
            node.ask("SCRIPT", "FLUSH")
        for number in range(PARTITIONS):
            key = f"task({number})"
            assert rig.claim(call(f"m{round_}", key=key)) is None
            rig.store.unclaim(call(f"m{round_}", key=key))


def test_a_lease_goes_with_its_slot(cluster: Cluster) -> None:
    """Resharding in mid-run: renewed, refused to others and finished at the new node."""
    rig, other = a_rig(cluster), a_rig(cluster)
    key = of(rig, cluster.nodes[0], cluster)
    message = call("m1", key=key)
    record = rig.run(message, "n1")
    slot = slot_of(rig, key)
    old = cluster.move_slot(slot, cluster.nodes[1])
    try:
        assert rig.renew(message, "n1", record) == (Renewed.RENEWED, record)
        assert other.start(call("m2", key=key), "n2").answer is Answer.CONFLICT
        assert rig.finish(message, "n1")
        assert token_of(other.run(call("m2", key=key), "n2")) > token_of(record)
    finally:
        cluster.move_slot(slot, old)


def test_while_a_slot_moves_a_key_is_asked_for_at_the_new_node(cluster: Cluster) -> None:
    """ASK: the key has moved, the slot has not; nobody remembers that as the slot's place."""
    rig = a_rig(cluster)
    key = of(rig, cluster.nodes[0], cluster)
    message = call("m1", key=key)
    record = rig.run(message, "n1")
    slot, to = slot_of(rig, key), cluster.nodes[2]
    old = cluster.move_slot(slot, to, stay_open=True)
    try:
        held = rig.store.holder(message)
        assert held is not None
        assert held.holder.record() == record
        server = rig.store._server
        assert isinstance(server, Server)
        assert server._owners[slot] == old.place
    finally:
        cluster.close_slot(slot, to)
        cluster.move_slot(slot, old)


def test_a_call_waits_until_a_slot_has_moved(cluster: Cluster) -> None:
    """
    TRYAGAIN: neither node has all keys that the script names.

    Redis says so for keys that do not exist, too: until the slot is closed.
    """
    rig = a_rig(cluster)
    key = of(rig, cluster.nodes[0], cluster)
    message = call("m1", key=key)
    rig.run(message, "n1")
    slot, to = slot_of(rig, key), cluster.nodes[1]
    old = cluster.open_slot(slot, to)
    cluster.move_keys(slot, old, to, only=[rig.names(message).lock(message)])

    def rest() -> None:
        time.sleep(TIMEOUT / 8)
        cluster.move_keys(slot, old, to)
        cluster.close_slot(slot, to)

    mover = threading.Thread(target=rest)
    try:
        mover.start()
        began = time.monotonic()
        assert rig.finish(message, "n1")
        assert TIMEOUT / 8 < time.monotonic() - began < TIMEOUT
    finally:
        mover.join(10)
        cluster.move_slot(slot, old)


def test_a_slot_that_stays_in_two_places_is_an_error_in_time(cluster: Cluster) -> None:
    """A reshard that was broken off: bounded, said, and nothing lost when it is mended."""
    rig = a_rig(cluster, timeout=0.5)
    key = of(rig, cluster.nodes[0], cluster)
    message = call("m1", key=key)
    rig.run(message, "n1")
    slot, to = slot_of(rig, key), cluster.nodes[1]
    old = cluster.open_slot(slot, to)
    cluster.move_keys(slot, old, to, only=[rig.names(message).lock(message)])
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            rig.finish(message, "n1")
        assert time.monotonic() - began < 3 * 0.5
    finally:
        cluster.move_keys(slot, old, to)
        cluster.close_slot(slot, to)
    assert rig.finish(message, "n1")
    cluster.move_slot(slot, old)


def test_a_replica_takes_over_with_the_lease(replicated: Cluster) -> None:
    """A dead master: calls fail in time until the failover, then the run goes on."""
    rig = a_rig(replicated)
    key = of(rig, replicated.nodes[0], replicated)
    message = call("m1", key=key)
    record = rig.run(message, "n1")
    slot = slot_of(rig, key)
    dead = replicated.node_of(slot)
    eventually(lambda: in_step(dead, replicated.replica_of(dead)), "it was replicated")
    replicated.kill(dead)
    took = []

    def renewed() -> object:
        began = time.monotonic()
        try:
            return rig.renew(message, "n1", record)
        except StoreUnavailable:
            return None
        finally:
            took.append(time.monotonic() - began)

    assert eventually(renewed, "the lease was renewed") == (Renewed.RENEWED, record)
    assert max(took) < 2.5 * TIMEOUT
    assert rig.start(call("m2", key=key), "n2").answer is Answer.CONFLICT
    assert rig.finish(message, "n1")


def test_a_hung_master_costs_one_time_out_and_its_successor_is_found(
    replicated: Cluster,
) -> None:
    """
    Other partitions are served meanwhile.

    What it had received is taken back when it goes on, as a replica or not.
    """
    rig = a_rig(replicated, timeout=0.5)
    here, there = (of(rig, node, replicated) for node in replicated.nodes[:2])
    rig.claim(call("warm", key=here))
    rig.store.unclaim(call("warm", key=here))
    hung = replicated.nodes[0]
    replicated.pause(hung)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        rig.claim(call("m1", key=here))
    assert 0.4 < time.monotonic() - began < 1.5
    assert rig.claim(call("m2", key=there)) is None
    replicated.await_failover(hung, slot_of(rig, here))
    assert eventually(lambda: _claimed(rig, here), "the new master was asked")
    replicated.resume(hung)
    held = rig.claim(call("m4", key=here))
    assert held is not None
    assert held.holder.message_id == "m3"


def _claimed(rig: Rig, key: str) -> bool:
    try:
        return rig.claim(call("m3", key=key)) is None
    except StoreUnavailable:
        return False


def test_the_first_node_may_be_dead(replicated: Cluster) -> None:
    """A URL that names several nodes is good while one of them lives."""
    dead, slot = replicated.nodes[0], 0
    replicated.kill(dead)
    replicated.await_failover(dead, slot)
    rig = a_rig(replicated, *replicated.urls)
    for number in range(PARTITIONS):
        assert rig.claim(call("m1", key=f"task({number})")) is None


def test_a_partition_without_a_master_is_unavailable_in_time(redis_binary: str) -> None:
    """And the others too, by Redis's own default (cluster-require-full-coverage)."""
    assert redis_binary
    cluster = Cluster()
    try:
        rig = a_rig(cluster.start(), *cluster.urls, timeout=0.5)
        keys = [of(rig, node, cluster) for node in cluster.nodes]
        assert [rig.claim(call("m1", key=key)) for key in keys] == [None] * 3
        cluster.kill(cluster.nodes[0])
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            rig.claim(call("m2", key=keys[0]))
        assert time.monotonic() - began < 1.5
        assert "redis+cluster://127.0.0.1:" in str(caught.value)
        cluster.nodes[0].start()
        eventually(lambda: _claimed(rig, keys[0]), "the node that came back was asked")
    finally:
        cluster.close()


def test_a_url_of_one_server_says_what_to_write_for_a_cluster(cluster: Cluster) -> None:
    """The commonest mistake, which would otherwise show as a MOVED."""
    url = cluster.urls[0].replace("redis+cluster", "redis")
    store = open_store(url, prefix=PREFIX, socket_timeout=TIMEOUT)
    keys = [f"task({number})" for number in range(PARTITIONS)]
    with pytest.raises(StoreUnavailable, match=r"once_url='redis\+cluster://host:port'"):
        _ = [store.claim(call("m1", key=key), unique_for=5.0) for key in keys]


def test_password_and_user_are_those_of_every_node(redis_binary: str) -> None:
    """Nodes that are found by redirection are let in with what the URL says; none is shown."""
    assert redis_binary
    cluster = Cluster(options=("--requirepass", "p@ss:w/rd", "--masterauth", "p@ss:w/rd"))
    for node in cluster.nodes:
        node.password = "p@ss:w/rd"  # noqa: S105
    try:
        cluster.start()
        url = cluster.urls[0].replace("://", "://:p%40ss%3Aw%2Frd@")
        rig = a_rig(cluster, url)
        for number in range(PARTITIONS):
            assert rig.claim(call("m1", key=f"task({number})")) is None
        wrong = open_store(cluster.urls[0], prefix=PREFIX, socket_timeout=TIMEOUT)
        with pytest.raises(StoreUnavailable, match=r"(?i)auth"):
            wrong.claim(call("m1"), unique_for=5.0)
        gone = of(rig, cluster.nodes[0], cluster)
        cluster.kill(cluster.nodes[0])
        with pytest.raises(StoreUnavailable) as caught:
            rig.claim(call("m2", key=gone))
        assert "p@ss" not in str(caught.value) + repr(caught.value)
        assert "p%40ss" not in str(caught.value) + repr(caught.value)
    finally:
        cluster.close()


def test_a_script_runs_on_the_node_of_its_first_key(cluster: Cluster) -> None:
    """What a look at the servers at a worker's start relies on."""
    server = a_rig(cluster).store._server
    for number in range(PARTITIONS):
        assert server.run(Call(PROBE, (f"once1:{{once:{number}}}:probe",))) == 1
    assert isinstance(server, Server)
    assert set(server.places) == {node.place for node in cluster.nodes}


def test_fencing_tokens_grow_though_a_failover_lost_the_counter(replicated: Cluster) -> None:
    """The successor's token is above that of a holder of whom the replica never heard."""
    rig = a_rig(replicated)
    key = of(rig, replicated.nodes[0], replicated)
    dead = replicated.nodes[0]
    replica = replicated.replica_of(dead)
    replicated.pause(replica)
    dead.ask("CLIENT", "KILL", "TYPE", "replica")
    first = token_of(record_of(rig.start(call("m1", key=key), "n1")))
    replicated.kill(dead)
    replicated.resume(replica)
    replicated.await_failover(dead, slot_of(rig, key))
    second = eventually(lambda: _started(rig, key), "another run began")
    assert second > first


def _started(rig: Rig, key: str) -> int:
    try:
        started = rig.start(call("m2", key=key), "n2")
    except StoreUnavailable:
        return 0
    return token_of(record_of(started)) if started.answer is Answer.ACQUIRED else 0


def test_replicas_are_asked_to_confirm_writes_on_the_node_that_has_the_key(
    replicated: Cluster,
) -> None:
    """`once_wait_replicas`: each node has replicas of its own."""
    url, confirming = replicated.urls[0], Replicas(1, server="s", socket_timeout=TIMEOUT)
    store = open_store(url, prefix=PREFIX, socket_timeout=TIMEOUT, replicas=confirming)
    rig = Rig(store, cast("redis.Redis", replicated.client()))
    node = replicated.nodes[1]
    key = of(rig, node, replicated)
    rig.claim(call("m1", key=key))  # it learns the script
    rig.store.unclaim(call("m1", key=key))
    node.ask("CONFIG", "RESETSTAT")
    assert rig.claim(call("m1", key=key)) is None
    assert node.command_counts()["wait"] == 1
    replica = replicated.replica_of(node)
    lock = rig.names(call("m1", key=key)).lock(call("m1", key=key))
    assert lock in [str(name) for name in replica.ask("KEYS", "once1:*")]


def test_what_one_store_has_found_another_of_the_process_knows(replicated: Cluster) -> None:
    """The renewal thread's store may begin when the only node is dead that was named."""
    rig = a_rig(replicated)
    assert rig.claim(call("m1")) is None
    dead = replicated.nodes[0]
    replicated.kill(dead)
    replicated.await_failover(dead, 0)
    other = open_store(replicated.urls[0], prefix=PREFIX, socket_timeout=TIMEOUT)
    for number in range(PARTITIONS):
        assert other.claim(call("m2", key=f"task({number})"), unique_for=5.0) is None
