"""G12: with the store down nothing hangs and nothing is lost."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from onceguard import StoreUnavailable
from tests.harness.redis_server import RedisServer
from tests.harness.site import LEASE, SLACK, Site, redis_site
from tests.harness.waiting import eventually, stays

TIMEOUT = 1.0
"""`once_socket_timeout` of these sites, in seconds."""

Break = Callable[[RedisServer], Any]


def stopped(store: RedisServer) -> Callable[[], object]:
    """Connections are refused; it comes back empty."""
    store.stop()
    return store.start


def hung(store: RedisServer) -> Callable[[], object]:
    """Connections are taken and nothing is answered; it comes back with its data."""
    store.pause()
    return store.resume


BREAKS = pytest.mark.parametrize("trouble", [stopped, hung])


@pytest.fixture
def apart(own_redis_server: RedisServer) -> Iterator[tuple[Site, RedisServer]]:
    """A site with a store of its own, apart from the broker."""
    conf = {"once_url": own_redis_server.url, "once_socket_timeout": TIMEOUT}
    with redis_site(conf=conf) as site:
        yield site, own_redis_server


@BREAKS
def test_a_publish_fails_within_the_socket_timeout(
    apart: tuple[Site, RedisServer], name: str, trouble: Break
) -> None:
    """A web request must not wait for redis-py's ten retries."""
    site, store = apart
    site.publish("work", f"{name}-before")
    heal = trouble(store)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as failure:
        site.publish("work", name)
    assert time.monotonic() - began < 2 * TIMEOUT + 1.5
    assert "claim" in str(failure.value)
    heal()
    assert site.broker.waiting() == 1


@BREAKS
def test_a_publish_that_failed_can_be_made_again_when_the_store_is_back(
    apart: tuple[Site, RedisServer], name: str, trouble: Break
) -> None:
    """
    Nothing was sent, so nothing may be claimed, not for long at least.

    A hung server reads, when it wakes up, what was written to it while it hung: the
    claim of a call whose publisher was told that it failed.
    """
    site, store = apart
    site.publish("work", f"{name}-before")
    heal = trouble(store)
    with pytest.raises(StoreUnavailable):
        site.publish("work", name)
    heal()
    site.await_accepted("work", name, timeout=SLACK)


@BREAKS
def test_a_publish_that_may_run_unguarded_goes_on(
    own_redis_server: RedisServer, name: str, trouble: Break
) -> None:
    """For work that may rather run twice than not at all."""
    conf = {"once_url": own_redis_server.url, "once_socket_timeout": TIMEOUT}
    with redis_site(conf=conf, once={"on_store_unavailable": "run"}) as site:
        site.start()
        heal = trouble(own_redis_server)
        began = time.monotonic()
        result = site.publish("work", name)
        assert time.monotonic() - began < 2 * TIMEOUT + 1.5
        site.ledger.await_end(name)
        site.await_state(result, "SUCCESS")
        assert site.ledger.lines("once_store_unavailable")
        heal()


@BREAKS
def test_a_delivery_is_put_off_until_the_store_is_back(
    apart: tuple[Site, RedisServer], name: str, trouble: Break
) -> None:
    """Neither dropped, nor run unguarded, nor spinning; and the worker does other work."""
    site, store = apart
    worker = site.start()
    result = site.publish("work", f"{name}-warm")
    site.await_state(result, "SUCCESS")
    heal = trouble(store)
    result = site.stranger.send_task("work", (name,))
    eventually(lambda: site.ledger.lines("once_store_unavailable"), "it was put off")
    site.publish("plain", f"{name}-other").get(timeout=30)
    stays(lambda: not site.ledger.runs(name), "nothing ran unguarded", during=4)
    assert worker.log().count(f"[{result.id}] received") < 10
    assert site.broker.load() >= 1
    heal()
    site.await_state(result, "SUCCESS", timeout=60)
    site.await_drained()
    assert len(site.ledger.runs(name)) == 1
    assert worker.alive


@BREAKS
def test_a_running_task_outlasts_the_store_and_takes_its_lease_up_again(
    apart: tuple[Site, RedisServer], name: str, trouble: Break
) -> None:
    """
    The store is away for longer than the lease, and may have forgotten all.

    If nobody else has the key when it is back, the same holder has it again, with
    the same fencing token.
    """
    outlast(*apart, name, trouble, renewed=True)


@BREAKS
def test_a_lease_that_was_never_renewed_yet_is_taken_up_again_too(
    apart: tuple[Site, RedisServer], name: str, trouble: Break
) -> None:
    """
    The store goes away between the start of a run and its first renewal.

    What the worker's main process never saw it can't put back as it was: on a store
    that forgot everything the lease gets a newer token.
    """
    outlast(*apart, name, trouble, renewed=False)


def outlast(
    site: Site, store: RedisServer, name: str, trouble: Break, *, renewed: bool
) -> None:
    """Take the store away from a run for longer than its lease, and bring it back."""
    worker = site.start()
    result = site.publish("held", name)
    run = site.ledger.await_begin(name)
    if renewed:
        stays(lambda: site.refusal("held", name), "it was renewed", during=1.2 * LEASE)
    heal = trouble(store)
    stays(lambda: worker.alive, "the worker lived", during=1.5 * LEASE)
    assert not site.ledger.ended(name)
    heal()
    known = str(run.fencing_token) if renewed else result.id
    eventually(lambda: lease_of(store, known), "the lease was taken up again")
    refusal = site.refusal("held", name)
    assert refusal.holder.fencing_token >= run.fencing_token
    assert refusal.holder.task_id == result.id
    site.open_gate(name)
    site.await_state(result, "SUCCESS")
    second = site.await_accepted("held", name, timeout=SLACK)
    site.await_state(second, "SUCCESS")
    assert not site.ledger.overlaps(name)


def lease_of(store: RedisServer, word: str) -> bool:
    """Whether any lease in the store carries that fencing token or task id."""
    with store.client() as client:
        locks = client.keys("*:lock:*")
        records = [str(client.get(lock)).split() for lock in locks]
        return any(words[0] == "lease" and word in words for words in records)


@BREAKS
def test_a_run_that_ends_while_the_store_is_away_keeps_its_result(
    apart: tuple[Site, RedisServer], name: str, trouble: Break
) -> None:
    """A key that can't be freed ends with its lease; the work was done all the same."""
    site, store = apart
    worker = site.start()
    result = site.publish("held", name)
    site.ledger.await_begin(name)
    heal = trouble(store)
    site.open_gate(name)
    site.await_state(result, "SUCCESS")
    site.await_drained()
    heal()
    second = site.await_accepted("held", name, timeout=LEASE + SLACK)
    site.await_state(second, "SUCCESS")
    assert worker.alive
    assert [run.task_id for run in site.ledger.runs(name)] == [result.id, second.id]


def test_a_worker_starts_and_lives_without_a_store(
    apart: tuple[Site, RedisServer], name: str
) -> None:
    """A host that boots before its store does must not need a hand."""
    site, store = apart
    result = site.publish("work", name)
    store.stop()
    worker = site.start()
    eventually(lambda: site.ledger.lines("once_store_unavailable"), "it was put off")
    store.start()
    site.await_state(result, "SUCCESS", timeout=60)
    assert worker.alive
    assert len(site.ledger.runs(name)) == 1
