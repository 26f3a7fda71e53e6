"""G2: no two runs of one key overlap, across workers, as long as leases hold."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.ledger import Run
from tests.harness.site import LEASE, Site, redis_site
from tests.harness.waiting import eventually, stays

pytestmark = pytest.mark.oldest

CALLS = 10


@pytest.mark.parametrize(("policy", "runs"), [("reschedule", CALLS), ("skip", 1)])
def test_ten_equal_calls_on_two_workers_run_one_after_the_other(
    redis_binary: str, name: str, policy: str, runs: int
) -> None:
    """Nothing is refused at publish, so the lease alone keeps the runs apart."""
    assert redis_binary
    once = {"scope": "while_executing", "on_run_conflict": policy, "lease_ttl": 1}
    with redis_site(once=once) as site:
        site.start_two()
        results = [site.publish("work", name, 0.2) for _ in range(CALLS)]
        for result in results:
            site.await_state(result, "SUCCESS", timeout=90)
        site.await_drained()
        assert len(site.ledger.runs(name)) >= runs
        assert not site.ledger.overlaps(name)
        if policy == "reschedule":
            assert len({run.task_id for run in site.ledger.runs(name)}) == CALLS


def keep_asleep(site: Site, name: str, run: Run) -> None:
    """The body sleeps; only renewal can keep its lease."""
    stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=2.5 * LEASE)
    assert not run.finished
    site.open_gate(name)


def keep_stopped(site: Site, name: str, run: Run) -> None:
    """The child is stopped, so nothing in it can renew."""
    os.kill(run.pid, signal.SIGSTOP)
    try:
        stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=2.5 * LEASE)
        site.open_gate(name)
    finally:
        os.kill(run.pid, signal.SIGCONT)


def keep_busy(site: Site, name: str, run: Run) -> None:
    """The child holds its GIL in C code, so no thread of it can renew."""
    assert run.pid
    stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=2 * LEASE)


@pytest.mark.parametrize(
    ("task", "args", "keep"),
    [
        ("held", (), keep_asleep),
        ("held", (), keep_stopped),
        ("nap_native", (2.5 * LEASE,), keep_busy),
    ],
    ids=["asleep", "child-stopped", "in-native-code"],
)
def test_a_run_longer_than_its_lease_keeps_it(
    redis_binary: str,
    name: str,
    task: str,
    args: tuple[Any, ...],
    keep: Callable[[Site, str, Run], None],
) -> None:
    """
    The main process renews for its children, whatever they are busy with.

    An equal call waits at a second worker and would start as soon as the lease ends.
    """
    assert redis_binary
    with redis_site(once={"scope": "while_executing", "on_run_conflict": "reschedule"}) as site:
        site.start_two(concurrency=1)
        site.publish(task, name, *args)
        first = site.ledger.await_begin(name)
        second = site.publish(task, name, *args)
        eventually(lambda: site.ledger.lines("once_rescheduled"), "the second call waited")
        keep(site, name, first)
        site.ledger.await_end(name, 2)
        site.await_state(second, "SUCCESS")
        assert not site.ledger.overlaps(name)
        assert site.ledger.runs(name)[1].fencing_token > first.fencing_token
