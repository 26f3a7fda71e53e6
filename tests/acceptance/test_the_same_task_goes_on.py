"""Retry and replace are the same task going on: neither refused, nor overtaken."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually

pytestmark = pytest.mark.oldest


@pytest.fixture(scope="module")
def retrying(redis_binary: str) -> Iterator[Site]:
    """One worker with room for a retry beside its parent."""
    assert redis_binary
    with redis_site() as site:
        site.start(concurrency=3)
        yield site


def await_end_refusing(site: Site, task: str, name: str, result: Any) -> None:
    """
    Publish equal calls until one is taken: not before the task's last end.

    As often as leaves the worker its share of the processor.
    """
    eventually(lambda: not site.refusal(task, name), f"{task} was over", poll=0.001)
    assert result.state == "SUCCESS"


@pytest.mark.parametrize("countdown", [0, 1])
def test_a_retry_keeps_the_key_and_ends_in_one_success(
    retrying: Site, name: str, countdown: int
) -> None:
    """A retry may arrive before the run that published it has ended."""
    result = retrying.publish("retry_once", name, countdown)
    await_end_refusing(retrying, "retry_once", name, result)
    assert result.get(timeout=5) == name
    runs = [run for run in retrying.ledger.runs(name) if run.task_id == result.id]
    assert [run.how for run in runs] == ["Retry", "ok"]
    assert runs[1].fencing_token > runs[0].fencing_token
    retrying.await_drained()
    assert not retrying.ledger.overlaps(name)


def test_a_replacement_keeps_the_key_and_ends_in_one_success(retrying: Site, name: str) -> None:
    """`replace` publishes the same task id with a nesting of one more."""
    result = retrying.publish("replaced", name)
    await_end_refusing(retrying, "replaced", name, result)
    assert result.get(timeout=5) == name
    runs = [run for run in retrying.ledger.runs(name) if run.task_id == result.id]
    assert [run.how for run in runs] == ["Ignore", "ok"]
    retrying.await_drained()
    assert not retrying.ledger.overlaps(name)


def test_a_retry_whose_parents_message_comes_again_runs_once(retrying: Site, name: str) -> None:
    """The parent is completed: its message, delivered again, must not retry once more."""
    result = retrying.publish("retry_once", name, 2)
    retrying.ledger.await_begin(name)
    message = retrying.broker.capture(result.id)
    retrying.ledger.await_end(name)
    retrying.broker.deliver(message)
    retrying.await_state(result, "SUCCESS")
    retrying.await_drained()
    assert [run.how for run in retrying.ledger.runs(name)] == ["Retry", "ok"]


def test_a_message_handed_back_by_its_task_runs_again(retrying: Site, name: str) -> None:
    """`Reject(requeue=True)` is no end: the call is still to be done, and keeps its key."""
    result = retrying.publish("reject_first", name)
    await_end_refusing(retrying, "reject_first", name, result)
    runs = [run for run in retrying.ledger.runs(name) if run.task_id == result.id]
    assert [run.how for run in runs] == ["Reject", "ok"]
    assert [run.attempt for run in runs] == [1, 2]
