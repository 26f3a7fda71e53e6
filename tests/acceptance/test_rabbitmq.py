"""The basic path on RabbitMQ, with classic and quorum queues."""

from collections.abc import Iterator

import pytest

from tests.harness.site import LEASE, Site, rabbit_site
from tests.harness.waiting import eventually, stays

pytestmark = pytest.mark.oldest


@pytest.fixture(params=["classic", "quorum"])
def rabbit(
    request: pytest.FixtureRequest, rabbitmq_url: str, redis_binary: str
) -> Iterator[Site]:
    """A site with a queue of that type, without workers."""
    assert redis_binary
    with rabbit_site(rabbitmq_url, request.param) as site:
        yield site


def test_a_call_is_queued_once_runs_once_and_frees_its_key(rabbit: Site, name: str) -> None:
    """Claim, start, renewal and finish do not depend on the broker."""
    rabbit.start()
    result = rabbit.publish("held", name)
    assert rabbit.refusal("held", name)
    run = rabbit.ledger.await_begin(name)
    stays(lambda: rabbit.refusal("held", name), "the key was held", during=1.5 * LEASE)
    assert rabbit.refusal("held", name).holder.fencing_token == run.fencing_token
    rabbit.open_gate(name)
    rabbit.await_state(result, "SUCCESS")
    again = rabbit.await_accepted("held", name, timeout=LEASE)
    rabbit.await_state(again, "SUCCESS")


def test_a_killed_childs_call_runs_again(rabbit: Site, name: str) -> None:
    """The main process frees the lease before it hands the message back."""
    worker = rabbit.start()
    result = rabbit.publish("held", name)
    first = rabbit.ledger.await_begin(name)
    worker.kill_child(first.pid)
    rabbit.open_gate(name)
    rabbit.await_state(result, "SUCCESS")
    assert [run.attempt for run in rabbit.ledger.runs(name)] == [1, 2]
    assert worker.alive


def test_a_killed_workers_call_runs_again(rabbit: Site, name: str) -> None:
    """The broker notices at once; the lease ends a moment later."""
    rabbit.start_two(concurrency=1)
    result = rabbit.publish("held", name)
    run = rabbit.ledger.await_begin(name)
    rabbit.worker_of(run.pid).kill()
    rabbit.ledger.await_begin(name, 2)
    rabbit.open_gate(name)
    rabbit.await_state(result, "SUCCESS")
    assert [run.attempt for run in rabbit.ledger.runs(name)] == [1, 2]


def test_a_second_delivery_does_not_run_beside_the_first(rabbit: Site, name: str) -> None:
    """It is put off with a countdown, which each type of queue does in its own way."""
    result = rabbit.publish("held", name)
    rabbit.broker.deliver(rabbit.broker.capture(result.id))
    rabbit.start(concurrency=3)
    eventually(lambda: rabbit.ledger.lines("once_duplicate_delivery"), "it was put off")
    rabbit.ledger.await_begin(name)
    stays(lambda: len(rabbit.ledger.runs(name)) == 1, "one run", during=1.5 * LEASE)
    rabbit.open_gate(name)
    rabbit.await_state(result, "SUCCESS")
    eventually(lambda: rabbit.ledger.lines("once_already_completed"), "the copy was acked")
    assert len(rabbit.ledger.runs(name)) == 1


def test_a_retry_ends_in_one_success(rabbit: Site, name: str) -> None:
    """A retry is a new message with the same task id."""
    rabbit.start()
    result = rabbit.publish("retry_once", name, 1)
    rabbit.await_state(result, "SUCCESS")
    assert [run.how for run in rabbit.ledger.runs(name)] == ["Retry", "ok"]
    rabbit.await_accepted("retry_once", name, timeout=LEASE)
