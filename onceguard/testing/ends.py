"""The rules of ends: finished, given up by a dead process, or cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceguard.store.contract import Answer
from onceguard.testing.case import SCOPES, who

if TYPE_CHECKING:
    from onceguard.testing.case import Case


class Ends:
    """How a run ends, and whom that leaves alone."""

    @SCOPES
    def test_finish_frees_the_key_and_records_completion(
        self, case: Case, own_lease: bool
    ) -> None:
        """One call between the stored result and the ack."""
        message = case.message("m1", own_lease=own_lease)
        case.run(message, "n1")
        assert case.finish(message, "n1")
        assert case.store.holder(message) is None
        assert case.has(message) == ""
        assert case.start(message, "n2").answer is Answer.ALREADY_COMPLETED
        case.run(case.message("m2", own_lease=own_lease), "n3")

    def test_finish_sent_again_changes_nothing(self, case: Case) -> None:
        """A lost reply: the next holder may have come in between."""
        message, retry = case.message("m1"), case.retry_of(case.message("m1"))
        case.run(message, "n1")
        assert case.finish(message, "n1", retry=retry)
        assert not case.finish(message, "n1", retry=retry)
        assert case.has(message) == f"claim {retry.message_id}"
        case.run(case.message("m2"), "n2")
        case.finish(message, "n1")
        assert case.runs(message) == "n2"

    @SCOPES
    def test_a_late_finish_leaves_the_next_holder_alone_and_still_completes(
        self, case: Case, own_lease: bool
    ) -> None:
        """G6: A stalls, B starts, A ends: B keeps the key, and A's message is done."""
        late, next_one = (case.message(name, own_lease=own_lease) for name in ("m1", "m2"))
        case.lapse(late, "n1")
        case.run(next_one, "n2")
        assert not case.finish(late, "n1")
        assert case.runs(next_one) == "n2"
        assert case.start(late, "n3").answer is Answer.ALREADY_COMPLETED

    @SCOPES
    def test_every_end_leaves_a_later_delivery_of_its_message_alone(
        self, case: Case, own_lease: bool
    ) -> None:
        """G6: owners are compared by nonce, for message and task are the same."""
        message = case.message("m1", own_lease=own_lease)
        case.run(message, "n1")
        case.abandon(message, "n1", unique_for=0)
        case.run(message, "n2")
        assert not case.abandon(message, "n1")
        assert case.runs(message) == "n2"
        assert not case.shorten(message, "n1", lease_ttl=case.brief)
        assert not case.finish(message, "n1")
        held = case.store.holder(message)
        assert held is not None
        assert held.holder.nonce == "n2"
        assert case.is_about(held.time_left, case.long)

    def test_finish_ends_a_claim_of_its_own_message(self, case: Case) -> None:
        """A rejected message has no lease, but the claim that its dead run left."""
        message = case.message("m1")
        case.run(message, "n1")
        case.abandon(message, "n1")
        assert not case.finish(message, "n2")
        assert case.has(message) == ""

    def test_finish_leaves_anothers_claim_alone(self, case: Case) -> None:
        """A skipped overlap ends while a third call is queued."""
        other = case.message("m2")
        case.claim(other)
        case.finish(case.message("m1"), "n1")
        assert case.has(other) == f"claim {other.message_id}"

    def test_a_skipped_delivery_settles_its_message(self, case: Case) -> None:
        """A skip is an end like any other; a copy of it must not run."""
        case.run(case.message("m1"), "n1")
        case.skip(case.message("m2"), "n2")
        assert case.runs(case.message("m1")) == "n1"
        assert case.start(case.message("m2"), "n3").answer is Answer.ALREADY_COMPLETED

    @SCOPES
    def test_a_skip_leaves_alone_what_another_delivery_has_started(
        self, case: Case, own_lease: bool
    ) -> None:
        """Between refusal and skip the key was freed, and another delivery of it runs."""
        message = case.message("m1", own_lease=own_lease)
        case.run(message, "n2")
        assert not case.skip(message, "n1")
        assert case.runs(message) == "n2"
        assert case.start(message, "n3").answer is Answer.DUPLICATE_DELIVERY
        case.abandon(message, "n2")
        assert not case.skip(message, "n1")
        assert case.start(message, "n3").answer is Answer.ACQUIRED

    def test_finish_passes_the_key_on_to_the_retry(self, case: Case) -> None:
        """No equal call may slip in between a run and its retry."""
        message = case.message("m1")
        retry = case.retry_of(message)
        case.run(message, "n1")
        assert case.finish(message, "n1", retry=retry)
        held = case.claim(case.message("m2"))
        assert who(held) == ("claim", retry.message_id)
        assert held is not None
        assert held.holder.task_id == message.task_id
        assert case.is_about(held.time_left, case.long)
        case.run(retry, "n2", parent=message)

    def test_scope_until_executing_passes_a_free_key_on_and_no_other(self, case: Case) -> None:
        """The retry is queued like any call; one that is queued already keeps its claim."""
        first, second, third = (
            case.message(name, own_lease=True) for name in ("m1", "m2", "m3")
        )
        case.run(first, "n1")
        case.claim(second)
        case.finish(first, "n1", retry=case.retry_of(first))
        assert case.has(first) == f"claim {second.message_id}"
        case.store.unclaim(second)
        case.run(third, "n3")
        case.finish(third, "n3", retry=case.retry_of(third))
        assert case.has(first) == f"claim {case.retry_of(third).message_id}"

    @SCOPES
    def test_a_late_finish_claims_nothing_for_a_retry_that_has_begun(
        self, case: Case, own_lease: bool
    ) -> None:
        """
        Such a claim would be freed by nobody, and block the key for unique_for.

        m1 publishes its retry and stalls, its lease ends, the retry runs and perhaps
        finishes, then m1 comes to its end.
        """
        for name, ended in (("m1", False), ("m2", True)):
            parent = case.message(name, own_lease=own_lease, key=f"{case.key}.{name}")
            retry = case.retry_of(parent)
            case.lapse(parent, "n1")
            case.run(retry, "n2", parent=parent)
            if ended:
                case.finish(retry, "n2")
            case.finish(parent, "n1", retry=retry)
            runs = not ended and not own_lease
            assert case.has(parent) == (f"lease {retry.message_id}" if runs else "")

    def test_abandon_turns_the_lease_into_the_messages_claim(self, case: Case) -> None:
        """G5: the message will be delivered again; no equal call may be queued meanwhile."""
        message = case.message("m1")
        case.run(message, "n1")
        assert case.abandon(message, "n1")
        held = case.claim(case.message("m2"))
        assert who(held) == ("claim", message.message_id)
        assert held is not None
        assert held.holder.task_id == message.task_id
        assert case.is_about(held.time_left, case.long)
        again = case.start(message, "n2")
        assert (again.answer, again.starts) == (Answer.ACQUIRED, 2)

    @SCOPES
    def test_abandon_without_a_claim_frees_the_lease(self, case: Case, own_lease: bool) -> None:
        """Scopes that hold nothing between publish and start claim nothing back."""
        message = case.message("m1", own_lease=own_lease)
        case.run(message, "n1")
        assert case.abandon(message, "n1", unique_for=0)
        assert case.store.holder(message) is None
        assert case.has(message) == ""

    def test_scope_until_executing_abandons_beside_anothers_claim(self, case: Case) -> None:
        """G6: the key is claimed for the next call; only this task's lease goes."""
        first, second = (case.message(name, own_lease=True) for name in ("m1", "m2"))
        case.run(first, "n1")
        case.claim(second)
        assert case.abandon(first, "n1")
        assert case.has(second) == f"claim {second.message_id}"
        assert case.start(first, "n2").starts == len(("n1", "n2"))

    def test_abandon_again_changes_nothing(self, case: Case) -> None:
        """Sent again after a lost reply, or after a lost lease."""
        message = case.message("m1")
        case.run(message, "n1")
        case.abandon(message, "n1", unique_for=case.long)
        assert not case.abandon(message, "n1", unique_for=0)
        assert case.has(message) == f"claim {message.message_id}"

    @SCOPES
    def test_an_abandoned_run_of_a_settled_message_keeps_no_claim(
        self, case: Case, own_lease: bool
    ) -> None:
        """After a hard time limit the message is over: nobody would come to free the claim."""
        message = case.message("m1", own_lease=own_lease)
        case.run(message, "n1")
        case.shorten(message, "n1", lease_ttl=case.long)
        assert case.abandon(message, "n1")
        assert case.has(message) == ""
        assert case.store.holder(message) is None
        assert case.start(message, "n2").answer is Answer.ALREADY_COMPLETED

    @SCOPES
    def test_shorten_completes_the_message_and_lets_its_lease_end_soon(
        self, case: Case, own_lease: bool
    ) -> None:
        """At a hard time limit the child still lives: freed at once, two would run."""
        message, beside = (case.message(name, own_lease=own_lease) for name in ("m1", "m2"))
        case.run(message, "n1")
        ttl = case.long / 2
        assert case.shorten(message, "n1", lease_ttl=ttl)
        assert case.start(message, "n2").answer is Answer.ALREADY_COMPLETED
        other = case.start(beside, "n3").answer
        assert other is (Answer.ACQUIRED if own_lease else Answer.CONFLICT)
        held = case.store.holder(message)
        assert held is not None
        assert case.is_about(held.time_left, ttl)
        assert case.shorten(message, "n1", lease_ttl=case.brief)
        case.eventually(lambda: case.runs(message) is None, "the lease had ended")

    def test_shorten_never_lengthens(self, case: Case) -> None:
        """A lease that is about to end may not be kept by its process's death."""
        message = case.message("m1")
        case.start(message, "n1", lease_ttl=case.long / 2)
        assert case.shorten(message, "n1", lease_ttl=case.long)
        held = case.store.holder(message)
        assert held is not None
        assert held.time_left <= case.long / 2 + case.slack

    def test_shorten_leaves_another_lease_as_it_is(self, case: Case) -> None:
        """G6; the message is settled all the same, and loses its claim."""
        late, next_one = case.message("m1"), case.message("m2")
        case.run(late, "n1")
        case.abandon(late, "n1", unique_for=0)
        case.run(next_one, "n2")
        assert not case.shorten(late, "n1", lease_ttl=case.brief)
        held = case.store.holder(next_one)
        assert held is not None
        assert case.is_about(held.time_left, case.long)
        assert case.start(late, "n3").answer is Answer.ALREADY_COMPLETED

    def test_shorten_ends_a_claim_of_its_own_message(self, case: Case) -> None:
        """Its process was taken for dead before; the message is settled, and nobody comes."""
        message = case.message("m1")
        case.run(message, "n1")
        case.abandon(message, "n1")
        assert not case.shorten(message, "n1", lease_ttl=case.brief)
        assert case.has(message) == ""
        assert case.start(message, "n2").answer is Answer.ALREADY_COMPLETED
