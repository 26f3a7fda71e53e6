"""Ends that nobody expects: each of these once left a key held, or work undone."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import celery
import pytest

from tests.conftest import missing
from tests.harness.proxy import Proxy
from tests.harness.redis_server import RedisServer
from tests.harness.site import LEASE, Site, rabbit_site, redis_site
from tests.harness.waiting import eventually, stays

pytestmark = pytest.mark.oldest

LONG_LEASE = 40
"""Seconds: who waited for the lease to end instead of freeing it would be seen."""

SOON = 10
"""Seconds that "soon" may take on a loaded machine; a forgotten claim stays for an hour."""

CELERY = tuple(map(int, celery.__version__.split(".")[:2]))

SLOW = 4.0
"""Seconds that the slow receiver takes: two leases."""


@pytest.fixture(scope="module")
def busy(redis_binary: str) -> Iterator[Site]:
    """A worker with room for two runs of one key, if it were let, and a slow receiver."""
    assert redis_binary
    with redis_site() as site:
        site.start(concurrency=4, environment={"HARNESS_SLOW_RECEIVER": str(SLOW)})
        yield site


@pytest.mark.parametrize(
    "task", ["fail_with_broken_on_failure", "work_with_broken_before_start"]
)
def test_a_task_whose_handler_raises_frees_its_key(busy: Site, name: str, task: str) -> None:
    """
    Celery calls these outside of what it takes for the task.

    It then tells the end of the run like the end of a process, whose message would
    come again: but this one is acknowledged as a failure, and its claim would stay.
    """
    first = busy.publish(task, name)
    busy.await_state(first, "FAILURE")
    second = busy.await_accepted(task, name, timeout=SOON)
    busy.await_state(second, "FAILURE")
    assert not busy.ledger.overlaps(name)


def test_a_retry_whose_on_retry_raises_runs_at_once(busy: Site, name: str) -> None:
    """
    Its message was sent before the handler failed, and must find the key free.

    The state is Celery's affair: it stores the handler's failure beside the retry's
    success, in either order.
    """
    task = "retry_with_broken_on_retry"
    busy.publish(task, name)
    busy.ledger.await_end(name, 2, timeout=SOON)
    busy.await_accepted(task, name, timeout=SOON)
    assert [run.how for run in busy.ledger.runs(name)][:2] == ["Retry", "ok"]
    assert not busy.ledger.overlaps(name)


def test_a_retry_in_before_start_is_the_same_task_going_on(busy: Site, name: str) -> None:
    """
    Nothing was asked yet, and the claim that it would be refused by is its own.

    The state is Celery's affair: it stores the first one's RETRY beside the retry's
    success, in either order.
    """
    task = "work_after_retry_before_start"
    busy.publish(task, name)
    busy.ledger.await_end(name, timeout=SOON)
    busy.await_accepted(task, name, timeout=SOON)
    busy.ledger.await_end(name, 2, timeout=SOON)
    busy.await_drained()
    assert [run.how for run in busy.ledger.runs(name)] == ["ok", "ok"]


def test_a_message_handed_back_in_before_start_is_run_when_it_comes_again(
    busy: Site, name: str
) -> None:
    """Nobody did its work: its end must not count as completed."""
    task = "work_after_reject_before_start"
    result = busy.publish(task, name)
    busy.await_state(result, "SUCCESS", timeout=SOON)
    assert len(busy.ledger.runs(name)) == 1
    busy.await_accepted(task, name, timeout=SOON)


def test_a_run_that_began_without_a_store_frees_its_key(redis_binary: str, name: str) -> None:
    """Its claim outlived the store's absence: who ran it unguarded must give it back."""
    assert redis_binary
    once = {"on_store_unavailable": "run", "lease_ttl": LONG_LEASE}
    with lasting_store() as store, redis_site(conf={"once_url": store.url}, once=once) as site:
        result = site.publish("held", name)
        store.stop()
        worker = site.start()
        site.ledger.await_begin(name)
        store.start()
        assert site.refusal("held", name), "The store forgot the claim: this proves nothing."
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        site.await_accepted("held", name, timeout=SOON)
        assert worker.alive


