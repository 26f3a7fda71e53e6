"""What the store does when its server is away, hung, emptied, full or forgetful."""

import signal
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from onceguard.rules.errors import StoreUnavailable
from onceguard.store.contract import Answer, Renewed
from onceguard.store.tick_contract import Verdict
from tests.harness.redis_server import RedisServer
from tests.store.dropping import DroppingProxy
from tests.store.rig import KEY, Rig, call, open_rig, open_rig_at, record_of
from tests.store.ticking import tick, tick_and_send

TIMEOUT = 0.3
OVER_TCP = pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix socket"])


@pytest.fixture
def own(own_redis_server: RedisServer) -> Rig:
    """A store with a short time-out on a server that may be mistreated."""
    return open_rig(own_redis_server, url=own_redis_server.url, socket_timeout=TIMEOUT)


def refusal(ask: Callable[[], object]) -> tuple[StoreUnavailable, float]:
    """The StoreUnavailable that *ask* must raise, and the seconds that it took."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        ask()
    return caught.value, time.monotonic() - began


def test_scripts_are_sent_again_after_a_script_flush(rig: Rig) -> None:
    """FACTS, Locks 4: a failover or restart forgets them; nobody may notice."""
    rig.run(call("m1"), "n1")
    rig.raw.script_flush()
    assert rig.finish(call("m1"), "n1")


def test_a_restarted_server_is_used_at_once(own: Rig, own_redis_server: RedisServer) -> None:
    """Dead connection, unknown script and lost data together: one call must do."""
    record = own.run(call("m1"), "n1")
    own_redis_server.restart_empty()
    assert own.renew(call("m1"), "n1", record) == (Renewed.RETAKEN, record)


def test_a_stopped_server_is_said_at_once(own: Rig, own_redis_server: RedisServer) -> None:
    """G12: a refused connection needs no time-out, and the error says who and what."""
    own.claim(call("m1"))
    own_redis_server.stop()
    error, took = refusal(lambda: own.claim(call("m2")))
    assert took < TIMEOUT
    assert error.operation == "claim"
    assert str(own_redis_server.port) in error.server


@OVER_TCP
@pytest.mark.parametrize("warm", [True, False], ids=["connected", "not connected"])
def test_a_hung_server_costs_one_time_out(
    own_redis_server: RedisServer, tcp: bool, warm: bool
) -> None:
    """G12: not two, nor redis-py's retries: a web request waits for this."""
    server = own_redis_server
    url = server.url if tcp else server.socket_url
    rig = open_rig(server, url=url, socket_timeout=TIMEOUT)
    if warm:
        rig.claim(call("m0"))
    server.pause()
    try:
        _, took = refusal(lambda: rig.claim(call("m1")))
    finally:
        server.resume()
    assert TIMEOUT * 0.9 < took < TIMEOUT * 1.8


def test_a_late_reply_is_not_taken_for_the_next_ones(
    own: Rig, own_redis_server: RedisServer
) -> None:
    """After a time-out the connection still owes a reply; it must not be used again."""
    own.run(call("m1"), "n1")
    own_redis_server.pause()
    refusal(lambda: own.claim(call("m2")))  # would answer with a holder
    own_redis_server.resume()
    assert own.claim(call("m3", key="another()")) is None
    assert own.put_off(call("m1"), 3) == 3


class SoftTimeLimit(Exception):  # noqa: N818 - as Celery's
    """What a soft time limit raises, wherever the process happens to be."""


def test_an_interrupted_call_does_not_leave_its_reply_to_the_next(rig: Rig) -> None:
    """A soft time limit is an exception out of a signal handler, in the middle of a call."""

    def interrupt(*_: object) -> None:
        raise SoftTimeLimit

    rig.run(call("m1"), "n1")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        rig.raw.client_pause(200)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(SoftTimeLimit):
            rig.claim(call("m2"))  # would answer with a holder
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rig.put_off(call("m1"), 3) == 3


def test_a_long_outage_is_over_when_the_server_is_back(
    own: Rig, own_redis_server: RedisServer
) -> None:
    """
    Failures must not use anything up.

    A worker that asks twice a second for ten minutes makes more than a thousand
    connections that fail; redis-py's pool gives out a hundred, by default, and no more.
    """
    own_redis_server.stop()
    for number in range(150):
        refusal(lambda number=number: own.claim(call(f"m{number}")))  # type: ignore[misc]
    own_redis_server.start()
    assert own.claim(call("m1")) is None


def test_at_the_memory_limit_runs_go_on_and_end_but_nothing_new_is_taken(
    own_redis_server: RedisServer,
) -> None:
    """FACTS, Locks 5: a lease that can't be renewed or freed would end or block real work."""
    rig = open_rig(own_redis_server)
    records = [rig.run(call(f"m{n}", key=f"k{n}"), f"n{n}") for n in range(4)]
    fill_up(rig)
    error, _ = refusal(lambda: rig.claim(call("m9")))
    assert "maxmemory" in str(error)
    refusal(lambda: rig.start(call("m9"), "n9"))
    assert rig.renew(call("m0", key="k0"), "n0", records[0])[0] is Renewed.RENEWED
    assert rig.finish(call("m0", key="k0"), "n0", retry="m0.r1")
    assert rig.abandon(call("m1", key="k1"), "n1")
    assert rig.shorten(call("m2", key="k2"), "n2")
    assert rig.finish(call("m2", key="k2"), "n2")


