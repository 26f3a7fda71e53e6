"""G3: a message redelivered while it runs is neither run beside itself nor lost."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.harness.proxy import Proxy
from tests.harness.site import LEASE, SLACK, Site, rabbit_site, redis_site
from tests.harness.waiting import eventually, stays
from tests.harness.worker import Worker

pytestmark = pytest.mark.oldest

SHORT = 2.0
"""Visibility timeout in seconds: shorter than what the tasks here take."""


def received(worker: Worker, task_id: str) -> int:
    """How often a message of that task arrived at a worker."""
    return worker.log().count(f"[{task_id}] received")


def twice(site: Site, task_id: str) -> bool:
    """Whether a message of that task arrived more than once, at whichever worker."""
    return sum(received(worker, task_id) for worker in site.workers) > 1


@pytest.mark.parametrize("keeper", [True, False], ids=["kept-visible", "redelivered"])
def test_a_task_longer_than_the_visibility_timeout_runs_once(
    redis_binary: str, name: str, *, keeper: bool
) -> None:
    """
    With the keeper the message never comes again; without it, it is put off.

    The second worker sweeps for overdue messages when it starts.
    """
    assert redis_binary
    conf = {"once_keep_visible": keeper}
    with redis_site(visibility_timeout=SHORT, conf=conf) as site:
        site.start(concurrency=1)
        result = site.publish("held", name)
        site.ledger.await_begin(name)
        stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=SHORT + 1)
        site.start(concurrency=1)
        if not keeper:
            eventually(lambda: twice(site, result.id), "the message came again")
        stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=1.5 * LEASE)
        site.open_gate(name)
        site.await_state(result, "SUCCESS")
        site.await_drained()
        assert len(site.ledger.runs(name)) == 1
        assert result.get(timeout=5) == name
        assert twice(site, result.id) is not keeper


@pytest.mark.parametrize("keeper", [True, False], ids=["kept-visible", "redelivered"])
def test_an_eta_beyond_the_visibility_timeout_runs_once(
    redis_binary: str, name: str, *, keeper: bool
) -> None:
    """A waiting message is unacknowledged too, and plain Celery runs every copy of it."""
    assert redis_binary
    conf = {"once_keep_visible": keeper}
    with redis_site(visibility_timeout=1, conf=conf) as site:
        first = site.start(concurrency=2)
        result = site.publish("work", name, 1.0, countdown=8)
        eventually(lambda: received(first, result.id), "the first worker had it")
        stays(lambda: not site.ledger.runs(name), "not yet due", during=1.5)
        site.start(concurrency=2)
        if not keeper:
            eventually(lambda: twice(site, result.id), "the message came again")
        site.ledger.await_end(name)
        site.await_state(result, "SUCCESS")
        site.await_drained()
        assert len(site.ledger.runs(name)) == 1


@contextlib.contextmanager
def two_workers_behind_proxies(
    site: Site, port: int, url: str
) -> Iterator[dict[Worker, Proxy]]:
    """Two workers, each with a connection to the broker that can be cut."""
    proxies = Proxy(port), Proxy(port)
    own_store = {"once_url": site.server.url}
    workers = [
        site.spawn(concurrency=1, conf={"broker_url": url.format(port=proxy.port), **own_store})
        for proxy in proxies
    ]
    yield {worker.await_ready(): proxy for worker, proxy in zip(workers, proxies, strict=True)}
    for proxy in proxies:
        proxy.close()


def cut_the_runners_connection(site: Site, name: str, proxies: dict[Worker, Proxy]) -> None:
    """
    Run one call, drop its worker's connections in mid-run, and see what happens.

    They are accepted again at once: the message comes back, to either worker.
    """
    result = site.publish("held", name)
    run = site.ledger.await_begin(name)
    assert proxies[site.worker_of(run.pid)].blink() > 0
    eventually(lambda: twice(site, result.id), "the message came again")
    stays(lambda: len(site.ledger.runs(name)) == 1, "one run", during=1.5 * LEASE)
    site.open_gate(name)
    site.await_state(result, "SUCCESS")
    site.await_drained()
    assert len(site.ledger.runs(name)) == 1
    assert result.get(timeout=5) == name


def test_a_redis_connection_cut_in_mid_run_does_not_run_the_task_twice(
    site: Site, name: str
) -> None:
    """A worker that loses its connection gives its messages back, and runs on."""
    url = "redis://127.0.0.1:{port}/0"
    with two_workers_behind_proxies(site, site.server.port, url) as proxies:
        cut_the_runners_connection(site, name, proxies)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_rabbitmq_connection_cut_in_mid_run_does_not_run_the_task_twice(
    rabbitmq_url: str, redis_binary: str, name: str, queue_type: str
) -> None:
    """RabbitMQ hands an unacknowledged message to the next consumer at once."""
    assert redis_binary
    url = rabbitmq_url.replace(":5672", ":{port}")
    with (
        rabbit_site(rabbitmq_url, queue_type) as site,
        two_workers_behind_proxies(site, 5672, url) as proxies,
    ):
        cut_the_runners_connection(site, name, proxies)


def test_a_delivery_put_off_completes_the_work_of_a_worker_killed_meanwhile(
    site: Site, name: str
) -> None:
    """
    A second delivery that is acked and dropped takes the first one's protection along.

    On Redis both share one entry in `unacked`: the copy that was put off is then
    all that is left of the call when the first worker dies.
    """
    workers = site.start_two(concurrency=1)
    result = site.publish("held", name)
    run = site.ledger.await_begin(name)
    site.broker.deliver(site.broker.capture(result.id))
    eventually(lambda: site.ledger.lines("once_duplicate_delivery"), "it was put off")
    runner = site.worker_of(run.pid)
    runner.kill()
    site.open_gate(name)
    again = site.ledger.await_end(name, timeout=2 * LEASE + SLACK)
    assert again.task_id == result.id
    assert again.attempt == 2
    assert not site.ledger.overlaps(name)
    site.await_state(result, "SUCCESS")
    site.await_drained()
    assert sum(worker.alive for worker in workers) == 1


def test_many_redeliveries_do_not_multiply(site: Site, name: str) -> None:
    """Copies put off carry a generation, and older ones are acked away, or they'd pile up."""
    site.start_two(concurrency=2)
    result = site.publish("held", name)
    site.ledger.await_begin(name)
    message = site.broker.capture(result.id)
    for _ in range(20):
        site.broker.deliver(message)
    eventually(lambda: site.broker.load() <= 8, "copies were few")
    stays(lambda: site.broker.load() <= 8, "copies stayed few", during=1.5 * LEASE)
    assert site.broker.load() > 0
    site.open_gate(name)
    site.await_state(result, "SUCCESS")
    site.await_drained()
    assert len(site.ledger.runs(name)) == 1
