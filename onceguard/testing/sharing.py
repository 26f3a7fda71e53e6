"""The rules that many callers see at once, in threads and in processes of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

from onceguard.store.contract import Answer, Renewed
from onceguard.testing.case import SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.testing.case import Case

_CROWD = 8
_PATIENCE = 60.0

T = TypeVar("T")


class Sharing:
    """What holds for all who use the same data."""

    def test_a_call_is_claimed_here_and_started_and_finished_elsewhere(
        self, case: Case
    ) -> None:
        """Publisher, worker and the next publisher are different processes."""
        message, elsewhere = case.message("m1"), case.elsewhere
        assert case.claim(message) is None
        assert elsewhere.claim(case.message("m2")) is not None
        record = elsewhere.run(message, "n1")
        assert case.runs(message) == "n1"
        assert case.renew(message, "n1", "") == (Renewed.RENEWED, record)
        assert case.start(message, "n2").answer is Answer.DUPLICATE_DELIVERY
        assert elsewhere.put_off(message, 1) == 1
        assert case.finish(message, "n1")
        assert elsewhere.claim(case.message("m2")) is None
        again = elsewhere.start(message, "n2")
        assert (again.answer, again.generation) == (Answer.ALREADY_COMPLETED, 1)

    @SCOPES
    def test_a_lost_holder_is_known_elsewhere(self, case: Case, own_lease: bool) -> None:
        """A worker that dies leaves its lease; another has its message, and it has lost."""
        message, elsewhere = case.message("m1", own_lease=own_lease), case.elsewhere
        record = case.lapse(message, "n1")
        later = elsewhere.run(message, "n2")
        assert case.renew(message, "n1", record) == (Renewed.LOST, later)
        assert not case.finish(message, "n1")
        assert elsewhere.runs(message) == "n2"

    def test_of_many_claims_at_once_one_is_granted(self, case: Case) -> None:
        """G1: from any number of processes and threads."""
        answers = at_once(case, lambda each, n: each.claim(case.message(f"m{n}")))
        granted = [number for number, held in enumerate(answers) if held is None]
        assert len(granted) == 1, answers
        winner = case.message(f"m{granted[0]}").message_id
        assert case.has(case.message("asks")) == f"claim {winner}"
        others = {held.holder.message_id for held in answers if held}
        assert others == {winner}

    def test_of_many_starts_at_once_one_is_granted(self, case: Case) -> None:
        """G2: equal calls that all arrive at the same moment."""
        answers = at_once(case, lambda each, n: each.start(case.message(f"m{n}"), f"n{n}"))
        verdicts = [started.answer for started in answers]
        assert verdicts.count(Answer.ACQUIRED) == 1, answers
        assert verdicts.count(Answer.CONFLICT) == _CROWD - 1, answers
        winner = verdicts.index(Answer.ACQUIRED)
        assert case.runs(case.message("asks")) == f"n{winner}"

    @SCOPES
    def test_of_many_deliveries_of_a_message_at_once_one_is_granted(
        self, case: Case, own_lease: bool
    ) -> None:
        """G3: a redelivery storm."""
        message = case.message("m1", own_lease=own_lease)
        answers = at_once(case, lambda each, n: each.start(message, f"n{n}"))
        verdicts = [started.answer for started in answers]
        assert verdicts.count(Answer.ACQUIRED) == 1, answers
        assert verdicts.count(Answer.DUPLICATE_DELIVERY) == _CROWD - 1, answers
        winner = verdicts.index(Answer.ACQUIRED)
        assert case.runs(message) == f"n{winner}"
        assert answers[winner].starts == 1

    def test_of_many_ends_at_once_one_had_the_lease(self, case: Case) -> None:
        """A run that ends while its process is taken for dead ends once."""
        message = case.message("m1")
        case.run(message, "n1")
        ends = at_once(
            case,
            lambda each, n: (
                each.abandon(message, "n1", unique_for=0)
                if n % 2
                else each.finish(message, "n1")
            ),
        )
        assert ends.count(True) == 1, ends
        assert case.has(message) == ""


def at_once(case: Case, ask: Callable[[Case, int], T]) -> list[T]:
    """Ask from many threads, half of them by the other store, as nearly at once as can be."""
    ready = Barrier(_CROWD)

    def one(number: int) -> T:
        each = case.elsewhere if number % 2 else case
        ready.wait(_PATIENCE)
        return ask(each, number)

    with ThreadPoolExecutor(_CROWD) as pool:
        return list(pool.map(one, range(_CROWD), timeout=_PATIENCE))
