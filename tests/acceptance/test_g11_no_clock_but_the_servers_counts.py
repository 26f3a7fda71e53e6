"""G11: correctness does not depend on the clocks of publishers and workers."""

import os
import shutil
import subprocess
from typing import Final

import pytest

from tests.conftest import missing
from tests.harness.site import LEASE, SLACK, Site, redis_site
from tests.harness.waiting import eventually, stays
from tests.harness.worker import Worker

HOUR: Final = 3600


@pytest.fixture(scope="module")
def preload() -> str:
    """What makes a process load libfaketime."""
    if shutil.which("faketime") is None:
        missing("faketime")
    command = ["faketime", "-f", "+0s", "sh", "-c", "echo $LD_PRELOAD"]
    return subprocess.check_output(command, text=True).strip()


def skewed(preload: str, seconds: int) -> dict[str, str]:
    """Environment of a process whose wall clock is wrong by so much."""
    return {
        "LD_PRELOAD": preload,
        "FAKETIME": f"{seconds:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def publish_with_clock(site: Site, name: str, environment: dict[str, str]) -> str:
    """Publish `work` from a process with a wrong clock; returns what it was told."""
    before = len(site.ledger.lines(name=name))
    publisher = site.program("tests.harness.publisher", "work", name, "1", **environment)
    assert publisher.wait(timeout=60) == 0, publisher.communicate(timeout=5)[0]
    return site.ledger.lines(name=name)[before].event


def test_a_skewed_clock_is_really_skewed(preload: str) -> None:
    """The other tests here prove nothing if the clocks agree."""
    environment = os.environ | skewed(preload, -HOUR)
    date = subprocess.check_output(["date", "+%s"], env=environment, text=True)
    truth = subprocess.check_output(["date", "+%s"], text=True)
    assert abs(int(truth) - int(date) - HOUR) < 5


@pytest.mark.parametrize("skew", [-2 * HOUR, 2 * HOUR])
def test_publishers_with_wrong_clocks_refuse_each_other(
    site: Site, name: str, preload: str, skew: int
) -> None:
    """A claim that ended by a client's clock would have ended hours ago, or never end."""
    assert publish_with_clock(site, name, skewed(preload, skew)) == "queued"
    assert publish_with_clock(site, name, skewed(preload, -skew)) == "refused"
    refusal = site.refusal("work", name)
    assert 3400 < refusal.countdown <= 3600


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_workers_with_wrong_clocks_keep_and_free_the_key(
    site: Site, name: str, preload: str, skew: int
) -> None:
    """
    Renewal, refusal, release and fencing token of workers two hours apart.

    Which call the second worker runs is the broker's business: one whose clock is
    ahead takes every unacknowledged message for overdue, the first call's too.
    """
    one = site.spawn(concurrency=1, environment=skewed(preload, skew))
    one.await_ready()
    site.publish("held", name)
    first = site.ledger.await_begin(name)
    stays(lambda: site.refusal("held", name), "the lease was renewed", during=2 * LEASE)
    one.freeze()
    other = site.spawn(concurrency=1, environment=skewed(preload, -skew))
    other.await_ready()

    def ran_again() -> bool:
        site.refusal("held", name)  # or taken, unless the first call runs again before
        return len(site.ledger.runs(name)) > 1

    eventually(ran_again, "the key was free for a run", timeout=LEASE + SLACK)
    run = site.ledger.await_begin(name, 2)
    assert run.fencing_token > first.fencing_token
    site.open_gate(name)
    site.await_state(site.app.AsyncResult(run.task_id), "SUCCESS")
    site.await_accepted("held", name, timeout=AT_ONCE)


AT_ONCE: Final = 5


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_a_delivery_put_off_between_skewed_workers_comes_back_in_time(
    redis_binary: str, name: str, preload: str, skew: int
) -> None:
    """
    A countdown travels as a date: hours of skew must not become hours of waiting.

    Nor a spin: whoever is early puts it off again at once. The copy is published by
    one worker and taken by the other, which is the only one that consumes by then.
    """
    assert redis_binary
    with redis_site(once={"scope": "while_executing", "on_run_conflict": "reschedule"}) as site:
        runner = site.start(concurrency=2, environment=skewed(preload, skew))
        site.publish("held", name)
        site.ledger.await_begin(name)
        other = site.start(concurrency=2, environment=skewed(preload, -skew))
        consume(site, other, on=False)
        second = site.publish("held", name)
        eventually(lambda: site.ledger.lines("once_rescheduled"), "it was put off")
        consume(site, other, on=True)
        consume(site, runner, on=False)
        eventually(lambda: f"[{second.id}] received" in other.log(), "the other had it")
        stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=LEASE)
        assert len(site.ledger.lines("once_rescheduled")) < 10
        site.open_gate(name)
        site.await_state(second, "SUCCESS", timeout=2 * LEASE + SLACK)
        assert not site.ledger.overlaps(name)


def consume(site: Site, worker: Worker, *, on: bool) -> None:
    """Let a worker take messages from the queue, or not; it answers when that is so."""
    control = site.app.control
    tell = control.add_consumer if on else control.cancel_consumer
    assert tell("celery", destination=[worker.name], reply=True, timeout=10, limit=1)
