"""The rules of memory: what is remembered of messages and entries, and for how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from onceguard.rules.overlap import Predecessor
from onceguard.store.contract import Answer
from onceguard.store.tick_contract import Verdict

if TYPE_CHECKING:
    from onceguard.store.contract import Message
    from onceguard.testing.beat import Beat
    from onceguard.testing.case import Case


class Remembering:
    """What is remembered for as long as the store is told, and forgotten then."""

    def test_a_forgotten_message_is_a_new_one(self, case: Case) -> None:
        """Memory must not grow with throughput; only the completed ones asked for go."""
        done, also = case.message("m1"), case.message("m1.r1")
        elsewhere = case.message("m2", key=f"{case.key}.2")
        kept, runs = case.message("m3"), case.message("m4", key=f"{case.key}.4")
        for message in (done, also, elsewhere, kept):
            case.drop(message)
        case.run(runs, "n4")
        never = case.message("never", key=f"{case.key}.5")
        asked = [done, also, elsewhere, runs, never]
        assert case.store.forget(asked, after=case.brief) == 3
        case.eventually(
            lambda: _starts(case, done) and _starts(case, also) and _starts(case, elsewhere),
            "all three were forgotten",
        )
        assert case.start(kept, "n9").answer is Answer.ALREADY_COMPLETED
        assert case.start(runs, "n9").answer is Answer.DUPLICATE_DELIVERY
        assert case.store.forget([], after=case.brief) == 0

    def test_forget_never_lengthens_a_memory(self, case: Case) -> None:
        """Called twice, in a batch that was tried again, it must still come to an end."""
        message = case.message("m1")
        case.drop(message)
        case.store.forget([message], after=case.brief)
        case.store.forget([message], after=case.long)
        case.eventually(lambda: _starts(case, message), "the message was forgotten")

    def test_a_message_that_was_put_off_is_not_forgotten(self, case: Case) -> None:
        """
        G4: its copy is still to come, and would run what is finished again.

        Also where the start of its retry has settled it meanwhile.
        """
        plain, parent = case.message("m1", key=f"{case.key}.1"), case.message("m2")
        for message in (plain, parent):
            case.run(message, "n1")
            case.put_off(message, 1)
        case.finish(plain, "n1")
        retry = case.retry_of(parent)
        case.finish(parent, "n1", retry=retry)
        case.run(retry, "n2", parent=parent)
        assert case.store.forget([plain, parent], after=case.brief) == 0

    def test_a_completed_message_is_remembered_for_its_time(self, case: Case) -> None:
        """G4 holds within ``completed_for``, and is not paid for longer."""
        brief, long = case.message("m1"), case.message("m2", key=f"{case.key}.2")
        case.drop(long)
        case.store.drop(brief, completed_for=case.brief)
        case.eventually(lambda: _starts(case, brief), "the first one was forgotten")
        assert case.start(long, "n9").answer is Answer.ALREADY_COMPLETED

    def test_a_renewal_keeps_the_memory_of_its_message(self, case: Case) -> None:
        """A run longer than ``completed_for`` must not outlive its attempts."""
        message, life = case.message("m1"), case.short
        began = time.monotonic()
        case.store.start(
            message,
            nonce="n1",
            parent_id=None,
            max_deliveries=5,
            lease_ttl=case.long,
            completed_for=life,
        )
        case.renew(message, "n1", "")
        in_time = time.monotonic() - began < life  # else the machine took its time
        case.let_pass(life)
        case.abandon(message, "n1")
        assert case.start(message, "n2").starts == 2 or not in_time

    def test_an_entrys_state_is_remembered_for_as_long_as_it_is_told(self, beat: Beat) -> None:
        """A yearly crontab's for more than a year; one that is gone from the schedule ends."""
        short, long = beat, beat.beside
        short.ask(short.tick(1, None, remember_for=beat.case.short))
        again = short.tick(2, None, slot=short.tick(1).slot)
        taken = short.ask(again).verdict is Verdict.TAKEN  # which gives it no new life
        long.ask(long.tick(1, None))
        if taken:
            beat.case.eventually(lambda: short.last() is None, "the entry was forgotten")
        assert long.last() is not None
        answer = short.ask(short.tick(3, None, slot=short.tick(1).slot))
        assert answer.verdict is (Verdict.SEND if taken else Verdict.TAKEN)

    def test_lives_are_in_seconds(self, beat: Beat) -> None:
        """A thousandth of each life has passed, and nothing is forgotten: by whatever step."""
        case = beat.case
        dropped, finished, shortened, put_off, gave_up = (
            case.message(name, key=f"{case.key}.{name}")
            for name in ("dropped", "finished", "shortened", "put-off", "gave-up")
        )
        case.drop(dropped)
        for message in (finished, shortened, gave_up):
            case.run(message, "n1")
        case.finish(finished, "n1", retry=case.retry_of(finished))
        case.shorten(shortened, "n1", lease_ttl=case.long)
        case.abandon(gave_up, "n1")
        case.put_off(put_off, 3)
        beat.arrange(Predecessor.QUEUED)
        beat.send(beat.new("keep_latest"))
        seen = beat.beside
        case.store.last_ticks([seen.entry], first_seen={seen.entry: case.long})
        case.let_pass(1.1 * case.long / 1000)
        for message in (dropped, finished, shortened):
            assert case.start(message, "n9").answer is Answer.ALREADY_COMPLETED
        assert case.has(finished) == f"claim {case.retry_of(finished).message_id}"
        assert case.runs(shortened) == "n1"
        assert case.has(gave_up) == f"claim {gave_up.message_id}"
        assert case.start(gave_up, "n9").starts == len(("n1", "n9"))
        assert case.start(put_off, "n9").generation == 3
        assert case.has(beat.queued) == f"claim {beat.new('skip').message.message_id}"
        assert case.start(beat.queued, "n9").answer is Answer.REPLACED
        assert beat.ask(beat.tick(5, None, slot=beat.new("skip").slot)).verdict is Verdict.TAKEN
        assert seen.last() is not None


def _starts(case: Case, message: Message) -> bool:
    """Whether a message starts that was over."""
    return case.start(message, "n9").answer is not Answer.ALREADY_COMPLETED
