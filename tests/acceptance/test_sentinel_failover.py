"""The lock server's master dies in mid-run: its lease goes on at the new master, or is lost."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.running import running
from tests.harness.sentinels import Sentinels, in_step
from tests.harness.site import SLACK, redis_site
from tests.harness.waiting import eventually, stays

LONG_LEASE = 5.0
"""Longer than these sentinels need, as it must be to be kept."""


@pytest.fixture
def sentinels(redis_binary: str) -> Iterator[Sentinels]:
    """A master, a replica and three sentinels, apart from the broker."""
    assert redis_binary
    yield from running(Sentinels(password="p@ss:w/rd", sentinel_password="theirs"))  # noqa: S106


def conf_of(sentinels: Sentinels) -> dict[str, Any]:
    return {"once_url": sentinels.url, "once_transport_options": sentinels.options}


def test_a_run_keeps_its_lease_over_a_failover(sentinels: Sentinels, name: str) -> None:
    """
    No second run beside it, no lost lease, and the key is free when it ends.

    The new master has the lease by replication; renewals find it there.
    """
    with redis_site(conf=conf_of(sentinels), once={"lease_ttl": LONG_LEASE}) as site:
        worker = site.start()
        result = site.publish("held", name)
        run = site.ledger.await_begin(name)
        eventually(lambda: in_step(sentinels.master, sentinels.replica), "it was replicated")
        new = sentinels.fail_over()
        refusal = site.refusal("held", name)
        assert refusal.holder.fencing_token == run.fencing_token
        stays(lambda: site.refusal("held", name), "it was renewed", during=1.2 * LONG_LEASE)
        assert new.command_counts()["evalsha"] > 0
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        second = site.await_accepted("held", name, timeout=SLACK)
        site.await_state(second, "SUCCESS")
        runs = [each.task_id for each in site.ledger.runs(name)]
        assert runs == [result.id, second.id]
        assert not site.ledger.lines("once_lease_lost")
        assert worker.alive
        assert "p@ss" not in worker.log()
        assert "theirs" not in worker.log()


def test_a_lease_that_no_replica_heard_of_is_lost_and_its_successors_token_is_higher(
    sentinels: Sentinels, name: str
) -> None:
    """
    What asynchronous replication allows: two runs of one key at a time.

    The first is stalled while the second starts at a master that never heard of it.
    The first learns of it when it asks, and whatever they write to can tell them apart.
    """
    once = {"lease_ttl": LONG_LEASE}
    with redis_site(conf=conf_of(sentinels), once=once) as site:
        stalled = site.start(concurrency=1)
        site.publish("work", f"{name}-warm").get(timeout=30)
        sentinels.cut_off(sentinels.replica)
        site.publish("obedient", name)
        first = site.ledger.await_begin(name)
        stalled.freeze()
        sentinels.fail_over()
        site.start(concurrency=1)
        site.await_accepted("obedient", name)
        second = site.ledger.await_begin(name, 2)
        assert second.fencing_token > first.fencing_token
        stalled.thaw()
        site.ledger.await_end(name)
        site.open_gate(name)
        eventually(lambda: len(site.ledger.ended(name)) == 2, "both came to their end")
        hows = {run.fencing_token: run.how for run in site.ledger.runs(name)}
        assert hows == {first.fencing_token: "LeaseLost", second.fencing_token: "ok"}


def test_a_broker_behind_sentinels_holds_the_locks_too(sentinels: Sentinels, name: str) -> None:
    """Nothing is set but what Celery needs."""
    options = {**sentinels.options, "visibility_timeout": 3}
    conf = {"broker_url": sentinels.url, "broker_transport_options": options}
    with redis_site(conf=conf) as site:
        worker = site.start()
        result = site.publish("held", name)
        site.ledger.await_begin(name)
        stays(lambda: site.refusal("held", name), "it was renewed", during=4)
        with sentinels.master.client() as client:
            assert client.keys("once1:*:lock:*")
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        assert len(site.ledger.runs(name)) == 1
        assert "WARNING" not in worker.log()
