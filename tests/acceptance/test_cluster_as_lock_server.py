"""Locks on a Redis Cluster: slots move and masters die while calls run and beats tick."""

from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from tests.harness.cluster import Cluster
from tests.harness.crowd import two_with_one_lock_server
from tests.harness.running import running
from tests.harness.sentinels import in_step
from tests.harness.site import SLACK, Site, redis_site
from tests.harness.waiting import eventually, stays

LONG_LEASE = 12.0
"""Longer than these nodes need to agree on a new master, as it must be to be kept."""


@pytest.fixture
def cluster(redis_binary: str) -> Iterator[Cluster]:
    """Three masters with a replica each, apart from the broker."""
    assert redis_binary
    yield from running(Cluster(replicas=1))


def slot_of_lock(cluster: Cluster, name: str) -> int:
    """The slot of the only lock whose key has that name in it."""
    pattern = f"once1:*:lock:*{name}*"
    found = {str(key) for node in cluster.nodes for key in node.ask("KEYS", pattern)}
    (lock,) = found  # its replica has it, too
    return int(key_slot(lock.encode()))


def refused(site: Site, name: str) -> object:
    return site.refusal("held", name)


def test_a_run_keeps_its_lease_while_its_slot_moves_and_its_master_dies(
    cluster: Cluster, name: str
) -> None:
    """No second run beside it, no lost lease, and the key is free when it ends."""
    conf = {"once_url": cluster.urls[0]}
    with redis_site(conf=conf, once={"lease_ttl": LONG_LEASE}) as site:
        worker = site.start()
        result = site.publish("held", name)
        run = site.ledger.await_begin(name)
        slot = slot_of_lock(cluster, name)
        cluster.move_slot(slot, cluster.another(cluster.node_of(slot)))
        assert site.refusal("held", name).holder.fencing_token == run.fencing_token
        master = cluster.node_of(slot)
        eventually(lambda: in_step(master, cluster.replica_of(master)), "it was replicated")
        cluster.kill(master)
        cluster.await_failover(master, slot)
        stays(lambda: refused(site, name), "it was renewed", during=LONG_LEASE)
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        second = site.await_accepted("held", name, timeout=SLACK)
        site.await_state(second, "SUCCESS")
        assert [each.task_id for each in site.ledger.runs(name)] == [result.id, second.id]
        assert not site.ledger.lines("once_lease_lost")
        assert worker.alive


def test_two_beats_send_each_tick_once(cluster: Cluster, name: str) -> None:
    """The firing and the key of its call are in two partitions: two calls, two nodes."""
    with two_with_one_lock_server(name, cluster.url) as (site, post, one):
        post.await_letters(6)
        one.kill()
        post.await_letters(12)
        assert "ERROR" not in "".join(beat.log() for beat in site.beats)
