"""Messages that a newer tick was sent instead of, and those that come too late to start."""

import pytest

from onceguard.rules.overlap import Predecessor
from onceguard.store.contract import Answer, Message, Renewed, Started
from tests.store.rig import COMPLETED_FOR, Rig, call
from tests.store.ticking import (
    NEW,
    RUNS,
    WAITS,
    arrange,
    everything,
    new,
    sent,
    supersede,
    tick,
    tick_and_send,
    waits,
)


def test_a_superseded_message_does_not_start(rig: Rig) -> None:
    """The newer one does its work."""
    arrange(rig, Predecessor.QUEUED)
    tick_and_send(rig, new("keep_latest"))
    refused = rig.start(tick(1).message, "n1")
    assert (refused.answer, refused.held) == (Answer.REPLACED, None)
    rig.drop(tick(1).message)
    assert rig.held(call("-")) == f"claim {NEW}"
    assert rig.start(tick(1).message, "n1").answer is Answer.ALREADY_COMPLETED
    assert rig.start(tick(4).message, "n4").answer is Answer.ACQUIRED


def test_an_older_message_starts_as_long_as_the_newer_one_is_not_sent(rig: Rig) -> None:
    """Rule 8: beat may die between claim and publish; then only the older one exists."""
    arrange(rig, Predecessor.QUEUED)
    rig.store.tick(new("keep_latest"))
    assert rig.start(tick(1).message, "n1").answer is Answer.ACQUIRED


def test_a_message_that_has_ended_is_not_superseded(rig: Rig) -> None:
    """It was faster than beat; what it did counts."""
    arrange(rig, Predecessor.QUEUED)
    answer = rig.store.tick(new("keep_latest"))
    rig.run(tick(1).message, "n1")
    rig.finish(tick(1).message, "n1")
    sent(rig, new("keep_latest"), answer)
    assert rig.record(tick(1).message) == "done 1 0 n1"
    assert rig.start(tick(1).message, "n9").answer is Answer.ALREADY_COMPLETED


@pytest.mark.parametrize(
    ("policy", "superseded"), [("keep_latest", False), ("cancel_other", True)]
)
def test_a_message_that_has_started_is_superseded_by_cancel_other_only(
    rig: Rig, policy: str, superseded: bool
) -> None:
    """It was faster than beat; `keep_latest` lets a run go on, and go on after a crash."""
    arrange(rig, Predecessor.RUNNING_AND_BUFFERED)
    answer = rig.store.tick(new(policy))
    assert WAITS in answer.superseded
    rig.finish(tick(2).message, "n2")
    rig.run(waits(tick(3)), "n3")
    sent(rig, new(policy), answer)
    answered = rig.renew(waits(tick(3)), "n3", "")[0]
    assert answered is (Renewed.SUPERSEDED if superseded else Renewed.RENEWED)


def test_sent_again_supersedes_once(rig: Rig) -> None:
    """The first reply may have been lost."""
    arrange(rig, Predecessor.QUEUED)
    answer = tick_and_send(rig, new("keep_latest"))
    before = everything(rig)
    sent(rig, new("keep_latest"), answer)
    assert everything(rig) == before


def test_a_superseded_mark_survives_put_off_and_abandon(rig: Rig) -> None:
    """Neither its copy nor the next delivery after its process died may run."""
    arrange(rig, Predecessor.RUNNING)
    tick_and_send(rig, new("cancel_other"))
    rig.put_off(tick(2).message, 1)
    assert rig.abandon(tick(2).message, "n2")
    assert rig.record(tick(2).message).startswith("open 1 1 ")
    assert rig.start(tick(2).message, "n9").answer is Answer.REPLACED


