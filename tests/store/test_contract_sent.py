"""The claim of a tick: until it is sent, when it is, and while it waits."""

from dataclasses import replace

import pytest

from onceguard.rules.overlap import Predecessor
from onceguard.store.contract import Answer
from onceguard.store.tick_contract import Verdict
from tests.store.rig import KEY, UNIQUE_FOR, Rig, call
from tests.store.ticking import (
    CLAIM_FOR,
    NEW,
    QUEUED,
    RUNS,
    WAITS,
    arrange,
    new,
    sent,
    tick,
    tick_and_send,
    waiting,
    waits,
)


def test_a_ticks_claim_is_short_until_it_is_sent(rig: Rig) -> None:
    """A beat that dies in between must not hold up its own successor for an hour."""
    answer = rig.store.tick(tick(1))
    lock = rig.names(call("-")).lock(call("-"))
    assert 0 < rig.raw.pttl(lock) <= CLAIM_FOR * 1000
    assert sent(rig, tick(1), answer)
    assert (UNIQUE_FOR - 5) * 1000 < rig.raw.pttl(lock) <= UNIQUE_FOR * 1000
    assert KEY in rig.listed(call("-"))
    until = rig.raw.zscore(rig.names(call("-")).index, KEY)
    assert until == pytest.approx((rig.now() + UNIQUE_FOR) * 1000, abs=5000)


def test_a_waiting_ticks_claim_is_short_until_it_is_sent(rig: Rig) -> None:
    """As any other; it is not listed, for the key is."""
    arrange(rig, Predecessor.RUNNING)
    answer = rig.store.tick(new("buffer_one"))
    name = rig.names(call("-")).next(call("-"))
    assert 0 < rig.raw.pttl(name) <= CLAIM_FOR * 1000
    assert sent(rig, new("buffer_one"), answer)
    assert (UNIQUE_FOR - 5) * 1000 < rig.raw.pttl(name) <= UNIQUE_FOR * 1000
    assert rig.listed(call("-")) == {f"{KEY} lease"}


def test_a_ticks_claim_refuses_other_publishers(rig: Rig) -> None:
    """A tick is a call like any other once it is queued."""
    tick_and_send(rig, tick(1))
    held = rig.claim(call("m1"))
    assert held is not None
    assert held.holder.message_id == QUEUED
    assert held.holder.task_id == tick(1).message.task_id
    assert 0 <= rig.now() - held.holder.since < 5


def test_the_index_lists_a_ticks_claim_from_the_beginning(rig: Rig) -> None:
    """And is there for as long: a hold that is missing in it is invisible."""
    index = rig.names(call("-")).index
    rig.store.tick(tick(1))
    assert rig.listed(call("-")) == {KEY}
    until = rig.raw.zscore(index, KEY)
    assert until == pytest.approx((rig.now() + CLAIM_FOR) * 1000, abs=5000)
    assert rig.raw.pttl(index) > CLAIM_FOR * 1000
    rig.raw.pexpire(index, 9_000_000_000)
    rig.end_by_itself(call("-"))
    rig.store.tick(tick(2))
    assert rig.raw.pttl(index) > 8_000_000_000, "a short claim has shortened it"


def test_the_index_outlives_a_ticks_claim(rig: Rig) -> None:
    """Else a long claim would be held and not listed."""
    answer = rig.store.tick(tick(1, claim_for=1.0))
    sent(rig, tick(1), answer, unique_for=100_000.0)
    assert rig.raw.pttl(rig.names(call("-")).index) > 100_000_000
    tick_and_send(rig, tick(2, policy="keep_latest"))
    assert rig.raw.pttl(rig.names(call("-")).index) > 100_000_000


def test_sent_touches_no_lease_and_no_other_claim(rig: Rig) -> None:
    """G6: the message may have started, ended and been followed before beat comes to it."""
    answer = rig.store.tick(tick(1))
    rig.start(tick(1).message, "n1", lease_ttl=5.0)
    assert not sent(rig, tick(1), answer)
    assert rig.raw.pttl(rig.lease_name(call("-"))) <= 5000
    assert rig.listed(call("-")) == {f"{KEY} lease"}
    rig.finish(tick(1).message, "n1")
    rig.claim(call("m1"), unique_for=5.0)
    assert not sent(rig, tick(1), answer)
    assert rig.raw.pttl(rig.lease_name(call("-"))) <= 5000


