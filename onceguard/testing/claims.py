"""The rules of claims: of calls that are published and have not started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceguard.rules.messages import PARTITIONS
from onceguard.store.contract import Answer
from onceguard.testing.case import who

if TYPE_CHECKING:
    from onceguard.testing.case import Case


class Claims:
    """Claims, put-off copies and dropped messages."""

    def test_one_of_two_claims_is_refused_and_learns_who_has_the_key(self, case: Case) -> None:
        """G1: the second publisher must be able to say whom it was refused for."""
        first = case.message("m1")
        now = case.now()
        assert case.claim(first) is None
        held = case.claim(case.message("m2"))
        assert who(held) == ("claim", first.message_id)
        assert held is not None
        assert held.holder.task_id == first.task_id
        assert (held.holder.nonce, held.holder.where) == ("-", "-")
        assert (held.holder.attempt, held.holder.fencing_token) == (0, 0)
        assert case.is_about(held.time_left, case.long)
        assert abs(held.holder.since - now) < 30 + case.slack

    def test_a_claim_sent_again_is_no_duplicate_of_itself(self, case: Case) -> None:
        """After a lost reply a publisher must not be refused by its own claim."""
        assert case.claim(case.message("m1")) is None
        assert case.claim(case.message("m1")) is None
        assert who(case.claim(case.message("m2")))[1] == case.message("m1").message_id

    def test_a_claim_is_refused_while_an_equal_call_runs(self, case: Case) -> None:
        """Scope until_executed lasts to the end of the run, not to its start."""
        record = case.run(case.message("m1"), "n1")
        held = case.claim(case.message("m2"))
        assert held is not None
        assert held.holder.record() == record
        assert (held.holder.state, held.holder.nonce, held.holder.attempt) == ("lease", "n1", 1)
        assert case.is_about(held.time_left, case.long)

    def test_claims_of_different_keys_do_not_meet(self, case: Case) -> None:
        """Keys share partitions; they must share nothing else."""
        keys = [f"{case.key}.{number}" for number in range(2 * PARTITIONS)]
        claims = [case.claim(case.message(f"m-{key}", key=key)) for key in keys]
        assert claims == [None] * len(keys)

    def test_a_claim_ends_after_its_own_life(self, case: Case) -> None:
        """A call that was claimed and never sent must not block its key for ever."""
        beside = case.message("beside", key=f"{case.key}.beside")
        case.claim(beside)
        case.claim(case.message("m1"), unique_for=case.brief)
        case.eventually(
            lambda: case.claim(case.message("m2")) is None, "the first claim had ended"
        )
        assert case.has(beside) == f"claim {beside.message_id}"

    def test_unclaim_frees_its_own_claim_and_no_other(self, case: Case) -> None:
        """G6: a publish that failed late must not free the next publisher's key."""
        case.claim(case.message("m2"))
        case.store.unclaim(case.message("m1"))
        assert case.has(case.message("m2")) == f"claim {case.message('m2').message_id}"
        case.store.unclaim(case.message("m2"))
        case.store.unclaim(case.message("m2"))
        assert case.claim(case.message("m3")) is None

    def test_unclaim_leaves_a_lease_of_its_own_message_alone(self, case: Case) -> None:
        """A send that seemed to fail may have arrived: its run must keep the key."""
        case.run(case.message("m1"), "n1")
        case.store.unclaim(case.message("m1"))
        assert case.runs(case.message("m1")) == "n1"

    def test_a_message_id_that_begins_like_another_owns_nothing_of_it(self, case: Case) -> None:
        """Owners are compared whole: m1 is not m1.r1, which begins with its letters."""
        first, longer = case.message("m1"), case.message("m1.r1")
        case.claim(longer)
        assert case.claim(first) is not None
        case.store.unclaim(first)
        case.drop(first)
        case.finish(first, "n1")
        assert case.has(first) == f"claim {longer.message_id}"

    def test_a_task_id_may_hold_anything(self, case: Case) -> None:
        """Task ids are the user's to choose."""
        for number, task_id in enumerate(["a b", " day  7 ", 'quo"ted\\', "ümläut", "x/y\n"]):
            key = f"{case.key}.{number}"
            case.claim(case.message(f"m{number}", key=key, task_id=task_id))
            held = case.claim(case.message("m9", key=key))
            assert held is not None
            assert held.holder.task_id == task_id

    def test_put_off_never_goes_back(self, case: Case) -> None:
        """A slow worker's old copy must not make the newest copy look superseded."""
        message = case.message("m1")
        assert [case.put_off(message, each) for each in (2, 1, 3, 3)] == [2, 2, 3, 3]
        assert case.start(message, "n1").generation == 3

    def test_put_off_resets_no_starts_and_reopens_nothing(self, case: Case) -> None:
        """A late put-off must neither forget what ran nor that it has ended."""
        message = case.message("m1")
        case.run(message, "n1")
        case.put_off(message, 1)
        again = case.start(message, "n2")
        assert (again.answer, again.starts) == (Answer.DUPLICATE_DELIVERY, 1)
        case.finish(message, "n1")
        case.put_off(message, 2)
        over = case.start(message, "n3")
        assert (over.answer, over.generation) == (Answer.ALREADY_COMPLETED, 2)

    def test_drop_settles_the_message_and_frees_its_claim(self, case: Case) -> None:
        """G5: a message revoked or expired before its start frees its key at once."""
        message = case.message("m1")
        case.claim(message)
        assert case.drop(message)
        assert case.has(message) == ""
        assert case.start(message, "n1").answer is Answer.ALREADY_COMPLETED
        assert not case.drop(message)

    def test_drop_leaves_another_claim_and_any_lease_alone(self, case: Case) -> None:
        """A revoked duplicate delivery must not free the run of the first delivery."""
        first, second = case.message("m1"), case.message("m2")
        case.claim(second)
        assert not case.drop(first)
        assert case.has(second) == f"claim {second.message_id}"
        case.run(second, "n2")
        assert not case.drop(second)
        assert case.runs(second) == "n2"