def test_the_retry_of_a_superseded_run_is_superseded_too(rig: Rig) -> None:
    """
    `autoretry_for=(Exception,)` retries what `check()` raises in a cancelled run.

    It would wait for the newer tick and run after it, as would each of its successors.
    """
    arrange(rig, Predecessor.RUNNING)
    run = tick(2).message
    retry = call(f"{RUNS}.r1", task_id=run.task_id)
    tick_and_send(rig, new("cancel_other"))
    rig.put_off(retry, 1)
    for _ in range(2):  # the first reply may be lost
        rig.finish(run, "n2", retry=retry.message_id)
        assert rig.held(run) == ""
        assert rig.start(retry, "n9", parent_id=RUNS).answer is Answer.REPLACED
    assert rig.start(retry, "n9", parent_id=RUNS).generation == 1
    assert rig.memory_of(retry) > 60


def test_the_retry_of_a_superseded_run_goes_on_if_it_has_started(rig: Rig) -> None:
    """It runs: only a newer tick that meets it there may tell it to stop."""
    arrange(rig, Predecessor.RUNNING)
    run = tick(2).message
    retry = call(f"{RUNS}.r1", task_id=run.task_id)
    tick_and_send(rig, new("cancel_other"))
    rig.end_by_itself(run)
    record = rig.run(retry, "n9")
    rig.finish(run, "n2", retry=retry.message_id)
    assert rig.renew(retry, "n9", record)[0] is Renewed.RENEWED


def test_a_superseded_run_that_just_ends_leaves_nothing_behind(rig: Rig) -> None:
    """Its record is its own, and it has no retry to mark."""
    arrange(rig, Predecessor.RUNNING)
    tick_and_send(rig, new("cancel_other"))
    rig.finish(tick(2).message, "n2")
    assert rig.record(tick(2).message) == "done 1 0 n2"
    assert rig.start(tick(2).message, "n9").answer is Answer.ALREADY_COMPLETED
    assert rig.start(waits(tick(4)), "n4").answer is Answer.ACQUIRED


def test_a_run_learns_at_its_renewal_that_it_is_superseded(rig: Rig) -> None:
    """`cancel_other` is cooperative: the lease is kept, or two would run."""
    arrange(rig, Predecessor.RUNNING)
    run = tick(2).message
    tick_and_send(rig, new("cancel_other"))
    rig.raw.pexpire(rig.lease_name(run), 1000)
    rig.raw.pexpire(rig.names(run).record(RUNS), 1000)
    for seen in ("", str(rig.raw.get(rig.lease_name(run)))):
        answer, record = rig.renew(run, "n2", seen)
        assert answer is Renewed.SUPERSEDED
        assert record == rig.raw.get(rig.lease_name(run))
    assert rig.raw.pttl(rig.lease_name(run)) > 25_000
    assert rig.memory_of(run) > 60


def test_a_run_learns_when_it_retakes_its_lease_that_it_is_superseded(rig: Rig) -> None:
    """It was stalled while beat told it to stop."""
    arrange(rig, Predecessor.RUNNING)
    run = tick(2).message
    seen = str(rig.raw.get(rig.lease_name(run)))
    tick_and_send(rig, new("cancel_other"))
    rig.end_by_itself(run)
    assert rig.renew(run, "n2", seen) == (Renewed.SUPERSEDED, seen)
    assert rig.held(run) == f"lease {RUNS}"


def test_renewals_tell_only_the_run_that_is_superseded(rig: Rig) -> None:
    """They come for a whole partition at a time."""
    arrange(rig, Predecessor.RUNNING)
    beside = call("m9", own_lease=True)
    record = rig.run(beside, "n9")
    tick_and_send(rig, new("cancel_other"))
    leases = [rig.lease(beside, "n9", record), rig.lease(tick(2).message, "n2", "")]
    answers = [answer for answer, _ in rig.store.renew(leases)]
    assert answers == [Renewed.RENEWED, Renewed.SUPERSEDED]


# A start answers in the order of docs/explanation/protocol.md. The rows around these two
# are in `test_contract_start.py`.