def test_a_run_taken_up_by_a_store_that_forgot_it_frees_its_key(
    own_redis_server: RedisServer, name: str
) -> None:
    """
    It began unguarded, and renewal gave it a lease once the store was back, empty.

    Its end must free that lease and be recorded, or a late copy runs it again.
    """
    store, lease = own_redis_server, 3 * LEASE
    once = {"on_store_unavailable": "run", "lease_ttl": lease}
    with redis_site(conf={"once_url": store.url}, once=once) as site:
        result = site.publish("held", name)
        store.stop()
        worker = site.start()
        site.ledger.await_begin(name)
        message = site.broker.capture(result.id)
        store.start()
        eventually(lambda: "was taken up again" in worker.log(), "it has a lease")
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        site.await_drained()
        site.broker.deliver(message)
        eventually(lambda: site.ledger.lines("once_already_completed"), "the copy was acked")
        assert not site.refusal("held", name), "The run ended, and its key is still held."


@contextlib.contextmanager
def lasting_store() -> Iterator[RedisServer]:
    """A server that has its data again when it comes back."""
    store = RedisServer("--appendonly", "yes", "--appendfsync", "always").start()
    try:
        yield store
    finally:
        store.close()


@pytest.mark.parametrize("killed", [False, True], ids=["lives", "killed"])
def test_a_message_that_began_in_time_does_not_expire_when_put_off(
    site: Site, name: str, *, killed: bool
) -> None:
    """
    Its copy comes when its time is up: that would call a running task revoked.

    And after the death of the first worker the copy is all that is left.
    """
    site.start_two(concurrency=1)
    result = site.publish("held", name, expires=3)
    run = site.ledger.await_begin(name)
    began = time.monotonic()
    site.broker.deliver(site.broker.capture(result.id))
    eventually(lambda: site.ledger.lines("once_duplicate_delivery"), "it was put off")
    assert time.monotonic() - began < 2.5, "Too slow: the copy itself came too late."
    never_revoked(site, result, until=began + (4 if killed else 6))
    if killed:
        site.worker_of(run.pid).kill()
    site.open_gate(name)
    never_revoked(site, result, until=site.ledger.await_end(name).end / 1e9 + 1)
    site.await_state(result, "SUCCESS")
    site.await_drained()
    assert len(site.ledger.runs(name)) == 1 + killed


def never_revoked(site: Site, result: Any, *, until: float) -> None:
    """Watch the state that a caller sees."""
    left = until - time.monotonic()
    stays(lambda: result.state != "REVOKED", "it was not revoked", during=left)
    assert not any("Discarding revoked" in worker.log() for worker in site.workers)


def test_a_terminated_task_keeps_its_key_while_it_cleans_up(busy: Site, name: str) -> None:
    """Celery counts it as over when it sends the signal; its process works on."""
    first = busy.publish("clean_up", name, 2.5 * LEASE)
    busy.ledger.await_begin(name)
    busy.app.control.revoke(first.id, terminate=True, signal="SIGUSR1")
    eventually(lambda: busy.ledger.lines("told", name), "it was told to stop")
    second = busy.await_accepted("clean_up", name, 0)
    busy.open_gate(name)
    busy.await_state(second, "SUCCESS")
    told, ran = busy.ledger.runs(name)
    assert told.how == "SoftTimeLimitExceeded"
    assert ran.how == "ok"
    assert not busy.ledger.overlaps(name)


def test_a_slow_receiver_costs_no_other_task_its_lease(busy: Site, name: str) -> None:
    """Receivers of once_lease_lost are the user's code: they mail, and servers hang."""
    victim, other = f"{name}-victim", f"{name}-other"
    lost = busy.publish("held", victim)
    busy.publish("held", other)
    busy.ledger.await_begin(victim)
    busy.ledger.await_begin(other)
    give_away_the_lease(busy, lost.id)
    eventually(
        lambda: lost.id in {line.task_id for line in busy.ledger.lines("once_lease_lost")},
        "it was reported",
    )
    stays(lambda: busy.refusal("held", other), "the other was held", during=SLOW + 0.5)
    busy.open_gate(victim)
    busy.open_gate(other)
    busy.ledger.await_end(other)
    assert len(busy.ledger.lines("once_lease_lost")) == 1


