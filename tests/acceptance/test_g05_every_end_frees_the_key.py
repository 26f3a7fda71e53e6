"""G5: the key is free at once after every end that anybody sees, else within the lease."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.harness.ledger import Run
from tests.harness.site import LEASE, SLACK, Site, redis_site
from tests.harness.waiting import eventually, stays
from tests.harness.worker import Worker

pytestmark = pytest.mark.oldest

LONG_LEASE = 40
"""Seconds: who waited for the lease to end instead of freeing it would be seen."""

AT_ONCE = 12
"""Seconds that "at once" may take on a loaded machine, with a child started anew."""


@dataclass(frozen=True)
class End:
    """A way for a call to end."""

    task: str
    options: dict[str, Any] = field(default_factory=dict)
    revoke: dict[str, Any] | None = None
    runs: bool = True


ENDS = {
    "success": End("work"),
    "exception": End("fail"),
    "ignore": End("ignore"),
    "reject": End("reject"),
    "soft-limit": End("held", {"soft_time_limit": 1}),
    "hard-limit": End("held", {"time_limit": 1}),
    "system-exit": End("system_exit"),
    "memory-error": End("memory_error"),
    "os-exit": End("exit_hard"),
    "killed": End("kill_itself"),
    "terminated": End("held", revoke={"terminate": True, "signal": "SIGKILL"}),
    "terminated-softly": End("held", revoke={"terminate": True, "signal": "SIGTERM"}),
    "revoked-before-start": End("work", {"countdown": 1}, revoke={}, runs=False),
    "expired-before-start": End("work", {"countdown": 2, "expires": 1}, runs=False),
}


@pytest.fixture(scope="module")
def crowded(redis_binary: str) -> Iterator[Site]:
    """One site with one prefork worker for the whole table."""
    assert redis_binary
    with redis_site(once={"lease_ttl": LONG_LEASE, "max_deliveries": 2}) as site:
        site.start(concurrency=3)
        yield site


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_same_call_runs_again_soon_after_every_end(
    crowded: Site, name: str, end: End
) -> None:
    """
    A key that outlives its call refuses work that nobody does.

    The lease here is far longer than the test waits. SystemExit and killed children
    come back once more (max_deliveries is 2) and are then given up.
    """
    (worker,) = crowded.workers
    first = crowded.publish(end.task, name, **end.options)
    run = crowded.ledger.await_begin(name) if end.runs else None
    if end.revoke is not None:
        crowded.app.control.revoke(first.id, **end.revoke)
    if run and end.revoke:
        worker.await_death(run.pid)
    second = crowded.await_accepted(end.task, name, timeout=AT_ONCE)
    crowded.open_gate(name)
    eventually(
        lambda: second.id in {run.task_id for run in crowded.ledger.runs(name)},
        "the same call ran",
    )
    assert not crowded.ledger.overlaps(name)
    assert end.runs or first.id not in {run.task_id for run in crowded.ledger.runs(name)}
    assert worker.alive


def test_a_killed_child_frees_its_key_at_once_and_its_call_runs_again(
    crowded: Site, name: str
) -> None:
    """Only the pool process died: the main process saw it, and the message comes back."""
    (worker,) = crowded.workers
    result = crowded.publish("held", name)
    first = crowded.ledger.await_begin(name)
    worker.kill_child(first.pid)
    crowded.open_gate(name)
    again = crowded.ledger.await_end(name, timeout=AT_ONCE)
    assert again.task_id == result.id
    assert again.attempt == 2
    assert again.fencing_token > first.fencing_token
    crowded.await_state(result, "SUCCESS")
    crowded.await_accepted("held", name, timeout=AT_ONCE)


def test_a_call_waiting_to_run_again_keeps_its_key(crowded: Site, name: str) -> None:
    """The call of a dead child is still queued: an equal one would be a duplicate."""
    (worker,) = crowded.workers
    result = crowded.publish("held", name)
    worker.kill_child(crowded.ledger.await_begin(name).pid)
    refusals = []

    def ran_again() -> bool:
        if crowded.ledger.runs(name)[1:]:
            return True
        refusals.append(crowded.refusal("held", name))
        assert refusals[-1], "An equal call was taken beside one that comes back."
        assert refusals[-1].holder.task_id == result.id
        return False

    eventually(ran_again, "it ran again", poll=0.001)
    crowded.open_gate(name)
    crowded.await_state(result, "SUCCESS")
    assert refusals
    assert {run.task_id for run in crowded.ledger.runs(name)} == {result.id}


def test_a_killed_worker_frees_its_key_within_the_lease(site: Site, name: str) -> None:
    """Nobody is left who could free it; the lease ends by itself."""
    one, other = site.start_two(concurrency=1)
    first = site.publish("held", name)
    run = site.ledger.await_begin(name)
    runner = site.worker_of(run.pid)
    runner.kill()
    second = site.await_accepted("held", name, timeout=LEASE + SLACK)
    site.open_gate(name)
    eventually(lambda: ran_after(site, name, run), "another call ran")
    assert second.id != first.id
    assert sum(worker.alive for worker in (one, other)) == 1
    assert not site.ledger.overlaps(name)


def ran_after(site: Site, name: str, run: Run) -> bool:
    return any(each.task_id != run.task_id for each in site.ledger.runs(name))


SHUTDOWNS: dict[str, tuple[signal.Signals, dict[str, Any]]] = {
    "warm": (signal.SIGTERM, {}),
    "soft": (signal.SIGQUIT, {"worker_soft_shutdown_timeout": 1.0}),
    "cold": (signal.SIGQUIT, {}),
}


@pytest.mark.parametrize(("how", "conf"), SHUTDOWNS.values(), ids=SHUTDOWNS.keys())
def test_a_shutdown_leaves_no_key_behind(
    redis_binary: str, name: str, how: signal.Signals, conf: dict[str, Any]
) -> None:
    """
    A warm shutdown waits for its runs; a soft one for a second; a cold one not at all.

    What did not end is done by the next worker, and then the same call runs.
    """
    assert redis_binary
    with redis_site(conf=conf) as site:
        worker = site.start(concurrency=2)
        result = site.publish("held", name)
        run = site.ledger.await_begin(name)
        worker.send(how)
        if how is signal.SIGTERM:
            finish_in_time(site, name, worker)
        worker.await_exit()
        worker.await_death(run.pid)
        site.open_gate(name)
        site.start(concurrency=2)
        site.await_state(result, "SUCCESS")
        second = site.await_accepted("held", name, timeout=2 * LEASE + SLACK)
        site.await_state(second, "SUCCESS")
        assert not site.ledger.overlaps(name)


def finish_in_time(site: Site, name: str, worker: Worker) -> None:
    """Let the run end within a warm shutdown: its key is free before the next start."""
    eventually(lambda: "Warm shutdown" in worker.log(), "the worker was told")
    site.open_gate(name)
    assert worker.await_exit() == 0
    assert len(site.ledger.ended(name)) == 1
    assert not site.refusal("held", name), "The run ended, and its key is still held."


@pytest.mark.parametrize(("how", "conf"), SHUTDOWNS.values(), ids=SHUTDOWNS.keys())
def test_a_shutdown_does_not_run_a_thread_that_cannot_be_stopped_twice(
    redis_binary: str, name: str, how: signal.Signals, conf: dict[str, Any]
) -> None:
    """
    A thread runs on to its end, whatever the shutdown, and its message may come back.

    The process stays until then; so does the lease.
    """
    assert redis_binary
    with redis_site(conf=conf) as site:
        worker = site.start(concurrency=2, pool="threads")
        result = site.publish("held", name)
        site.ledger.await_begin(name)
        worker.send(how)
        site.start(concurrency=2, pool="threads")
        stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=2 * LEASE)
        site.open_gate(name)
        site.ledger.await_end(name)
        site.await_state(result, "SUCCESS")
        second = site.await_accepted("held", name, timeout=2 * LEASE + SLACK)
        site.await_state(second, "SUCCESS")
        assert not site.ledger.overlaps(name)
