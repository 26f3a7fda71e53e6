"""One of three masters is away, hangs, is full, is no master, or forgets: nobody notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onceguard.store.contract import Answer, Renewed
from onceguard.store.tick_contract import Verdict
from tests.store.rig import record_of
from tests.store.ticking import ENTRY, tick
from tests.store.voting import (
    M1,
    M2,
    App,
    holds,
    live_through,
    names_of,
    notes,
    staged,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.masters import Masters
    from tests.harness.redis_server import RedisServer


def die(server: RedisServer, _: RedisServer) -> None:
    server.stop()


def hang(server: RedisServer, _: RedisServer) -> None:
    server.pause()


def be_full(server: RedisServer, _: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "1")


def be_demoted(server: RedisServer, other: RedisServer) -> None:
    server.ask("REPLICAOF", "127.0.0.1", other.port)


def forget_scripts(server: RedisServer, _: RedisServer) -> None:
    server.ask("SCRIPT", "FLUSH")


def forget_all(server: RedisServer, _: RedisServer) -> None:
    server.restart_empty()


WHICH = pytest.mark.parametrize("which", [0, 1, 2])
MISDEEDS = pytest.mark.parametrize(
    "misdeed", [die, hang, be_full, be_demoted, forget_scripts, forget_all]
)


@MISDEEDS
@WHICH
def test_one_of_three_may_misbehave(
    masters: Masters, app: App, misdeed: Callable[[RedisServer, RedisServer], None], which: int
) -> None:
    """Whichever it is: that it is the first to be asked must not cost the others their turn."""
    live_through(app)
    misdeed(masters.servers[which], masters.servers[which - 1])
    live_through(app)


@MISDEEDS
@WHICH
def test_one_of_three_may_misbehave_from_the_start(
    masters: Masters, app: App, misdeed: Callable[[RedisServer, RedisServer], None], which: int
) -> None:
    """Without connections and scripts, as a process begins that is started meanwhile."""
    misdeed(masters.servers[which], masters.servers[which - 1])
    live_through(app)


@pytest.mark.parametrize("garbage", ["hello", "x y z", "lease m1", "claim m1 now t"])
def test_a_master_that_holds_somebody_elses_values_has_no_vote(
    masters: Masters, app: App, garbage: str
) -> None:
    """Someone shares the server, or typed SET; two others know better."""
    app.rig.claim(M1)
    with masters.servers[0].client() as client:
        client.set(names_of(M1).lock(M1), garbage)
        client.set(names_of(M1).record("m1"), garbage)
        client.set(names_of(M1).fence, garbage)
    refused = app.rig.claim(M2)
    assert refused is not None
    assert refused.holder.message_id == "m1"
    app.rig.run(M1, "n1")
    assert app.rig.finish(M1, "n1")


def test_all_masters_may_have_been_restarted(masters: Masters, app: App) -> None:
    """One by one, with their data: dead connections and unknown scripts are no refusal."""
    live_through(app)
    for server in masters.servers:
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
            client.script_flush()
    live_through(app)


@WHICH
def test_a_lease_is_on_all_masters_again_after_a_renewal(
    masters: Masters, app: App, which: int
) -> None:
    """Before the next one may forget: dead connection and unknown scripts included."""

    def scene() -> None:
        record = app.rig.run(M1, "n1")
        app.rig.renew(M1, "n1", "")
        masters.restart_empty(which)
        assert holds(masters, M1).count("lease m1") == 2
        answer = app.rig.renew(M1, "n1", record)
        app.must_ask_all()
        assert answer == (Renewed.RENEWED, record)
        assert holds(masters, M1) == ["lease m1"] * 3
        masters.restart_empty(which - 1)
        held = app.rig.store.holder(M2)
        assert held is not None
        assert held.holder.record() == record

    staged(masters, (app,), scene)


@WHICH
def test_whoever_looks_reminds_masters_of_a_claim(
    masters: Masters, app: App, other: App, which: int
) -> None:
    """A refused duplicate puts the claim back where it was forgotten."""

    def scene() -> None:
        app.rig.claim(M1)
        app.must_ask_all()
        masters.restart_empty(which)
        refused = other.rig.claim(M2)
        other.must_ask_all()
        assert refused is not None
        assert holds(masters, M1) == ["claim m1"] * 3

    staged(masters, (app, other), scene)


@WHICH
def test_whoever_looks_reminds_masters_of_a_finished_message(
    masters: Masters, app: App, other: App, which: int
) -> None:
    """A redelivery tells the master that forgot; so all but one may forget, in turn."""

    def scene() -> None:
        app.rig.run(M1, "n1")
        app.rig.finish(M1, "n1")
        app.must_ask_all()
        for number in range(3):
            masters.restart_empty((which + number) % 3)
            again = other.rig.start(M1, "n2")
            other.must_ask_all()
            assert again.answer is Answer.ALREADY_COMPLETED
            assert notes(masters, M1) == ["done 1 0"] * 3

    staged(masters, (app, other), scene)


def test_an_entry_that_one_master_sees_for_the_first_time_keeps_its_last_tick(
    masters: Masters, app: App
) -> None:
    """Else an interval would begin anew, and a tick of a daily entry be a day late."""
    due = tick(1)
    assert app.rig.store.tick(due).verdict is Verdict.SEND
    masters.restart_empty(2)
    for _ in range(3):
        (last,) = app.rig.store.last_ticks([ENTRY], first_seen={ENTRY: 600.0})
        assert last is not None
        assert last.slot == due.slot.at


@pytest.mark.parametrize("forgetful", [0, 1, 2, 3])
def test_whether_a_lease_was_held_is_what_a_majority_says(
    masters: Masters, app: App, forgetful: int
) -> None:
    """An end tells its run whether it was alone to the last: one master may have forgotten."""
    app.rig.run(M1, "n1")
    for server in masters.servers[:forgetful]:
        with server.client() as client:
            assert client.delete(names_of(M1).lease(M1))
    assert app.rig.finish(M1, "n1") == (forgetful < 2)
    assert app.rig.start(M1, "n2").answer is Answer.ALREADY_COMPLETED


def test_the_time_left_is_that_of_a_majority(app: App, other: App) -> None:
    """A master that missed the renewals would have duplicates come back far too often."""
    record = record_of(app.rig.start(M1, "n1", lease_ttl=3.0))
    app.reach(1, 2)
    app.rig.renew(M1, "n1", record, lease_ttl=60.0)
    held = other.rig.start(M2, "n2").held
    assert held is not None
    assert held.time_left > 50.0
