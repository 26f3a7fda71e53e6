"""Too few masters answer: the call fails, and nothing of it stays."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from onceguard.rules.errors import StoreUnavailable
from onceguard.store.contract import Answer
from tests.harness.waiting import eventually, stays
from tests.store.voting import (
    M1,
    TIMEOUT,
    App,
    ask_aside,
    live_through,
    names_of,
    nothing_held,
    unavailable,
    value,
)

if TYPE_CHECKING:
    from tests.harness.masters import Masters


@pytest.mark.parametrize("warm", [True, False], ids=["connected", "not connected"])
def test_what_a_failed_claim_took_is_freed(masters: Masters, app: App, warm: bool) -> None:
    """On the minority that granted it at once, and on those that hang when they wake up."""
    if warm:
        live_through(app)
    masters.pause(0, 1)
    unavailable(lambda: app.rig.claim(M1))
    assert value(masters.servers[2], names_of(M1).lock(M1)) == ""
    masters.resume(0, 1)
    stays(lambda: nothing_held(masters, M1), "nobody has the key", during=0.3)


def test_what_hangs_when_the_script_arrives_undoes_it(masters: Masters, app: App) -> None:
    """Carried out when the master wakes up, a start would block the key, and be counted."""
    live_through(app)
    app.hold_question(2)
    answer = ask_aside(lambda: app.rig.start(M1, "n1"))
    app.await_held()
    masters.pause(0, 1)
    app.let_go()
    assert isinstance(answer(), StoreUnavailable)
    masters.resume(0, 1)
    eventually(lambda: nothing_held(masters, M1), "the start was undone", timeout=5)
    stays(lambda: nothing_held(masters, M1), "nobody has the key", during=0.3)
    started = app.rig.start(M1, "n2")
    assert (started.answer, started.starts) == (Answer.ACQUIRED, 1)


def test_a_majority_that_is_back_is_used_at_once(masters: Masters, app: App) -> None:
    """Nobody rests where there are too few to choose from."""
    app.rig.run(M1, "n1")
    masters.pause(0, 1)
    unavailable(lambda: app.rig.finish(M1, "n1"))
    masters.resume(0, 1)
    assert app.rig.finish(M1, "n1") is not None
    assert app.rig.start(M1, "n2").answer is Answer.ALREADY_COMPLETED


class Interrupted(Exception):  # noqa: N818 - as Celery's soft time limit
    """What a signal handler raises, wherever the process happens to be."""


def test_an_interrupted_claim_is_freed(masters: Masters, app: App) -> None:
    """A soft time limit in the middle of a publish: nobody knows of the claim any more."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    live_through(app)
    before = signal.signal(signal.SIGALRM, interrupt)
    app.hold_question(2)
    try:
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT / 2)
        with pytest.raises(Interrupted):
            app.rig.claim(M1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        app.let_go()
    eventually(lambda: nothing_held(masters, M1), "the claim was freed", timeout=5)
    stays(lambda: nothing_held(masters, M1), "nobody has the key", during=0.3)
    live_through(app)
