"""The rules of messages that a newer tick was sent instead of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onceguard.rules.overlap import Predecessor
from onceguard.store.contract import Answer, Renewed

if TYPE_CHECKING:
    from onceguard.store.contract import Message
    from onceguard.testing.beat import Beat


class Superseding:
    """Who is superseded, from when on, and what it is told."""

    def test_a_superseded_message_does_not_start(self, beat: Beat) -> None:
        """The newer one does its work."""
        beat.arrange(Predecessor.QUEUED)
        newer = beat.new("keep_latest")
        beat.send(newer)
        refused = beat.case.start(beat.queued, "n1")
        assert (refused.answer, refused.held) == (Answer.REPLACED, None)
        beat.case.drop(beat.queued)
        assert beat.case.has(newer.message) == f"claim {newer.message.message_id}"
        assert beat.case.start(beat.queued, "n1").answer is Answer.ALREADY_COMPLETED
        assert beat.case.start(newer.message, "n4").answer is Answer.ACQUIRED

    def test_an_older_message_starts_as_long_as_the_newer_one_is_not_sent(
        self, beat: Beat
    ) -> None:
        """Beat may die between claim and publish; then only the older one exists."""
        beat.arrange(Predecessor.QUEUED)
        beat.ask(beat.new("keep_latest"))
        assert beat.case.start(beat.queued, "n1").answer is Answer.ACQUIRED

    def test_a_message_that_has_ended_is_not_superseded(self, beat: Beat) -> None:
        """It was faster than beat; what it did counts."""
        beat.arrange(Predecessor.QUEUED)
        newer = beat.new("keep_latest")
        answer = beat.ask(newer)
        beat.case.run(beat.queued, "n1")
        beat.case.finish(beat.queued, "n1")
        beat.sent(newer, answer)
        assert beat.case.start(beat.queued, "n9").answer is Answer.ALREADY_COMPLETED

    @pytest.mark.parametrize(
        ("policy", "superseded"), [("keep_latest", False), ("cancel_other", True)]
    )
    def test_a_message_that_has_started_is_superseded_by_cancel_other_only(
        self, beat: Beat, policy: str, superseded: bool
    ) -> None:
        """It was faster than beat; `keep_latest` lets a run go on, and on after a crash."""
        beat.arrange(Predecessor.RUNNING_AND_BUFFERED)
        newer = beat.new(policy)
        answer = beat.ask(newer)
        assert beat.buffered.message_id in answer.superseded
        beat.case.finish(beat.running, "n2")
        beat.case.run(beat.buffered, "n3")
        beat.sent(newer, answer)
        told = beat.case.renew(beat.buffered, "n3", "")[0]
        assert told is (Renewed.SUPERSEDED if superseded else Renewed.RENEWED)
        beat.case.abandon(beat.buffered, "n3", unique_for=0)
        again = beat.case.start(beat.buffered, "n5").answer
        assert again is (Answer.REPLACED if superseded else Answer.ACQUIRED)

    def test_a_superseded_message_stays_so_when_it_comes_again(self, beat: Beat) -> None:
        """Neither its copy nor the next delivery after its process died may run."""
        _cancel(beat)
        assert beat.case.put_off(beat.running, 1) == 1
        assert beat.case.abandon(beat.running, "n2")
        refused = beat.case.start(beat.running, "n9")
        assert (refused.answer, refused.generation) == (Answer.REPLACED, 1)

    def test_the_retry_of_a_superseded_run_is_superseded_too(self, beat: Beat) -> None:
        """
        ``autoretry_for=(Exception,)`` retries what ``check()`` raises in a cancelled run.

        It would wait for the newer tick and run after it, as would each of its successors.
        """
        _cancel(beat)
        run, retry = beat.running, beat.case.retry_of(beat.running)
        beat.case.put_off(retry, 1)
        for _ in range(2):  # the first reply may be lost
            beat.case.finish(run, "n2", retry=retry)
            assert beat.case.has(run) == ""
            refused = beat.case.start(retry, "n9", parent=run)
            assert (refused.answer, refused.generation) == (Answer.REPLACED, 1)

    def test_the_retry_of_a_superseded_run_goes_on_if_it_has_started(self, beat: Beat) -> None:
        """It runs: only a newer tick that meets it there may tell it to stop."""
        run, retry = beat.running, beat.case.retry_of(beat.running)
        _cancel(beat)
        beat.case.renew(run, "n2", "", lease_ttl=beat.case.brief)
        beat.case.eventually(lambda: beat.case.runs(run) is None, "the lease had ended")
        record = beat.case.run(retry, "n9", parent=run)
        beat.case.finish(run, "n2", retry=retry)
        assert beat.case.renew(retry, "n9", record)[0] is Renewed.RENEWED

    def test_a_superseded_run_that_just_ends_is_over(self, beat: Beat) -> None:
        """And the newer one starts."""
        newer = _cancel(beat)
        assert beat.case.finish(beat.running, "n2")
        assert beat.case.start(beat.running, "n9").answer is Answer.ALREADY_COMPLETED
        assert beat.case.start(newer, "n4").answer is Answer.ACQUIRED

    def test_a_run_learns_at_its_renewal_that_it_is_superseded(self, beat: Beat) -> None:
        """Cancelling is cooperative: the lease is kept, or two would run."""
        beat.send(beat.tick(2))
        beat.case.start(beat.running, "n2", lease_ttl=beat.case.long / 2)
        newer = beat.new("cancel_other")
        beat.send(newer)
        held = beat.case.store.holder(beat.running)
        assert held is not None
        record = held.holder.record()
        for seen in ("", record):
            told = beat.case.renew(beat.running, "n2", seen)
            assert told == (Renewed.SUPERSEDED, record)
        held = beat.case.store.holder(beat.running)
        assert held is not None
        assert beat.case.is_about(held.time_left, beat.case.long)
        assert beat.case.start(newer.message, "n4").answer is Answer.CONFLICT

    def test_a_run_learns_when_it_retakes_its_lease_that_it_is_superseded(
        self, beat: Beat
    ) -> None:
        """It was stalled while beat told it to stop."""
        beat.send(beat.tick(2))
        record = beat.case.run(beat.running, "n2")
        beat.send(beat.new("cancel_other"))
        beat.case.renew(beat.running, "n2", record, lease_ttl=beat.case.brief)
        beat.case.eventually(lambda: beat.case.runs(beat.running) is None, "it had ended")
        told = beat.case.renew(beat.running, "n2", record)
        assert told == (Renewed.SUPERSEDED, record)
        assert beat.case.runs(beat.running) == "n2"

    def test_renewals_tell_only_the_run_that_is_superseded(self, beat: Beat) -> None:
        """They come for a whole partition at a time."""
        _cancel(beat)
        beside = beat.case.message("m9", own_lease=True)
        record = beat.case.run(beside, "n9")
        leases = [
            beat.case.lease(beside, "n9", record),
            beat.case.lease(beat.running, "n2", ""),
        ]
        told = [answer for answer, _ in beat.case.store.renew(leases)]
        assert told == [Renewed.RENEWED, Renewed.SUPERSEDED]

    # What a start answers, in the order of docs/explanation/protocol.md; the rows around
    # these are in `refusals`.

    def test_the_same_delivery_asking_again_is_not_replaced(self, beat: Beat) -> None:
        """Row 1 comes first: the reply that got lost said `acquired`."""
        _cancel(beat)
        assert beat.case.start_late(beat.running, "n2").answer is Answer.ACQUIRED

    def test_completion_comes_before_replaced(self, beat: Beat) -> None:
        """Row 2: its run has ended, and it comes again."""
        _cancel(beat)
        beat.case.finish(beat.running, "n2")
        again = beat.case.start_late(beat.running, "n9")
        assert again.answer is Answer.ALREADY_COMPLETED

    def test_a_duplicate_delivery_is_not_replaced(self, beat: Beat) -> None:
        """Row 3: the run that was told to stop may go on, or die and leave its message."""
        _cancel(beat)
        again = beat.case.start_late(beat.running, "n9")
        assert again.answer is Answer.DUPLICATE_DELIVERY

    def test_rejection_comes_before_replaced(self, beat: Beat) -> None:
        """A message that kills its process is a failure that somebody has to see."""
        _cancel(beat)
        beat.case.abandon(beat.running, "n2")
        for cap, answer in ((1, Answer.REJECTED), (2, Answer.REPLACED)):
            started = beat.case.start(beat.running, "n9", max_deliveries=cap)
            assert started.answer is answer

    def test_replaced_comes_before_missed_and_a_conflict(self, beat: Beat) -> None:
        """It does not wait for the run that the newer one waits for."""
        beat.arrange(Predecessor.QUEUED)
        newer = beat.new("keep_latest")
        beat.send(newer)
        assert beat.case.start_late(beat.queued, "n1").answer is Answer.REPLACED
        beat.case.run(newer.message, "n4")
        replaced = beat.case.start(beat.queued, "n1")
        assert (replaced.answer, replaced.held) == (Answer.REPLACED, None)


def _cancel(beat: Beat) -> Message:
    """Let a tick run, and a newer one tell it to stop; returns that one's message."""
    beat.arrange(Predecessor.RUNNING)
    newer = beat.new("cancel_other")
    beat.send(newer)
    return beat.as_waiting(newer)