def start_late(rig: Rig, message: Message, nonce: str, *, max_deliveries: int = 5) -> Started:
    """A start ten seconds after it would have been in time."""
    return rig.store.start(
        message,
        nonce=nonce,
        parent_id=None,
        max_deliveries=max_deliveries,
        lease_ttl=30.0,
        completed_for=COMPLETED_FOR,
        start_by=rig.now() - 10,
    )


def test_a_message_that_starts_in_time_starts(rig: Rig) -> None:
    """`misfire_grace_time` is looked at once more when the run starts."""
    in_time = rig.store.start(
        call("m1"),
        nonce="n1",
        parent_id=None,
        max_deliveries=5,
        lease_ttl=30.0,
        completed_for=COMPLETED_FOR,
        start_by=rig.now() + 10,
    )
    assert in_time.answer is Answer.ACQUIRED


def test_a_message_that_starts_too_late_is_missed(rig: Rig) -> None:
    """By the server's clock; nothing is changed, the worker settles it."""
    rig.claim(call("m1"))
    before = everything(rig)
    missed = start_late(rig, call("m1"), "n1")
    assert (missed.answer, missed.starts) == (Answer.MISSED, 0)
    assert everything(rig) == before


def test_a_message_that_has_run_is_not_missed(rig: Rig) -> None:
    """It started in time; what its process left unfinished is to be done."""
    rig.run(call("m1"), "n1")
    rig.abandon(call("m1"), "n1")
    assert start_late(rig, call("m1"), "n2").answer is Answer.ACQUIRED


def test_the_same_delivery_asking_again_is_neither_missed_nor_replaced(rig: Rig) -> None:
    """Row 1 comes first: the reply that got lost said `acquired`."""
    rig.run(call("m1"), "n1")
    supersede(rig, call("m1"))
    assert start_late(rig, call("m1"), "n1").answer is Answer.ACQUIRED


def test_completion_comes_before_replaced_and_missed(rig: Rig) -> None:
    """Row 2: both are settled by a drop, and come again."""
    supersede(rig, call("m1"))
    rig.drop(call("m1"))
    rig.drop(call("m2"))
    assert start_late(rig, call("m1"), "n1").answer is Answer.ALREADY_COMPLETED
    assert start_late(rig, call("m2"), "n1").answer is Answer.ALREADY_COMPLETED


def test_a_duplicate_delivery_is_not_replaced(rig: Rig) -> None:
    """Row 3: the run that was told to stop may go on, or die and leave its message."""
    rig.run(call("m1"), "n1")
    supersede(rig, call("m1"))
    assert start_late(rig, call("m1"), "n2").answer is Answer.DUPLICATE_DELIVERY


def test_rejection_comes_before_replaced(rig: Rig) -> None:
    """Row 5: a message that kills its process is a failure that somebody has to see."""
    rig.run(call("m1"), "n1")
    supersede(rig, call("m1"))
    rig.abandon(call("m1"), "n1")
    assert start_late(rig, call("m1"), "n2", max_deliveries=1).answer is Answer.REJECTED
    assert start_late(rig, call("m1"), "n2", max_deliveries=2).answer is Answer.REPLACED


def test_replaced_comes_before_missed_and_a_conflict(rig: Rig) -> None:
    """It does not wait for the run that the newer one waits for."""
    supersede(rig, call("m1"))
    assert start_late(rig, call("m1"), "n1").answer is Answer.REPLACED
    rig.run(call("m2"), "n2")
    replaced = rig.start(call("m1"), "n1")
    assert (replaced.answer, replaced.held) == (Answer.REPLACED, None)


def test_missed_comes_before_a_conflict(rig: Rig) -> None:
    """It will be later still when the run in its way has ended."""
    rig.run(call("m2"), "n2")
    assert start_late(rig, call("m1"), "n1").answer is Answer.MISSED
    assert rig.held(call("m2")) == "lease m2"
