"""Writes that replicas are asked to confirm: ``once_wait_replicas``."""

import pytest

from onceguard.rules.errors import StoreUnavailable
from onceguard.store.opening import open_store
from onceguard.store.replicas import Replicas
from tests.harness.proxy import Proxy
from tests.harness.redis_server import RedisServer
from tests.store.behind import Pair, seconds_of
from tests.store.rig import PREFIX, Rig, call
from tests.store.test_connections import tour_of

TIMEOUT = 2.0
"""Of which a loaded machine may take a good part for an ordinary call."""

SERVER = "redis://:***@lock.example:6379/0"
TOO_FEW = (
    f"WARNING of the replicas of {SERVER} within 1000 ms 0 confirmed a write, not 1 "
    "(once_wait_replicas): a failover now may lose locks. They are asked again every 5 s."
)


def open_waiting_rig(
    server: RedisServer, *, wanted: int = 1, port: int = 0, timeout: float = 10.0
) -> tuple[Rig, Replicas]:
    """A rig whose store waits for so many replicas."""
    replicas = Replicas(wanted, server=SERVER, socket_timeout=timeout)
    url = f"redis://127.0.0.1:{port or server.port}/0"
    store = open_store(url, prefix=PREFIX, socket_timeout=timeout, replicas=replicas)
    return Rig(store, server.client()), replicas


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, each with its level."""
    return [f"{each.levelname} {each.getMessage()}" for each in caplog.records]


def test_what_was_answered_is_on_the_replica(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time, and not only soon: whoever fails over now finds it."""
    one, other, _ = pair
    rig, _ = open_waiting_rig(one)
    with other.client() as replica:
        for number in range(200):
            message = call(f"m{number}", key=f"task({number})")
            rig.claim(message)
            assert replica.exists(rig.names(message).lock(message))
    assert said(caplog) == []


def test_it_costs_no_further_round_trip(pair: Pair) -> None:
    """One WAIT for each write, behind its script; what only asks does not wait."""
    one, _, _ = pair
    rig, _ = open_waiting_rig(one)
    tour_of(rig, "warm")
    one.flush()
    tour_of(rig, "counted")
    counts = one.command_counts()
    assert counts["evalsha"] == 5  # two claims, a start, a finish, and who holds it
    assert counts["wait"] == 4


def test_a_replica_that_is_away_slows_one_call_and_is_said_once(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Renewals must be in time all the while; the lock server itself is well."""
    one, other, _ = pair
    rig, replicas = open_waiting_rig(one, timeout=TIMEOUT)
    tour_of(rig, "before")
    other.pause()
    replicas._not_before = 0.0
    assert TIMEOUT * 0.45 < seconds_of(lambda: tour_of(rig, "one")) < TIMEOUT
    assert seconds_of(lambda: tour_of(rig, "two")) < TIMEOUT / 4
    replicas._not_before = 0.0
    assert TIMEOUT * 0.45 < seconds_of(lambda: tour_of(rig, "three")) < TIMEOUT
    assert said(caplog) == [TOO_FEW]
    other.resume()
    replicas._not_before = 0.0
    tour_of(rig, "four")
    tour_of(rig, "five")
    assert said(caplog)[1:] == [f"WARNING the replicas of {SERVER} confirm writes again"]


def test_more_replicas_than_there_are_is_a_warning_only(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """WAIT proves nothing, so nothing is refused for it."""
    rig, _ = open_waiting_rig(pair[0], wanted=2, timeout=TIMEOUT)
    tour_of(rig, "any")
    (line,) = said(caplog)
    assert "confirmed a write, not 2" in line


def test_a_server_that_refuses_to_wait_is_used_all_the_same(
    own_redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Managed servers leave commands out."""
    with own_redis_server.client() as admin:
        admin.execute_command("ACL SETUSER default -wait")
    rig, _ = open_waiting_rig(own_redis_server)
    tour_of(rig, "any")
    (line,) = said(caplog)
    assert "none (" in line
    assert "wait" in line.lower()


def test_replies_stay_in_step_where_the_script_is_unknown_or_refused(pair: Pair) -> None:
    """The reply to WAIT follows an error, too; left unread it would be the next one's."""
    one, _, _ = pair
    rig, _ = open_waiting_rig(one)
    tour_of(rig, "before")
    rig.raw.script_flush()
    tour_of(rig, "unknown")
    rig.raw.config_set("maxmemory", "1mb")
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        rig.claim(call("m1"))
    rig.raw.config_set("maxmemory", 0)
    tour_of(rig, "after")


def test_a_server_that_hangs_while_it_waits_is_unavailable(pair: Pair) -> None:
    """As ever: within one time-out, and what was claimed is taken back."""
    one, _, _ = pair
    proxy = Proxy(one.port)
    rig, _ = open_waiting_rig(one, port=proxy.port, timeout=TIMEOUT)
    tour_of(rig, "before")
    proxy.hang()

    def fail() -> None:
        with pytest.raises(StoreUnavailable):
            rig.claim(call("m1"))

    assert TIMEOUT * 0.9 < seconds_of(fail) < TIMEOUT * 1.8
    proxy.close()
