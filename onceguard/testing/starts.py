"""The rules of starts that are granted, and of what they are granted over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onceguard.store.contract import Answer
from onceguard.testing.case import SCOPES, record_of

if TYPE_CHECKING:
    from onceguard.testing.case import Case


class Starts:
    """Who may start, with which attempt and token."""

    @SCOPES
    def test_a_free_key_is_acquired_with_attempt_token_and_time(
        self, case: Case, own_lease: bool
    ) -> None:
        """What ``self.request.once`` shows comes from this answer."""
        message = case.message("m1", own_lease=own_lease)
        now = case.now()
        started = case.start(message, "n1")
        assert (started.answer, started.generation) == (Answer.ACQUIRED, 0)
        assert started.held is not None
        holder = started.held.holder
        assert (holder.state, holder.message_id, holder.nonce) == (
            "lease",
            message.message_id,
            "n1",
        )
        assert (holder.where, holder.task_id) == (message.where, message.task_id)
        assert (holder.attempt, started.starts) == (1, 1)
        assert holder.fencing_token > 0
        assert abs(holder.since - now) < 30 + case.slack
        assert case.is_about(started.held.time_left, case.long)

    @SCOPES
    def test_holder_names_who_runs(self, case: Case, own_lease: bool) -> None:
        """Beat's log, ``explain`` and the worker's log read it."""
        message = case.message("m1", own_lease=own_lease)
        assert case.store.holder(message) is None
        record = case.run(message, "n1")
        held = case.store.holder(message)
        assert held is not None
        assert held.holder.record() == record
        assert case.is_about(held.time_left, case.long)

    @pytest.mark.parametrize("whose", ["m1", "m2"], ids=["its own", "another's"])
    def test_a_claim_never_refuses_a_start(self, case: Case, whose: str) -> None:
        """A claim's message may never have been sent, or never come."""
        message = case.message("m1")
        case.claim(case.message(whose))
        case.run(message, "n1")
        assert case.has(message) == f"lease {message.message_id}"
        case.finish(message, "n1")
        assert case.has(message) == ""

    def test_scope_until_executing_frees_its_own_claim_at_start(self, case: Case) -> None:
        """The next equal call may be queued, and start, while this one runs."""
        first, second = (case.message(name, own_lease=True) for name in ("m1", "m2"))
        case.claim(first)
        case.run(first, "n1")
        assert case.claim(second) is None
        case.run(second, "n2")
        assert (case.runs(first), case.runs(second)) == ("n1", "n2")

    def test_scope_until_executing_leaves_another_claim_standing(self, case: Case) -> None:
        """m1 comes again while m2 is queued: m2's claim must go on refusing m3."""
        second = case.message("m2", own_lease=True)
        case.claim(second)
        case.run(case.message("m1", own_lease=True), "n1")
        assert case.has(second) == f"claim {second.message_id}"

    @SCOPES
    def test_attempts_count_the_starts_of_a_message(self, case: Case, own_lease: bool) -> None:
        """G7: what is counted is bodies that began, by whatever end they met."""
        message = case.message("m1", own_lease=own_lease)
        for number in (1, 2, 3):
            case.put_off(message, number)
            started = case.start(message, f"n{number}")
            assert started.held is not None
            assert started.held.holder.attempt == started.starts == number
            assert started.generation == number
            case.abandon(message, f"n{number}", unique_for=case.long if number == 2 else 0)
        beside = case.message("m2", own_lease=own_lease)
        assert case.start(beside, "n9").starts == 1

    def test_a_start_keeps_the_generation_of_its_message(self, case: Case) -> None:
        """Copies older than the newest must go on being acknowledged while it runs."""
        message = case.message("m1")
        case.put_off(message, 2)
        assert case.start(message, "n1").generation == 2
        assert case.start(message, "n2").generation == 2
        case.abandon(message, "n1")
        assert case.start(message, "n3").generation == 2

    def test_a_started_retry_completes_its_parent(self, case: Case) -> None:
        """Else a parent whose worker died before the ack would run beside its retry."""
        parent = case.message("m1")
        case.run(parent, "n1")
        case.abandon(parent, "n1")
        case.run(case.retry_of(parent), "n2", parent=parent)
        assert case.start(parent, "n3").answer is Answer.ALREADY_COMPLETED

    def test_a_refused_retry_leaves_its_parent_open(self, case: Case) -> None:
        """Only a retry that runs proves that the parent is over."""
        parent = case.message("m1")
        case.run(case.message("m2"), "n2")
        refused = case.start(case.retry_of(parent), "n1", parent=parent)
        assert refused.answer is Answer.CONFLICT
        case.finish(case.message("m2"), "n2")
        assert case.start(parent, "n3").starts == 1

    def test_a_claim_of_the_same_task_refuses_no_start(self, case: Case) -> None:
        """
        m1's process died after publishing its retry and left m1's claim.

        Put off for the rest of that claim, the retry would come an hour late.
        """
        parent = case.message("m1")
        case.claim(parent)
        case.run(case.retry_of(parent), "n2", parent=parent)
        assert case.start(parent, "n3").answer is Answer.ALREADY_COMPLETED

    def test_fencing_tokens_grow_with_each_lease_of_a_key(self, case: Case) -> None:
        """G9: by whichever message, end and store, also where a lease ended by itself."""
        tokens = []
        for number in range(12):
            asking = case.elsewhere if number % 4 > 1 else case
            message = case.message(f"m{number % 3}")
            held = asking.start(message, f"n{number}").held
            assert held is not None
            tokens.append(held.holder.fencing_token)
            asking.abandon(message, f"n{number}", unique_for=case.long if number % 2 else 0)
        case.lapse(case.message("m8"), "n")
        held = case.start(case.message("m9"), "n").held
        assert held is not None
        tokens.append(held.holder.fencing_token)
        assert tokens == sorted(set(tokens))

    @SCOPES
    def test_a_lease_ends_by_itself(self, case: Case, own_lease: bool) -> None:
        """
        G5: nobody renews a dead worker's lease; its message comes again and runs.

        As its second attempt, and with a higher token.
        """
        message = case.message("m1", own_lease=own_lease)
        beside = case.message("beside", key=f"{case.key}.beside", own_lease=own_lease)
        case.run(beside, "n")
        dead = case.start(message, "n1", lease_ttl=case.brief)
        assert dead.held is not None
        case.eventually(
            lambda: case.start(message, "n2").answer is Answer.ACQUIRED, "the lease had ended"
        )
        held = case.store.holder(message)
        assert held is not None
        assert (held.holder.nonce, held.holder.attempt) == ("n2", 2)
        assert held.holder.fencing_token > dead.held.holder.fencing_token
        assert case.runs(beside) == "n"

    def test_another_call_starts_when_a_dead_ones_lease_has_ended(self, case: Case) -> None:
        """And until then it is told how long that will take at most."""
        other = case.message("m2")
        case.start(case.message("m1"), "n1", lease_ttl=case.short)
        refused = case.start(other, "n2")
        if refused.answer is Answer.CONFLICT:  # else the machine took its time
            assert refused.held is not None
            assert refused.held.time_left <= case.short + case.slack
            case.eventually(
                lambda: case.start(other, "n2").answer is Answer.ACQUIRED,
                "the lease had ended",
            )
        assert record_of(case.start(other, "n2"))
