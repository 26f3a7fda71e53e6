"""The rules of renewals: a lease is kept, taken up again, or given up for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onceguard.rules.holder import Holder
from onceguard.rules.messages import PARTITIONS, partition
from onceguard.store.contract import Answer, Renewed
from onceguard.testing.case import SCOPES

if TYPE_CHECKING:
    from onceguard.testing.case import Case


class Renewals:
    """What a renewal answers."""

    @SCOPES
    def test_a_renewal_gives_the_lease_a_new_life(self, case: Case, own_lease: bool) -> None:
        """Else a run that takes longer than a lease would lose its key."""
        message = case.message("m1", own_lease=own_lease)
        started = case.start(message, "n1", lease_ttl=case.long / 2)
        assert started.held is not None
        record = started.held.holder.record()
        for seen in ("", record):  # the main process never saw the start: its child did
            assert case.renew(message, "n1", seen) == (Renewed.RENEWED, record)
        held = case.store.holder(message)
        assert held is not None
        assert case.is_about(held.time_left, case.long)
        assert held.holder.record() == record

    def test_a_renewal_before_the_start_is_absent_and_takes_nothing(self, case: Case) -> None:
        """A delivery that waits for a pool process is in the list of active ones already."""
        message = case.message("m1")
        assert case.renew(message, "n1", "") == (Renewed.ABSENT, "")
        case.claim(message)
        assert case.renew(message, "n1", "")[0] is Renewed.ABSENT
        assert case.has(message) == f"claim {message.message_id}"

    def test_the_lease_of_another_delivery_is_not_renewed(self, case: Case) -> None:
        """G6: owners are compared by nonce, for a redelivered copy has the same ids."""
        message = case.message("m1")
        case.start(message, "n1", lease_ttl=case.long / 2)
        assert case.renew(message, "n2", "")[0] is Renewed.ABSENT
        held = case.store.holder(message)
        assert held is not None
        assert held.time_left <= case.long / 2 + case.slack

    @SCOPES
    def test_an_ended_lease_is_taken_up_again_if_nobody_ran(
        self, case: Case, own_lease: bool
    ) -> None:
        """A stall that hurt nobody goes on, with its token and attempt."""
        message = case.message("m1", own_lease=own_lease)
        record = case.lapse(message, "n1")
        assert case.renew(message, "n1", record) == (Renewed.RETAKEN, record)
        held = case.store.holder(message)
        assert held is not None
        assert case.is_about(held.time_left, case.long)
        assert case.renew(message, "n1", record) == (Renewed.RENEWED, record)
        assert case.start(message, "n2").answer is Answer.DUPLICATE_DELIVERY
        assert case.finish(message, "n1")
        later = case.start(case.message("m2", own_lease=own_lease), "n2").held
        assert later is not None
        assert later.holder.fencing_token > Holder.parse(record).fencing_token

    def test_an_ended_lease_is_taken_up_again_over_anothers_claim(self, case: Case) -> None:
        """A claim is no run: the call that is queued waits or is skipped at its start."""
        message, queued = case.message("m1"), case.message("m2")
        record = case.lapse(message, "n1")
        assert case.claim(queued) is None
        assert case.renew(message, "n1", record) == (Renewed.RETAKEN, record)
        assert case.start(queued, "n2").answer is Answer.CONFLICT

    @SCOPES
    def test_a_run_that_was_never_seen_gets_a_lease(self, case: Case, own_lease: bool) -> None:
        """It has gone on for so long that it must have had one; other runs are told of it."""
        message = case.message("m1", own_lease=own_lease)
        unseen = case.lease(message, "n1", "", unseen=True)
        ((answer, record),) = case.store.renew([unseen])
        assert answer is Renewed.RETAKEN
        holder = Holder.parse(record)
        assert (holder.message_id, holder.nonce) == (message.message_id, "n1")
        assert (holder.task_id, holder.where) == (message.task_id, message.where)
        assert case.renew(message, "n1", "") == (Renewed.RENEWED, record)
        assert case.start(message, "n2").answer is Answer.DUPLICATE_DELIVERY

    def test_a_run_that_was_never_seen_gets_back_the_lease_that_it_had(
        self, case: Case
    ) -> None:
        """With its attempt and token, if the store still knows them."""
        message = case.message("m1")
        first = Holder.parse(case.lapse(message, "n1"))
        unseen = case.lease(message, "n1", "", unseen=True)
        ((answer, record),) = case.store.renew([unseen])
        again = Holder.parse(record)
        assert answer is Renewed.RETAKEN
        assert (again.attempt, again.fencing_token) == (first.attempt, first.fencing_token)

    def test_a_run_that_was_never_seen_takes_nothing_from_anyone(self, case: Case) -> None:
        """G6: whoever runs now, runs; and what is over stays over."""
        runs, over = case.message("m1"), case.message("m2", key=f"{case.key}.2")
        record = case.run(runs, "n1")
        case.run(over, "n2")
        case.finish(over, "n2")
        asked = [
            case.lease(case.message("m3"), "n3", "", unseen=True),
            case.lease(over, "n2", "", unseen=True),
        ]
        assert case.store.renew(asked) == [(Renewed.LOST, record), (Renewed.ENDED, "")]

    def test_a_lease_is_lost_to_a_running_successor(self, case: Case) -> None:
        """G9: the answer names who has it, for the log."""
        message = case.message("m1")
        record = case.lapse(message, "n1")
        successor = case.run(case.message("m2"), "n2")
        assert case.renew(message, "n1", record) == (Renewed.LOST, successor)
        assert case.runs(message) == "n2"

    @pytest.mark.parametrize("claimed", [False, True], ids=["unclaimed", "claimed before"])
    def test_a_lease_is_lost_to_a_successor_that_has_ended(
        self, case: Case, claimed: bool
    ) -> None:
        """G9: A stalls, B runs and finishes, the key is free: A's token is old all the same."""
        message, successor, third = (case.message(name) for name in ("m1", "m2", "m3"))
        record = case.lapse(message, "n1")
        if claimed:
            case.claim(successor)
        case.run(successor, "n2")
        case.finish(successor, "n2")
        assert case.renew(message, "n1", record) == (Renewed.LOST, "")
        case.claim(third)
        assert case.renew(message, "n1", record)[0] is Renewed.LOST
        assert case.has(third) == f"claim {third.message_id}"

    def test_only_the_newest_of_dead_holders_takes_its_lease_up_again(self, case: Case) -> None:
        """B that followed a dead A may stall as well; but whoever is older is shut out."""
        first, second, third = (case.message(name) for name in ("m1", "m2", "m3"))
        seen_first, seen_second = case.lapse(first, "n1"), case.lapse(second, "n2")
        assert case.renew(first, "n1", seen_first)[0] is Renewed.LOST
        assert case.renew(second, "n2", seen_second) == (Renewed.RETAKEN, seen_second)
        case.abandon(second, "n2", unique_for=0)
        case.run(third, "n3")
        case.finish(third, "n3")
        assert case.renew(first, "n1", seen_first)[0] is Renewed.LOST

    @SCOPES
    def test_a_lease_is_lost_to_a_later_delivery_of_its_message(
        self, case: Case, own_lease: bool
    ) -> None:
        """The redelivered copy ran: by nonce, for message and task are the same."""
        message = case.message("m1", own_lease=own_lease)
        record = case.lapse(message, "n1")
        later = case.run(message, "n2")
        assert case.renew(message, "n1", record) == (Renewed.LOST, later)
        case.abandon(message, "n2", unique_for=0)
        assert case.renew(message, "n1", record) == (Renewed.LOST, "")

    def test_scope_until_executing_loses_nothing_to_a_neighbours_redelivery(
        self, case: Case
    ) -> None:
        """
        Runs of different messages do not follow one another in this scope.

        m0 and m1 run side by side; both leases end; m0's message comes again and runs.
        Nobody but m1 ran m1: it must be taken up again.
        """
        first, second = (case.message(name, own_lease=True) for name in ("m0", "m1"))
        case.lapse(first, "n0")
        record = case.lapse(second, "n1")
        case.run(first, "n2")
        assert case.renew(second, "n1", record) == (Renewed.RETAKEN, record)

    @SCOPES
    def test_the_lease_of_a_completed_message_has_ended(
        self, case: Case, own_lease: bool
    ) -> None:
        """A renewal that crosses the run's end must not bring its lease back."""
        message = case.message("m1", own_lease=own_lease)
        record = case.run(message, "n1")
        case.finish(message, "n1")
        assert case.renew(message, "n1", record) == (Renewed.ENDED, "")
        assert case.store.holder(message) is None

    @SCOPES
    def test_an_abandoned_lease_has_ended(self, case: Case, own_lease: bool) -> None:
        """Its message will come again; a renewal must not run it back into a lease."""
        for name, life in (("m1", case.long), ("m2", 0.0)):
            message = case.message(name, own_lease=own_lease, key=f"{case.key}.{name}")
            record = case.run(message, "n1")
            case.abandon(message, "n1", unique_for=life)
            assert case.renew(message, "n1", record) == (Renewed.ENDED, "")
            assert case.has(message) == (f"claim {message.message_id}" if life else "")

    def test_one_call_renews_the_leases_of_many_partitions_in_order(self, case: Case) -> None:
        """The worker matches answers to runs by place alone."""
        calls = [case.message(f"m{n}", key=f"{case.key}.{n}") for n in range(40)]
        assert len({partition(each.key) for each in calls}) > PARTITIONS / 2
        records = [case.run(each, "n") for each in calls]
        case.finish(calls[3], "n")
        case.abandon(calls[5], "n", unique_for=0)
        lost = case.run(calls[5], "later")
        leases = [
            case.lease(each, "n", seen) for each, seen in zip(calls, records, strict=True)
        ]
        leases.insert(7, case.lease(case.message("never", key=f"{case.key}.never"), "n", ""))
        expected = [(Renewed.RENEWED, record) for record in records]
        expected[3], expected[5] = (Renewed.ENDED, ""), (Renewed.LOST, lost)
        expected.insert(7, (Renewed.ABSENT, ""))
        assert case.store.renew(leases) == expected
        assert case.store.renew([]) == []