def give_away_the_lease(site: Site, task_id: str) -> None:
    """Put another holder in the place of that task's lease."""
    with site.server.client() as client:
        for lock in client.keys("*:lock:*"):
            words = str(client.get(lock)).split()
            if words[0] == "lease" and task_id in words:
                client.set(lock, " ".join(["lease", "other", "other", *words[3:]]), ex=30)
                return
    raise LookupError(task_id)


def test_a_hard_time_limit_in_a_gevent_pool_frees_the_key(redis_binary: str, name: str) -> None:
    """There the limit passes through the task itself, like the end of a process."""
    assert redis_binary
    try:
        import gevent  # noqa: F401, PLC0415  only to see whether it is there
    except ImportError:
        missing("gevent")
    with redis_site(once={"lease_ttl": LONG_LEASE}) as site:
        worker = site.start(pool="gevent", concurrency=3)
        first = site.publish("held", name, time_limit=1)
        site.ledger.await_begin(name)
        second = site.await_accepted("held", name, timeout=SOON)
        site.open_gate(name)
        site.await_state(second, "SUCCESS")
        assert first.state == "FAILURE"
        assert not site.ledger.overlaps(name)
        assert worker.alive


@pytest.mark.skipif(
    CELERY < (5, 7),
    reason="Before Celery 5.7 a cancelled task that exits is a failure of its own.",
)
def test_a_task_cancelled_with_its_connection_that_exits_is_run_again(
    site: Site, name: str
) -> None:
    """
    The message was not acknowledged and comes back: it must not count as completed.

    Celery ends tasks on connection loss with SIGTERM; one that has a handler of its
    own leaves through SystemExit, which looks like an end of its own accord.
    """
    proxy = Proxy(site.server.port)
    conf = {
        "broker_url": f"redis://127.0.0.1:{proxy.port}/0",
        "once_url": site.server.url,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
    }
    worker = site.start(conf=conf)
    result = site.publish("leave_when_terminated", name)
    first = site.ledger.await_begin(name)
    assert proxy.blink() > 0
    site.ledger.await_end(name)
    site.open_gate(name)
    again = site.ledger.await_end(name, 2)
    site.await_state(result, "SUCCESS")
    site.await_accepted("leave_when_terminated", name, timeout=SOON)
    proxy.close()
    assert [run.how for run in site.ledger.runs(name)][:2] == ["SystemExit", "ok"]
    assert again.task_id == result.id
    assert again.pid != first.pid
    assert worker.alive


def test_a_class_with_a_call_of_its_own_is_guarded(busy: Site, name: str) -> None:
    """Flask documents a `__call__` that calls `self.run`, which goes round ours."""
    result = busy.publish("held_in_context", name)
    run = busy.ledger.await_begin(name)
    busy.broker.deliver(busy.broker.capture(result.id))
    eventually(
        lambda: (
            result.id in {line.task_id for line in busy.ledger.lines("once_duplicate_delivery")}
        ),
        "it was put off",
    )
    stays(lambda: len(busy.ledger.runs(name)) == 1, "one run", during=1.5 * LEASE)
    assert busy.refusal("held_in_context", name).holder.fencing_token == run.fencing_token
    busy.open_gate(name)
    busy.await_state(result, "SUCCESS")
    second = busy.await_accepted("held_in_context", name, timeout=SOON)
    busy.await_state(second, "SUCCESS")
    assert [run.task_id for run in busy.ledger.runs(name)] == [result.id, second.id]


@pytest.mark.skipif(
    CELERY < (5, 5), reason="Celery 5.5 brought native delayed delivery for quorum queues."
)
def test_a_retry_that_comes_before_its_parents_end_waits_on_a_quorum_queue(
    rabbitmq_url: str, redis_binary: str, name: str
) -> None:
    """RabbitMQ's native delayed delivery takes whole seconds only, and refuses none."""
    assert redis_binary
    with rabbit_site(rabbitmq_url, "quorum") as site:
        # A direct exchange knows no native delayed delivery.
        site.settings["conf"]["queue"]["exchange_type"] = "topic"
        worker = site.start(concurrency=2)
        result = site.publish("retry_slowly", name)
        site.await_state(result, "SUCCESS", timeout=SOON)
        assert site.ledger.lines("once_duplicate_delivery"), "The retry came late."
        assert [run.how for run in site.ledger.runs(name)] == ["Retry", "ok"]
        assert "countdown must be a positive number" not in worker.log()
        assert "could not be put off" not in worker.log()
