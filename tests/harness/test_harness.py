"""
The harness is proved with plain Celery: a witness that sees nothing proves nothing.

Each test here shows one thing that the library has to change.
"""

import signal
import threading
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.harness.ledger import Ledger
from tests.harness.proxy import Proxy
from tests.harness.redis_server import RedisServer
from tests.harness.site import Site, rabbit_site, redis_site
from tests.harness.waiting import PATIENCE, eventually, stays


@pytest.fixture
def plain(redis_binary: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose tasks are not guarded, with a short visibility timeout."""
    assert redis_binary
    monkeypatch.setenv("HARNESS_UNGUARDED", "1")
    with redis_site(visibility_timeout=2) as site:
        yield site


def test_the_ledger_sees_equal_calls_run_at_once(plain: Site) -> None:
    """Plain Celery runs both: had the ledger no eyes, G2's test would always be green."""
    plain.start(concurrency=2)
    plain.publish("held", "a")
    plain.publish("held", "a")
    plain.ledger.await_begin("a", 2)
    plain.open_gate("a")
    plain.ledger.await_end("a", 2)
    assert len(plain.ledger.overlaps("a")) == 1
    assert [run.how for run in plain.ledger.runs("a")] == ["ok", "ok"]


def test_a_killed_childs_run_ends_with_its_process_and_is_delivered_again(plain: Site) -> None:
    """The ledger must not count a dead run as running, or a rerun would be an overlap."""
    worker = plain.start(concurrency=1)
    plain.publish("held", "a")
    first = plain.ledger.await_begin("a")
    worker.kill_child(first.pid)
    plain.ledger.await_begin("a", 2)
    plain.open_gate("a")
    plain.ledger.await_end("a")
    assert [run.how for run in plain.ledger.runs("a")] == ["dead", "ok"]
    assert not plain.ledger.overlaps("a")
    assert worker.alive


def test_a_message_given_back_by_hand_is_run_again(plain: Site) -> None:
    """`capture` and `deliver` make the redelivery that G4 is about."""
    plain.start()
    result = plain.publish("held", "a")
    plain.ledger.await_begin("a")
    message = plain.broker.capture(result.id)
    plain.open_gate("a")
    plain.ledger.await_end("a")
    plain.broker.deliver(message)
    again = plain.ledger.await_end("a", 2)
    assert again.task_id == result.id


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent", "eventlet"])
def test_killing_a_worker_leaves_no_process(plain: Site, pool: str) -> None:
    """Tests of crashes must not leave orphans that go on writing to the ledger."""
    if pool in {"gevent", "eventlet"}:
        pytest.importorskip(pool)
    worker = plain.start(pool=pool)
    plain.publish("held", "a")
    run = plain.ledger.await_begin("a")
    assert worker.owns(run.pid)
    worker.kill()
    assert not worker.processes()
    assert plain.ledger.runs("a")[0].how == "dead"


def test_a_frozen_worker_does_nothing_until_thawed(plain: Site) -> None:
    """SIGSTOP of main and children is the stall that a lease can't see."""
    worker = plain.start(concurrency=1)
    plain.publish("held", "a")
    plain.ledger.await_begin("a")
    worker.freeze()
    plain.open_gate("a")
    stays(lambda: not plain.ledger.ended("a"), "a frozen run ends nothing", during=0.5)
    worker.thaw()
    plain.ledger.await_end("a")
    assert worker.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_rabbitmq_delivers_a_captured_message_twice(
    rabbitmq_url: str, queue_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a lost connection does on AMQP can be had without one."""
    monkeypatch.setenv("HARNESS_UNGUARDED", "1")
    with rabbit_site(rabbitmq_url, queue_type) as site:
        result = site.publish("work", "a")
        message = site.broker.capture(result.id)
        site.broker.deliver(message)
        eventually(lambda: site.broker.waiting() == 2, "two messages lay there")
        site.start()
        again = site.ledger.await_end("a", 2)
        assert again.task_id == result.id


def test_a_redis_server_forgets_hangs_and_comes_back(own_redis_server: RedisServer) -> None:
    """A stopped, hung and emptied store are three different troubles."""
    port = own_redis_server.port
    with own_redis_server.client() as client:
        client.set("a", 1)
        assert own_redis_server.command_counts()["set"] == 1
    own_redis_server.pause()
    own_redis_server.resume()
    own_redis_server.restart_empty()
    assert own_redis_server.port == port
    with own_redis_server.client() as client:
        assert client.get("a") is None


def test_a_proxy_cuts_hangs_and_heals(own_redis_server: RedisServer) -> None:
    """A cut connection is told to both sides, a hung one to neither."""
    proxy = Proxy(own_redis_server.port)
    client = redis.Redis(port=proxy.port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))
    client.ping()
    assert proxy.cut() == 1
    with pytest.raises(redis.ConnectionError):
        client.ping()
    proxy.heal()
    client.ping()
    proxy.hang()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    proxy.close()
    client.close()


def test_ledger_lines_of_many_threads_stay_whole(tmp_path: object) -> None:
    """One write for each line, or the witness stammers just when it matters."""
    ledger = Ledger(f"{tmp_path}/ledger")

    def write(name: str) -> None:
        for _ in range(50):
            ledger.note("x", name)

    threads = [threading.Thread(target=write, args=(f"n{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(ledger.lines("x")) == 400
