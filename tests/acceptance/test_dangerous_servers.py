"""Workers and beats look at the lock server when they start: refused, warned of, or away."""

from collections.abc import Iterator

import pytest

from tests.harness.redis_server import RedisServer
from tests.harness.sentinels import AT_ONCE, follow
from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually

SECRET = "hunter2"  # noqa: S105 - of servers that live for a second


@pytest.fixture
def replica(own_redis_server: RedisServer) -> Iterator[RedisServer]:
    """A server that takes no writes."""
    server = RedisServer(*AT_ONCE).start()
    follow(server, own_redis_server)
    yield server
    server.close()


def test_workers_and_beats_do_not_start_on_a_replica(
    replica: RedisServer, own_redis_server: RedisServer
) -> None:
    """A task that can't take its lock would be put off for ever, and beat would skip all."""
    replica.require(SECRET)
    url = replica.url.replace("://", f"://:{SECRET}@")
    with redis_site(conf={"once_url": url}) as site:
        for program in (site.spawn(), site.spawn_beat(schedule={})):
            assert program.await_exit() != 0
            log = program.log()
            assert f"is a replica of 127.0.0.1:{own_redis_server.port}" in log
            assert "Set once_url to the master" in log
            assert SECRET not in log


def test_what_is_switched_off_looks_at_nothing(replica: RedisServer) -> None:
    """A test environment needs no lock server."""
    conf = {"once_url": replica.url, "once_enabled": False}
    with redis_site(conf=conf) as site:
        assert site.start().alive


def test_a_worker_on_a_server_that_evicts_warns_once_and_works(
    own_redis_server: RedisServer, name: str
) -> None:
    """It can keep locks, for as long as there is room."""
    with own_redis_server.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    with redis_site(conf={"once_url": own_redis_server.url}) as site:
        worker = site.start()
        site.publish("work", name).get(timeout=30)
        (line,) = [line for line in worker.log().splitlines() if "maxmemory-policy" in line]
        assert "WARNING" in line
        assert "allkeys-lru" in line


@pytest.mark.parametrize("trouble", ["stop", "pause"])
def test_a_beat_starts_though_the_server_is_away(
    own_redis_server: RedisServer, trouble: str
) -> None:
    """G12; and it says so, in one line."""
    with redis_site(conf={"once_url": own_redis_server.url}) as site:
        getattr(own_redis_server, trouble)()
        beat = site.beat(schedule={})
        eventually(lambda: "does not answer" in beat.log(), "it said so")
        assert beat.log().count("does not answer") == 1
        assert beat.alive
        own_redis_server.resume()


def test_a_wrong_option_ends_a_worker_with_its_sentence(site: Site) -> None:
    """As any wrong setting does."""
    worker = site.spawn(conf={"once_url": f"sentinel://:{SECRET}@127.0.0.1"})
    assert worker.await_exit() != 0
    assert "once_transport_options={'master_name'" in worker.log()
    assert SECRET not in worker.log()
