"""G1: of equal calls published at once from any number of processes, one is queued."""

import threading
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from onceguard import AlreadyQueued
from tests.harness.redis_server import RedisServer
from tests.harness.site import Site, redis_site
from tests.harness.waiting import PATIENCE, eventually, stays

pytestmark = pytest.mark.oldest

CROWD = 20


def run_and_drain(site: Site, name: str) -> None:
    """Let a worker do all that was queued; the ledger says what it was."""
    site.start()
    site.ledger.await_end(name)
    site.await_drained()


def test_of_twenty_processes_publishing_at_once_one_queues(site: Site, name: str) -> None:
    """
    The claim is one atomic step at the server, so nineteen see it.

    With a look first and a write after, several of twenty slip through.
    """
    crowd = site.program("tests.harness.publisher", "work", name, str(CROWD))
    assert crowd.wait(timeout=60) == 0, crowd.communicate(timeout=5)[0]
    queued = site.ledger.lines("queued", name)
    refused = site.ledger.lines("refused", name)
    assert (len(queued), len(refused)) == (1, CROWD - 1)
    assert {line.fact("holder") for line in refused} == {queued[0].task_id}
    assert site.broker.waiting() == 1
    run_and_drain(site, name)
    assert [run.task_id for run in site.ledger.runs(name)] == [queued[0].task_id]


def test_of_twenty_threads_publishing_at_once_one_queues(site: Site, name: str) -> None:
    """Threads of a web server share one app and one connection pool."""
    start, taken, refused = threading.Barrier(CROWD), [], []
    task = site.app.tasks["work"]

    def publish() -> None:
        start.wait(timeout=30)
        try:
            taken.append(task.apply_async((name,), ignore_result=True))
        except AlreadyQueued as refusal:
            refused.append(refusal)

    threads = [threading.Thread(target=publish) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(taken), len(refused)) == (1, CROWD - 1)
    assert site.broker.waiting() == 1
    run_and_drain(site, name)
    assert len(site.ledger.runs(name)) == 1


def test_a_refusal_names_its_holder_and_the_time_left(site: Site, name: str) -> None:
    """Whoever is refused must be able to say because of whom, and until when."""
    first = site.publish("held", name)
    refusal = site.refusal("held", name)
    assert refusal.holder.task_id == first.id
    assert refusal.holder.state == "claim"
    assert 3500 < refusal.countdown <= 3600
    assert "held" in refusal.key
    site.start()
    site.ledger.await_begin(name)
    refusal = site.refusal("held", name)
    assert refusal.holder.state == "lease"
    assert refusal.holder.task_id == first.id
    assert refusal.holder.attempt == 1
    site.open_gate(name)


def test_with_skip_the_duplicate_waits_for_the_run_it_was_refused_for(name: str) -> None:
    """A caller that only wants the work done gets the holder's result."""
    with redis_site(once={"on_conflict": "skip"}) as site:
        first = site.publish("work", name)
        second = site.publish("work", name)
        assert second.duplicate is True
        assert second.id == first.id
        assert site.broker.waiting() == 1
        site.start()
        assert second.get(timeout=30) == name
        assert len(site.ledger.runs(name)) == 1


@pytest.mark.parametrize("spelling", [{"kwargs": True}, {"defaults": True}])
def test_equal_calls_are_equal_however_they_are_spelled(
    site: Site, name: str, spelling: dict[str, Any]
) -> None:
    """Positional or keyword, a default given or left out: it is the same work."""
    site.publish("work", name)
    kwargs = {"name": name} if "kwargs" in spelling else {"name": name, "seconds": 0}
    with pytest.raises(AlreadyQueued):
        site.app.tasks["work"].apply_async(kwargs=kwargs)


def test_calls_with_other_arguments_are_not_refused(site: Site, name: str) -> None:
    """A guard that refuses too much loses work."""
    names = [f"{name}-{n}" for n in range(5)]
    for each in names:
        site.publish("work", each)
    site.start()
    for each in names:
        site.ledger.await_end(each)


def test_a_publish_that_fails_frees_its_claim(own_redis_server: RedisServer, name: str) -> None:
    """The broker is down, the store is not: nothing was sent, so nothing is claimed."""
    with redis_site(conf={"once_url": own_redis_server.url}) as site:
        site.server.stop()
        with pytest.raises(OperationalError):
            site.publish("work", name, retry=False, ignore_result=True)
        site.server.start()
        site.publish("work", name)
        assert site.broker.waiting() == 1


def test_a_claim_nobody_runs_ends_after_unique_for(name: str) -> None:
    """A message that never arrives must not block its key for ever."""
    with redis_site(once={"unique_for": 1}) as site:
        first = site.publish("work", name)
        assert site.refusal("work", name)
        second = site.await_accepted("work", name, timeout=10)
        assert second.id != first.id


def test_a_countdown_lengthens_the_claim(name: str) -> None:
    """A call due in three seconds is queued for three seconds, whatever unique_for says."""
    with redis_site(once={"unique_for": 1}) as site:
        site.publish("work", name, countdown=3)
        stays(lambda: site.refusal("work", name), "the key was claimed", during=2)


def test_expires_bounds_the_claim(site: Site, name: str) -> None:
    """A broker may drop an expired message without a word: the claim ends with it."""
    site.publish("work", name, expires=1.5)
    assert site.refusal("work", name).countdown < 5
    eventually(lambda: not site.refusal("work", name), "the claim ended", timeout=10)