@pytest.mark.parametrize("why", ["rejected", "lost its lease"])
def test_at_the_memory_limit_a_run_without_lease_or_record_is_completed(
    own_redis_server: RedisServer, why: str
) -> None:
    """Rule 5: the first write is the one that must pass, though it may have nothing to do."""
    rig = open_rig(own_redis_server)
    if why == "lost its lease":
        rig.run(call("m1"), "n1")
        rig.end_by_itself(call("m1"))
    fill_up(rig)
    assert not rig.finish(call("m1"), "n1")
    assert not rig.drop(call("m2"))
    assert rig.record(call("m1")).startswith("done ")
    assert rig.record(call("m2")).startswith("done ")


def test_at_the_memory_limit_an_ended_lease_does_not_end_its_neighbours(
    own_redis_server: RedisServer,
) -> None:
    """Leases of a partition are renewed in one call: one to take up again comes first here."""
    rig = open_rig(own_redis_server)
    gone, kept = call("m1", own_lease=True), call("m2", own_lease=True)
    records = [rig.run(gone, "n1"), rig.run(kept, "n2")]
    rig.end_by_itself(gone)
    rig.raw.pexpire(rig.lease_name(kept), 1000)
    fill_up(rig)
    leases = [rig.lease(gone, "n1", records[0]), rig.lease(kept, "n2", records[1])]
    answers = [answer for answer, _ in rig.store.renew(leases)]
    assert answers == [Renewed.RETAKEN, Renewed.RENEWED]
    assert rig.raw.pttl(rig.lease_name(kept)) > 1000


def fill_up(rig: Rig) -> None:
    """Let the server reach its memory limit, without eviction."""
    rig.raw.config_set("maxmemory-policy", "noeviction")
    rig.raw.config_set("maxmemory", "1mb")


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    own_redis_server: RedisServer,
) -> None:
    """It goes to logs and results; a right one would stand there just the same."""
    with own_redis_server.client() as admin:
        admin.config_set("requirepass", "the-right-one")
    url = own_redis_server.url.replace("://", "://:hunter2@")
    rig = open_rig(own_redis_server, url=url, socket_timeout=TIMEOUT)
    error, took = refusal(lambda: rig.claim(call("m1")))
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(rig.store)
    assert "hunter2" not in shown
    assert ":***@" in error.server
    assert took < TIMEOUT


@pytest.fixture
def dropping(own_redis_server: RedisServer) -> Iterator[Callable[[], Rig]]:
    """Make a store whose next script call is carried out and not answered."""
    proxies: list[DroppingProxy] = []
    warm = open_rig(own_redis_server)  # an unknown script's lost reply would be a NOSCRIPT
    warm.claim(call("warm", key="warm()"))
    warm.run(call("warm", key="warm()"), "w")
    warm.finish(call("warm", key="warm()"), "w")
    warm.store.unsend(tick(0), tick_and_send(warm, tick(0)))

    def make() -> Rig:
        proxies.append(DroppingProxy(own_redis_server.port))
        url = f"redis://127.0.0.1:{proxies[-1].port}/0"
        return open_rig(own_redis_server, url=url)

    yield make
    assert [proxy.dropped for proxy in proxies] == [1] * len(proxies)
    for proxy in proxies:
        proxy.close()


def test_a_claim_whose_reply_is_lost_succeeds(dropping: Callable[[], Rig]) -> None:
    """FACTS, Locks 1: else the publisher takes its own claim for a duplicate."""
    rig = dropping()
    assert rig.claim(call("m1")) is None
    assert rig.held(call("m1")) == "claim m1"
    assert rig.listed(call("m1")) == {KEY}


def test_a_start_whose_reply_is_lost_is_one_start(dropping: Callable[[], Rig]) -> None:
    """Counted twice, five lost replies would fail a healthy task (max_deliveries)."""
    started = dropping().start(call("m1"), "n1")
    assert started.answer is Answer.ACQUIRED
    assert started.held is not None
    assert (started.held.holder.attempt, started.starts) == (1, 1)
    again = dropping().start(call("m1"), "n1")
    assert record_of(again) == record_of(started)


def test_a_finish_whose_reply_is_lost_is_one_finish(dropping: Callable[[], Rig]) -> None:
    """The key passes on once, and completion stands."""
    rig = dropping()
    other = open_rig_at(rig)
    other.run(call("m1"), "n1")
    rig.finish(call("m1"), "n1", retry="m1.r1")
    assert rig.held(call("m1")) == "claim m1.r1"
    assert rig.record(call("m1")) == "done 1 0 n1"


def test_a_tick_whose_reply_is_lost_is_this_beats(dropping: Callable[[], Rig]) -> None:
    """Taken for another beat's, the tick would be sent by nobody."""
    rig = dropping()
    answer = rig.store.tick(tick(1))
    assert (answer.verdict, answer.before) == (Verdict.SEND, "")
    assert rig.held(tick(1).message) == f"claim {tick(1).message.message_id}"


def test_a_tick_taken_back_without_a_reply_is_taken_back(dropping: Callable[[], Rig]) -> None:
    """The second call finds nothing to take back, and must not find anything else."""
    rig = dropping()
    answer = open_rig_at(rig).store.tick(tick(1))
    rig.store.unsend(tick(1), answer)
    assert open_rig_at(rig).store.tick(tick(2, slot=tick(1).slot)).verdict is Verdict.SEND
