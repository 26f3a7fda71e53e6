"""G7: a task that keeps killing its process stops after max_deliveries starts, as FAILURE."""

from collections.abc import Iterator

import pytest
from celery import chord, group

from tests.harness.site import Site, rabbit_site, redis_site

pytestmark = pytest.mark.oldest

LIMIT = 3


@pytest.fixture(scope="module")
def poisoned(redis_binary: str) -> Iterator[Site]:
    """One worker that meets all the poison here."""
    assert redis_binary
    with redis_site(once={"max_deliveries": LIMIT}) as site:
        site.start(concurrency=2)
        yield site


def assert_given_up(site: Site, name: str, task: str) -> None:
    """Publish poison; it ends as FAILURE, the worker lives and does other work."""
    (worker,) = site.workers
    result = site.publish(task, name)
    site.await_state(result, "FAILURE", timeout=60)
    assert type(result.result).__name__ == "TooManyDeliveries"
    assert len(site.ledger.runs(name)) == LIMIT
    site.publish("plain", f"{name}-other").get(timeout=30)
    site.await_drained()
    assert worker.alive
    assert len(site.ledger.runs(name)) == LIMIT


@pytest.mark.parametrize("task", ["exit_hard", "kill_itself", "system_exit"])
def test_a_task_that_kills_its_process_is_given_up(
    poisoned: Site, name: str, task: str
) -> None:
    """Plain Celery starts it about three times a second, for ever."""
    assert_given_up(poisoned, name, task)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_task_that_kills_its_process_is_given_up_on_rabbitmq(
    rabbitmq_url: str, redis_binary: str, name: str, queue_type: str
) -> None:
    """Requeueing is the broker's there."""
    assert redis_binary
    with rabbit_site(rabbitmq_url, queue_type, once={"max_deliveries": LIMIT}) as site:
        site.start(concurrency=2)
        assert_given_up(site, name, "exit_hard")


def test_a_memory_error_takes_no_worker_with_it(poisoned: Site, name: str) -> None:
    """Plain Celery takes it for its own, ends, and the next worker gets the message."""
    (worker,) = poisoned.workers
    result = poisoned.publish("memory_error", name)
    poisoned.await_state(result, "FAILURE")
    poisoned.publish("plain", f"{name}-other").get(timeout=30)
    poisoned.await_drained()
    assert worker.alive
    assert 1 <= len(poisoned.ledger.runs(name)) <= LIMIT
    poisoned.await_accepted("memory_error", name)


def test_error_callbacks_of_a_given_up_task_are_called(poisoned: Site, name: str) -> None:
    """Giving up is a failure like any other to those who wait for it."""
    callback = poisoned.app.tasks["collect"].si("told", f"{name}-errback")
    poisoned.publish("exit_hard", name, link_error=callback)
    poisoned.ledger.await_end(f"{name}-errback")


def test_a_chord_with_a_given_up_member_fails_instead_of_hanging(
    poisoned: Site, name: str
) -> None:
    """Nobody else would tell the chord that its header can't become complete."""
    tasks = poisoned.app.tasks
    header = group(tasks["exit_hard"].si(name), tasks["work"].si(f"{name}-good"))
    result = chord(header, tasks["collect"].s(f"{name}-body")).apply_async()
    poisoned.await_state(result, "FAILURE", timeout=60)
    assert not poisoned.ledger.runs(f"{name}-body")
