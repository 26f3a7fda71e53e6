"""Many want one key: whatever the turns of pottery are worth, one of them gets it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from onceguard.rules.messages import partition
from onceguard.store.contract import Answer, Renewed
from onceguard.store.tick_contract import Verdict
from tests.store.rig import KEY, PREFIX, call, record_of, token_of
from tests.store.ticking import tick
from tests.store.voting import (
    M1,
    M2,
    SHORT,
    App,
    OpenApp,
    ask_aside,
    holds,
    live_through,
    names_of,
    notes,
    nothing_held,
    open_app,
    seconds,
    staged,
    value,
    won,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.masters import Masters


PATIENT = 3.0
"""Seconds that these apps wait for a master: nothing hangs here, but machines are busy."""


@pytest.fixture
def app(masters: Masters) -> Iterator[App]:
    """An app that is patient."""
    with closing(open_app(masters, socket_timeout=PATIENT)) as made:
        yield made


@pytest.fixture
def other(masters: Masters) -> Iterator[App]:
    """Another one."""
    with closing(open_app(masters, socket_timeout=PATIENT)) as made:
        yield made


def near(key: str) -> bool:
    """Whether a key shares a partition, and its counter, with the key of these tests."""
    return partition(key) == partition(KEY)


def forget_turns(masters: Masters) -> None:
    """End all turns, as if their two seconds were over."""
    for server in masters.servers:
        with server.client() as client:
            for name in client.scan_iter("redlock:*"):
                client.delete(name)


def claimed(app: App) -> bool:
    return app.rig.claim(call("m-claims")) is None


def started(app: App) -> bool:
    return app.rig.start(call("m-starts"), "n-starts").answer is Answer.ACQUIRED


def started_too(app: App) -> bool:
    return app.rig.start(call("m-starts-too"), "n-starts-too").answer is Answer.ACQUIRED


def claimed_too(app: App) -> bool:
    return app.rig.claim(call("m-claims-too")) is None


def ticked(app: App) -> bool:
    return app.rig.store.tick(tick(1)).verdict is Verdict.SEND


@pytest.mark.parametrize(
    ("first", "number", "second"),
    [
        pytest.param(claimed, 2, claimed_too, id="two publishers"),
        pytest.param(started, 2, started_too, id="two workers"),
        pytest.param(ticked, 4, claimed, id="a beat and a publisher"),
        pytest.param(claimed, 2, ticked, id="a publisher and a beat"),
    ],
)
def test_two_that_think_they_have_the_turn_do_not_both_win(  # noqa: PLR0913 - two apps
    masters: Masters,
    app: App,
    other: App,
    first: Callable[[App], bool],
    number: int,
    second: Callable[[App], bool],
) -> None:
    """
    A stalled process comes late with what it found out before, and has one vote already.

    ```
    first    looks at 0, 1 · takes 0 ·                       · takes 1: two of three
    second                           · looks at 0, 1, 2 · takes (frees) 0       · takes 2
    ```

    Who has looked must be sure that nobody is granted what was not there then: the first
    is refused on 1, or the second on 0 and 2.
    """
    later = 4 if second is ticked else 2

    def scene() -> list[bool]:
        for each in (app, other):
            each.rig.store.tick(tick(7, key="warm()", entry="000000000200000000000000"))
        app.reach(0, 1)
        app.hold_question(number, to=(1,))
        one = ask_aside(lambda: first(app))
        app.await_held(to=(1,))
        forget_turns(masters)
        other.hold_question(later)
        two = ask_aside(lambda: second(other))
        other.await_held()
        app.let_go()
        granted = won(one())
        app.reach()
        other.let_go()
        return [granted, won(two())]

    assert staged(masters, (app, other), scene).count(True) == 1


def test_a_lease_is_not_taken_up_beside_a_start(masters: Masters, app: App, other: App) -> None:
    """The same for a renewal that finds its lease ended: it takes the key, too."""

    def scene() -> list[bool]:
        record = record_of(app.rig.start(M1, "n1", lease_ttl=SHORT))
        time.sleep(SHORT * 1.2)
        app.reach(0, 1)
        app.hold_question(3, to=(1,))  # it does not stand; look; take
        one = ask_aside(lambda: app.rig.renew(M1, "n1", record)[0] is Renewed.RETAKEN)
        app.await_held(to=(1,))
        forget_turns(masters)
        other.hold_question(2)
        two = ask_aside(lambda: started(other))
        other.await_held()
        app.let_go()
        kept = won(one())
        app.reach()
        other.let_go()
        return [kept, won(two())]

    assert staged(masters, (app, other), scene).count(True) == 1


def test_a_run_of_its_own_does_not_free_a_claim_that_is_being_made(
    masters: Masters, app: App, other: App
) -> None:
    """
    Scope ``until_executing``: a start holds its task, and looks at the key's lock as well.

    What it sees there, a publisher may be about to be granted: without a promise about
    the lock it must leave that alone.
    """

    def scene() -> list[bool]:
        app.reach(0, 1)
        app.hold_question(2, to=(1,))
        claim = ask_aside(lambda: claimed(app))
        app.await_held(to=(1,))
        forget_turns(masters)
        begun = other.rig.start(call("m1", own_lease=True), "n1")
        assert begun.answer is Answer.ACQUIRED
        app.let_go()
        granted = won(claim())
        app.reach()
        return [granted, claimed_too(other)]

    assert staged(masters, (app, other), scene).count(True) == 1


def test_what_ends_between_a_look_and_a_start_has_ended(
    masters: Masters, app: App, other: App
) -> None:
    """
    Ends do not look, and no promise holds them up.

    The start was about to remind a master of a run; by then it is over, and must not be
    put back, nor its message be forgotten to have finished.
    """

    def scene() -> None:
        app.rig.run(M1, "n1")
        masters.servers[2].flush()
        other.hold_question(2)
        again = ask_aside(lambda: other.rig.start(M1, "n2").answer is Answer.ALREADY_COMPLETED)
        other.await_held()
        app.rig.finish(M1, "n1")
        app.must_ask_all()
        other.let_go()
        assert won(again())
        assert nothing_held(masters, M1)
        assert [note.split(" ")[0] for note in notes(masters, M1)] == ["done"] * 3

    staged(masters, (app, other), scene)


def test_a_late_start_does_not_set_back_the_counter_of_its_neighbours(
    masters: Masters, app: App, other: App
) -> None:
    """Keys of a partition share it; a start may have been overtaken since it looked."""
    key = next(each for each in map("near{}()".format, range(999)) if near(each))
    ahead = int((time.time() + 7200) * 1e6)

    def token(message_id: str) -> int:
        near = call(message_id, key=key)
        given = token_of(app.rig.run(near, "n"))
        app.rig.finish(near, "n")
        return given

    def scene() -> list[int]:
        for server in masters.servers:
            with server.client() as client:
                client.set(names_of(M1).fence, ahead)
        other.hold_question(2)
        late = ask_aside(lambda: started(other))
        other.await_held()
        tokens = [token("near1"), token("near2")]
        other.let_go()
        assert won(late())
        return [*tokens, token("near3")]

    tokens = staged(masters, (app, other), scene)
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("contenders", [2, 8])
def test_of_many_at_once_one_wins_and_the_others_learn_who(
    opened: OpenApp, contenders: int
) -> None:
    """Redlock alone often has no winner where votes are split (FACTS, pottery 3)."""
    apps = [opened() for _ in range(contenders)]
    for number in range(3):
        key, gate = f"wanted{number}()", threading.Barrier(contenders)

        def start(place: int, key: str = key, gate: threading.Barrier = gate) -> str:
            gate.wait()
            started = apps[place].rig.start(call(f"c{place}", key=key), f"n{place}")
            assert started.held is not None
            return f"{started.answer.value} {started.held.holder.message_id}"

        waiting = [ask_aside(partial(start, place)) for place in range(contenders)]
        told = [str(each()) for each in waiting]
        winner = apps[0].rig.store.holder(call("-", key=key))
        assert winner is not None
        mid = winner.holder.message_id
        assert sorted(told) == [f"acquired {mid}"] + [f"conflict {mid}"] * (contenders - 1)


def test_a_refused_claim_leaves_nothing_behind(masters: Masters, app: App, other: App) -> None:
    """
    What a refused publisher got from a minority would block the key for ``unique_for``.

    Its message is never sent, so that nobody would free it.
    """

    def scene() -> None:
        app.reach(0, 1)
        other.hold_question(2)
        two = ask_aside(lambda: other.rig.claim(M2))
        other.await_held()
        forget_turns(masters)
        assert app.rig.claim(M1) is None
        other.let_go()
        refused = two()
        if isinstance(refused, Exception):
            raise refused
        assert refused is not None
        assert refused.holder.message_id == "m1"
        assert "claim m2" not in holds(masters, M1)

    staged(masters, (app, other), scene)


def test_the_turn_of_a_killed_process_ends(masters: Masters, app: App, other: App) -> None:
    """Who comes next waits for two seconds at most, and then goes on."""
    live_through(other)
    app.hold_question(2)
    urls = [f"redis://127.0.0.1:{line.port}/0" for line in app.lines]
    program = f"""
from onceguard.store.opening import open_store
from tests.store.rig import call
open_store({urls!r}, prefix={PREFIX!r}, socket_timeout=30.0).claim(call("m1"), unique_for=60.0)
"""
    victim = subprocess.Popen([sys.executable, "-c", program])
    app.await_held()
    victim.kill()
    victim.wait()
    assert any(value(each, f"redlock:{names_of(M1).lock(M1)}") for each in masters.servers)
    assert seconds(lambda: other.rig.claim(M2)) < 4.0
    assert holds(masters, M2) == ["claim m2"] * 3