def test_a_tick_id_that_begins_like_another_owns_nothing_of_it(rig: Rig) -> None:
    """Owners are compared whole, also in the claims of ticks."""
    arrange(rig, Predecessor.RUNNING)
    long, short = tick(44, policy="buffer_one"), new("buffer_one")
    answer = rig.store.tick(long)
    assert not sent(rig, short, answer)
    rig.store.unsend(short, answer)
    rig.drop(waits(short))
    rig.put_off(waits(short), 1, unique_for=1.0)
    rig.start(waits(short), "n")
    assert waiting(rig, call("-")) == f"claim {long.message.message_id}"
    assert rig.raw.pttl(rig.names(call("-")).next(call("-"))) > 5000


def test_a_start_leaves_the_claim_of_another_waiting_tick(rig: Rig) -> None:
    """G6: of the one that was sent when its own claim had ended; nor does any other call."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    rig.raw.delete(rig.names(call("-")).next(call("-")))
    tick_and_send(rig, new("buffer_one"))
    rig.finish(tick(2).message, "n2")
    rig.run(waits(tick(3)), "n3")
    rig.finish(waits(tick(3)), "n3")
    rig.run(call("m1"), "n1")
    assert waiting(rig, call("-")) == f"claim {NEW}"


@pytest.mark.parametrize("end", ["finish", "shorten"])
def test_a_run_that_never_started_here_leaves_its_place(rig: Rig, end: str) -> None:
    """It ran unguarded while the store was away, or its process died before it asked."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    other = replace(tick(9).message, waits=True)
    getattr(rig, end)(other, "n9")
    assert waiting(rig, call("-")) == f"claim {WAITS}"
    getattr(rig, end)(waits(tick(3)), "n3")
    assert waiting(rig, call("-")) == ""
    assert rig.held(call("-")) == f"lease {RUNS}"


REPLACING = pytest.mark.parametrize(
    "predecessor", [Predecessor.QUEUED, Predecessor.RUNNING_AND_BUFFERED]
)


def claim_of_the_older(rig: Rig, predecessor: Predecessor) -> tuple[str, str]:
    """Where that is, and the record."""
    names = rig.names(call("-"))
    queued = predecessor is Predecessor.QUEUED
    place = names.lock(call("-")) if queued else names.next(call("-"))
    return place, str(rig.raw.get(place))


@REPLACING
def test_the_older_ticks_claim_stands_until_the_newer_one_is_sent(
    rig: Rig, predecessor: Predecessor
) -> None:
    """A beat that dies in between must not leave the older message without one."""
    arrange(rig, predecessor)
    place, older = claim_of_the_older(rig, predecessor)
    answer = rig.store.tick(new("keep_latest"))
    assert (rig.raw.get(place), answer.replaced) == (older, older)
    assert rig.raw.pttl(place) > (UNIQUE_FOR - 5) * 1000
    assert sent(rig, new("keep_latest"), answer, unique_for=70.0)
    assert str(rig.raw.get(place)).startswith(f"claim {NEW} ")
    assert 60_000 < rig.raw.pttl(place) <= 70_000
    assert (KEY in rig.listed(call("-"))) == (predecessor is Predecessor.QUEUED)


@REPLACING
def test_a_newer_tick_gets_the_claim_though_it_was_put_off_before_beat_said_sent(
    rig: Rig, predecessor: Predecessor
) -> None:
    """A worker may be faster than beat. It still waits, and later ticks fold into it."""
    arrange(rig, predecessor)
    place, _ = claim_of_the_older(rig, predecessor)
    answer = rig.store.tick(new("keep_latest"))
    rig.put_off(waits(new("keep_latest")), 1)
    assert sent(rig, new("keep_latest"), answer)
    assert str(rig.raw.get(place)).startswith(f"claim {NEW} ")


@REPLACING
def test_a_newer_tick_gets_the_claim_when_the_older_one_ended(
    rig: Rig, predecessor: Predecessor
) -> None:
    """While it was being sent."""
    arrange(rig, predecessor)
    place, _ = claim_of_the_older(rig, predecessor)
    answer = rig.store.tick(new("keep_latest"))
    older = tick(1).message if predecessor is Predecessor.QUEUED else waits(tick(3))
    rig.drop(older)
    assert rig.raw.get(place) is None
    assert sent(rig, new("keep_latest"), answer)
    assert str(rig.raw.get(place)).startswith(f"claim {NEW} ")


