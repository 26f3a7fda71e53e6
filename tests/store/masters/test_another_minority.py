"""
Each step is heard by a majority, and each time by another one.

No master knows everything then; what two of them say together must be right.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from onceguard.store.contract import Answer, Renewed
from tests.harness.waiting import eventually
from tests.store.rig import UNIQUE_FOR, call, record_of, token_of
from tests.store.voting import (
    M1,
    M2,
    M3,
    SHORT,
    App,
    names_of,
    value,
)

if TYPE_CHECKING:
    from tests.harness.masters import Masters


def test_what_a_majority_forgot_only_in_part_is_remembered(app: App, other: App) -> None:
    """G4: a finished message is not started again, though the master that knows it is alone."""
    rig = app.rig
    rig.run(M1, "n1")
    app.reach(0, 1)
    rig.finish(M1, "n1")
    other.reach(1, 2)
    seen = [other.rig.start(M1, "n2", lease_ttl=SHORT).answer for _ in range(2)]
    assert set(seen) <= {Answer.ALREADY_COMPLETED, Answer.DUPLICATE_DELIVERY}


def test_a_finished_message_stays_finished_after_its_stale_lease(app: App, other: App) -> None:
    """
    G4, where a master missed the end, and the lease that it knows has ended by itself.

    A script that ran there before that master was told what it had missed would start the
    message; the next try would take this lease for its own.
    """
    app.rig.start(M1, "n1", lease_ttl=SHORT)
    app.reach(0, 1)
    app.rig.finish(M1, "n1")
    time.sleep(SHORT * 1.2)
    other.reach(1, 2)
    assert other.rig.start(M1, "n2").answer is Answer.ALREADY_COMPLETED


def test_starts_are_counted_by_whoever_saw_them(app: App) -> None:
    """G7: a task that kills its process is given up after as many starts as it was given."""
    for number in range(3):
        app.reach(*{0, 1, 2} - {number})
        started = app.rig.start(M1, f"n{number}", max_deliveries=3)
        assert (started.answer, started.starts) == (Answer.ACQUIRED, number + 1)
        app.reach()
        assert app.rig.abandon(M1, f"n{number}")
    app.reach(0, 1)
    assert app.rig.start(M1, "n9", max_deliveries=3).answer is Answer.REJECTED


def test_a_start_is_counted_whoever_hears_of_its_end(app: App) -> None:
    """The note of the start is on two masters, that of its end on two others."""
    app.reach(0, 1)
    app.rig.start(M1, "n1", lease_ttl=SHORT)
    app.reach(1, 2)
    assert app.rig.abandon(M1, "n1")
    time.sleep(SHORT * 1.2)
    app.reach(0, 2)
    assert app.rig.start(M1, "n2").starts == 2


def test_generations_never_go_back(app: App) -> None:
    """Rule 1: of the copies of a message the newest must not take itself for an older one."""
    app.reach(0, 1)
    assert app.rig.put_off(M1, 3) == 3
    app.reach(1, 2)
    assert app.rig.put_off(M1, 1) == 3
    app.reach(0, 2)
    assert app.rig.start(M1, "n1").generation == 3


def test_fencing_tokens_grow(app: App, other: App) -> None:
    """G9: from holder to holder, whichever masters each of them could reach."""
    tokens = []
    for number, who in enumerate([app, other, app, other, app, other]):
        message = call(f"m{number}")
        who.reach(*{0, 1, 2} - {number % 3})
        tokens.append(token_of(who.rig.run(message, "n")))
        who.reach()
        who.rig.finish(message, "n")
    assert tokens == sorted(set(tokens))


def test_a_counter_that_is_ahead_on_one_master_is_ahead_on_all(
    masters: Masters, app: App
) -> None:
    """A clock was hours ahead once: masters give one lease one token, above all of theirs."""
    ahead = int((time.time() + 7200) * 1e6)
    with masters.servers[0].client() as client:
        client.set(names_of(M1).fence, ahead)
    assert token_of(app.rig.run(M1, "n1")) == ahead + 1
    records = {value(each, names_of(M1).lease(M1)) for each in masters.servers}
    assert [token_of(record) for record in records] == [ahead + 1]


def test_a_first_renewal_finds_the_lease(app: App, other: App) -> None:
    """The main process has not seen the lease's record when it renews it for the first time."""
    app.reach(0, 1)
    record = app.rig.run(M1, "n1")
    other.reach(1, 2)
    answer, seen = other.rig.renew(M1, "n1", "")
    assert answer in {Renewed.RENEWED, Renewed.RETAKEN}
    assert seen == record


def test_a_lease_is_not_taken_up_after_a_successor(app: App, other: App) -> None:
    """Rule 6: who stalled must learn that another ran, though no master saw both of them."""
    app.reach(0, 1)
    record = record_of(app.rig.start(M1, "n1", lease_ttl=SHORT))
    time.sleep(SHORT * 1.2)
    other.reach(1, 2)
    other.rig.run(M2, "n2")
    assert other.rig.finish(M2, "n2")
    app.reach(0, 2)
    answer, _ = app.rig.renew(M1, "n1", record)
    assert answer is Renewed.LOST


def test_a_lease_is_taken_up_where_nobody_followed(app: App) -> None:
    """The other half: a stall alone loses nothing, whichever masters are back first."""
    app.reach(0, 1)
    record = record_of(app.rig.start(M1, "n1", lease_ttl=SHORT))
    time.sleep(SHORT * 1.2)
    app.reach(0, 2)
    assert app.rig.renew(M1, "n1", record) == (Renewed.RETAKEN, record)


def test_a_claim_is_not_displaced_by_a_lease_that_one_master_did_not_hear_the_end_of(
    app: App, other: App
) -> None:
    """G1: when the stale lease has ended, the claim must still stand: its message is queued."""
    app.rig.start(M1, "n1", lease_ttl=SHORT)
    app.reach(0, 1)
    app.rig.finish(M1, "n1")
    assert app.rig.claim(M2) is None
    other.reach(1, 2)
    other.rig.claim(M3)
    time.sleep(SHORT * 1.2)
    other.reach()
    refused = other.rig.claim(M3)
    assert refused is not None
    assert refused.holder.message_id == "m2"


def test_what_could_not_be_ruled_out_does_not_outlive_the_doubt(app: App, other: App) -> None:
    """
    A claim that was taken back, while one master was away, ends when all are back.

    While another is away nobody can tell, and a claim is refused. That must not put it
    back for the rest of its life: then two of three would have it.
    """
    app.rig.claim(M1)
    app.reach(0, 1)
    app.rig.store.unclaim(M1)
    other.reach(1, 2)
    refused = other.rig.claim(M2)
    assert refused is not None
    assert refused.holder.message_id == "m1"
    other.reach()
    eventually(lambda: other.rig.claim(M2) is None, "the key was free", timeout=UNIQUE_FOR / 20)
