"""
The rules of starts that are refused, in the order in which the reasons count.

That is the table in docs/explanation/protocol.md: each row has a test, and so have any
two rows that can hold at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceguard.store.contract import Answer
from onceguard.testing.case import SCOPES, record_of, who

if TYPE_CHECKING:
    from onceguard.testing.case import Case


class Refusals:
    """Who may not start, and what it is told."""

    @SCOPES
    def test_the_same_delivery_asking_again_gets_the_same_lease(
        self, case: Case, own_lease: bool
    ) -> None:
        """Row 1: a lost reply must neither count as a start nor look like another delivery."""
        message = case.message("m1", own_lease=own_lease)
        first, again = case.start(message, "n1"), case.start(message, "n1")
        assert record_of(again) == record_of(first)
        assert again.starts == 1

    def test_the_same_delivery_comes_before_every_reason(self, case: Case) -> None:
        """The reply that got lost said `acquired`, whatever happened to the message since."""
        message = case.message("m1")
        first = record_of(case.start(message, "n1", max_deliveries=1))
        assert record_of(case.start(message, "n1", max_deliveries=1)) == first
        assert record_of(case.start_late(message, "n1")) == first
        case.shorten(message, "n1", lease_ttl=case.long)
        assert record_of(case.start(message, "n1", max_deliveries=1)) == first

    @SCOPES
    def test_a_completed_message_is_not_started_again(
        self, case: Case, own_lease: bool
    ) -> None:
        """Row 2 is G4."""
        message = case.message("m1", own_lease=own_lease)
        case.run(message, "n1")
        case.finish(message, "n1")
        again = case.start(message, "n2")
        assert (again.answer, again.held) == (Answer.ALREADY_COMPLETED, None)
        assert case.has(message) == ""

    def test_completion_comes_before_every_kind_of_holder_and_the_cap(self, case: Case) -> None:
        """A finished message is acknowledged, never put off or failed."""
        message = case.message("m1")
        case.run(message, "n1")
        case.shorten(message, "n1", lease_ttl=case.long)  # completed, its lease still stands
        assert case.start(message, "n2").answer is Answer.ALREADY_COMPLETED
        case.finish(message, "n1", retry=case.retry_of(message))  # its retry is claimed
        assert case.start(message, "n2").answer is Answer.ALREADY_COMPLETED
        case.run(case.message("m2"), "n3")  # another call runs
        refused = case.start(message, "n2", max_deliveries=1)
        assert refused.answer is Answer.ALREADY_COMPLETED
        assert case.start_late(message, "n2").answer is Answer.ALREADY_COMPLETED

    @SCOPES
    def test_a_second_delivery_of_a_running_message_is_a_duplicate(
        self, case: Case, own_lease: bool
    ) -> None:
        """Row 3 is G3: it must be told apart from another call, for it may not be skipped."""
        message = case.message("m1", own_lease=own_lease)
        record = case.run(message, "n1")
        case.put_off(message, 4)
        again = case.start(message, "n2")
        assert again.answer is Answer.DUPLICATE_DELIVERY
        assert again.held is not None
        assert again.held.holder.record() == record
        assert case.is_about(again.held.time_left, case.long)
        assert (again.generation, again.starts) == (4, 1)

    def test_a_duplicate_delivery_comes_before_the_cap_and_lateness(self, case: Case) -> None:
        """The last allowed start is still running and may succeed."""
        message = case.message("m1")
        case.start(message, "n1", max_deliveries=1)
        again = case.start(message, "n2", max_deliveries=1)
        assert again.answer is Answer.DUPLICATE_DELIVERY
        assert case.start_late(message, "n2").answer is Answer.DUPLICATE_DELIVERY

    @SCOPES
    def test_a_retry_waits_for_the_end_of_the_run_that_published_it(
        self, case: Case, own_lease: bool
    ) -> None:
        """Row 4: a skip would overwrite the task's result, for the task is the same."""
        parent = case.message("m1", task_id=" a  task ", own_lease=own_lease)
        case.run(parent, "n1")
        early = case.start(case.retry_of(parent), "n2", parent=parent)
        assert early.answer is Answer.DUPLICATE_DELIVERY
        assert who(early.held) == ("lease", parent.message_id)
        assert case.finish(parent, "n1", retry=case.retry_of(parent))
        case.run(case.retry_of(parent), "n2", parent=parent)

    def test_a_task_id_that_ends_like_another_is_another_task(self, case: Case) -> None:
        """Task ids may hold spaces, and are compared whole."""
        case.run(case.message("m1", task_id="import of day 7"), "n1")
        beside = case.message("m2", task_id="day 7")
        assert case.start(beside, "n2").answer is Answer.CONFLICT

    def test_the_same_task_in_the_way_comes_before_the_cap(self, case: Case) -> None:
        """The message waits for what its own task does, whatever became of it before."""
        message = case.message("m1")
        case.run(case.retry_of(message), "n1")
        late = case.start(message, "n2", max_deliveries=0)
        assert late.answer is Answer.DUPLICATE_DELIVERY

    @SCOPES
    def test_a_message_that_was_started_too_often_is_rejected(
        self, case: Case, own_lease: bool
    ) -> None:
        """Row 5 is G7; the claim that its last process left does not matter."""
        message = case.message("m1", own_lease=own_lease)
        for number in (1, 2):
            assert case.start(message, f"n{number}", max_deliveries=2).starts == number
            case.abandon(message, f"n{number}")
        given_up = case.start(message, "n3", max_deliveries=2)
        assert (given_up.answer, given_up.starts) == (Answer.REJECTED, 2)

    def test_a_rejected_message_stays_open_until_its_failure_was_told(self, case: Case) -> None:
        """A crash between giving up and storing the failure must not swallow it."""
        message = case.message("m1")
        case.run(message, "n1")
        case.abandon(message, "n1")
        for nonce in ("n2", "n3"):
            assert case.start(message, nonce, max_deliveries=1).answer is Answer.REJECTED
        case.finish(message, "n3")
        assert case.has(message) == ""
        assert case.start(message, "n4").answer is Answer.ALREADY_COMPLETED

    def test_rejection_comes_before_a_conflict(self, case: Case) -> None:
        """Waiting for another call only to be given up helps nobody."""
        message, other = case.message("m1"), case.message("m2")
        case.run(message, "n1")
        case.abandon(message, "n1")
        case.run(other, "n2")
        assert case.start(message, "n3", max_deliveries=1).answer is Answer.REJECTED
        assert case.runs(other) == "n2"

    def test_a_message_that_starts_too_late_is_missed(self, case: Case) -> None:
        """``misfire_grace_time``, by the store's clock; it is no start, and frees nothing."""
        message = case.message("m1")
        case.claim(message)
        missed = case.start_late(message, "n1")
        assert (missed.answer, missed.starts) == (Answer.MISSED, 0)
        assert case.has(message) == f"claim {message.message_id}"
        in_time = case.start(message, "n1", start_by=case.now() + case.long)
        assert (in_time.answer, in_time.starts) == (Answer.ACQUIRED, 1)

    def test_a_message_that_has_run_is_not_missed(self, case: Case) -> None:
        """It started in time; what its process left unfinished is to be done."""
        message = case.message("m1")
        case.run(message, "n1")
        case.abandon(message, "n1")
        assert case.start_late(message, "n2").answer is Answer.ACQUIRED

    def test_missed_comes_before_a_conflict(self, case: Case) -> None:
        """It will be later still when the run in its way has ended."""
        case.run(case.message("m2"), "n2")
        assert case.start_late(case.message("m1"), "n1").answer is Answer.MISSED
        assert case.runs(case.message("m2")) == "n2"

    def test_another_running_call_is_a_conflict(self, case: Case) -> None:
        """The last row is G2; starts and generation say whether the message may be skipped."""
        record = case.run(case.message("m1"), "n1")
        other = case.message("m2")
        case.put_off(other, 3)
        refused = case.start(other, "n2")
        assert refused.answer is Answer.CONFLICT
        assert refused.held is not None
        assert refused.held.holder.record() == record
        assert case.is_about(refused.held.time_left, case.long)
        assert (refused.generation, refused.starts) == (3, 0)

    def test_a_refused_start_is_no_start(self, case: Case) -> None:
        """The cap counts bodies that began; and who runs goes on as before."""
        message, other = case.message("m1"), case.message("m2")
        record = case.run(message, "n1")
        case.start(other, "n2")
        case.start(message, "n3")
        held = case.store.holder(message)
        assert held is not None
        assert held.holder.record() == record
        case.abandon(message, "n1", unique_for=0)
        started = case.start(other, "n2")
        assert (started.answer, started.starts) == (Answer.ACQUIRED, 1)
        case.abandon(other, "n2", unique_for=0)
        assert case.start(message, "n3").starts == 2