@REPLACING
def test_a_newer_tick_that_has_started_gets_no_claim(
    rig: Rig, predecessor: Predecessor
) -> None:
    """Nobody would free it."""
    arrange(rig, predecessor)
    answer = rig.store.tick(new("keep_latest"))
    newer = new("keep_latest").message
    rig.drop(tick(1).message)
    rig.drop(waits(tick(3)))
    rig.finish(tick(2).message, "n2")
    rig.run(newer, "n4")
    rig.finish(newer, "n4")
    assert not sent(rig, new("keep_latest"), answer)
    assert (rig.held(call("-")), waiting(rig, call("-"))) == ("", "")


def test_a_tick_that_was_superseded_before_beat_said_sent_gets_no_claim(rig: Rig) -> None:
    """Its beat was stalled for a tick; it will not run, and the key is for others."""
    late = rig.store.tick(tick(1))
    tick_and_send(rig, new("keep_latest"))
    rig.run(tick(4).message, "n4")
    rig.finish(tick(4).message, "n4")
    assert not sent(rig, tick(1), late)
    assert rig.held(call("-")) == ""


@pytest.mark.parametrize("policy", ["skip", "buffer_one"])
def test_a_claim_that_ended_while_the_tick_was_sent_is_made_again(
    rig: Rig, policy: str
) -> None:
    """A broker that reconnects takes longer than half an interval may be."""
    if policy == "buffer_one":
        arrange(rig, Predecessor.RUNNING)
    answer = rig.store.tick(new(policy))
    names = rig.names(call("-"))
    place = names.next(call("-")) if answer.waits else names.lock(call("-"))
    assert rig.raw.delete(place)
    assert sent(rig, new(policy), answer)
    record = str(rig.raw.get(place))
    assert record.startswith(f"claim {NEW} ")
    assert record.endswith(f" {new(policy).message.task_id}")
    assert rig.raw.pttl(place) > (UNIQUE_FOR - 5) * 1000
    assert (KEY in rig.listed(call("-"))) == (policy == "skip")


def test_a_claim_is_not_made_again_beside_another_one(rig: Rig) -> None:
    """G6: it ended, and another call has the key."""
    answer = rig.store.tick(tick(1))
    rig.end_by_itself(call("-"))
    rig.claim(call("m1"), unique_for=5.0)
    assert not sent(rig, tick(1), answer)
    assert rig.held(call("-")) == "claim m1"
    assert rig.raw.pttl(rig.lease_name(call("-"))) <= 5000


def test_a_waiting_tick_starts_when_the_run_has_ended(rig: Rig) -> None:
    """Its claim beside the lock ends with that, and the next tick may be buffered."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    message = waits(tick(3))
    assert rig.start(message, "n3").answer is Answer.CONFLICT
    assert waiting(rig, message) == f"claim {WAITS}"
    rig.finish(tick(2).message, "n2")
    assert rig.start(message, "n3").answer is Answer.ACQUIRED
    assert waiting(rig, message) == ""
    assert rig.store.tick(new("buffer_one")).verdict is Verdict.BUFFER


def test_a_waiting_tick_that_is_dropped_leaves_its_place(rig: Rig) -> None:
    """Revoked, expired or too late: the next tick may be buffered."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    assert rig.drop(waits(tick(3)))
    assert waiting(rig, call("-")) == ""
    assert rig.held(call("-")) == f"lease {RUNS}"
    assert not rig.drop(waits(tick(3)))


def test_a_waiting_ticks_claim_lives_on_when_it_is_put_off(rig: Rig) -> None:
    """A run may take longer than unique_for; still only one tick may wait for its end."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    name = rig.names(call("-")).next(call("-"))
    rig.raw.pexpire(name, 1000)
    rig.put_off(tick(9).message, 1, unique_for=70.0)
    rig.put_off(waits(tick(9)), 1, unique_for=70.0)
    rig.put_off(tick(3).message, 1, unique_for=70.0)  # as one that does not wait
    assert rig.raw.pttl(name) <= 1000
    assert rig.put_off(waits(tick(3)), 2, unique_for=70.0) == 2
    assert 60_000 < rig.raw.pttl(name) <= 70_000
