"""The rules of ticks that are sent, or could not be: what becomes of their claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onceguard.rules.overlap import Predecessor
from onceguard.store.contract import Answer
from onceguard.store.tick_contract import Verdict
from onceguard.testing.case import who

if TYPE_CHECKING:
    from onceguard.testing.beat import Beat

_REPLACING = pytest.mark.parametrize(
    "predecessor", [Predecessor.QUEUED, Predecessor.RUNNING_AND_BUFFERED]
)


class Sending:
    """The claim of a tick: until it is sent, when it is, while it waits, taken back."""

    @pytest.mark.parametrize("policy", ["skip", "buffer_one"])
    def test_a_ticks_claim_is_short_until_it_is_sent(self, beat: Beat, policy: str) -> None:
        """A beat that dies in between must not hold up its own successor for an hour."""
        waits = policy == "buffer_one"
        beat.arrange(Predecessor.RUNNING if waits else Predecessor.NONE)
        answer = beat.ask(beat.tick(4, policy, claim_for=beat.case.brief))
        assert (answer.verdict.sends, answer.waits) == (True, waits)
        beat.case.eventually(lambda: _place(beat, policy) == "", "its claim had ended")
        again = beat.tick(5, policy)
        assert beat.ask(again).verdict.sends

    @pytest.mark.parametrize("policy", ["skip", "buffer_one"])
    def test_a_claim_that_ended_while_the_tick_was_sent_is_made_again(
        self, beat: Beat, policy: str
    ) -> None:
        """A broker that reconnects takes longer than half an interval may be."""
        beat.arrange(Predecessor.RUNNING if policy == "buffer_one" else Predecessor.NONE)
        tick = beat.tick(4, policy, claim_for=beat.case.brief)
        answer = beat.ask(tick)
        beat.case.eventually(lambda: _place(beat, policy) == "", "its claim had ended")
        for _ in range(2):  # the first reply may be lost
            assert beat.sent(tick, answer)
        assert _place(beat, policy) == tick.message.message_id
        if policy == "skip":
            held = beat.case.claim(beat.case.message("m1"))
            assert held is not None
            assert held.holder.task_id == tick.message.task_id
            assert beat.case.is_about(held.time_left, beat.case.long)

    def test_a_ticks_claim_refuses_other_publishers(self, beat: Beat) -> None:
        """A tick is a call like any other once it is queued, and queued for as long."""
        tick = beat.tick(1, claim_for=beat.case.long / 2)
        assert beat.sent(tick, beat.ask(tick))
        held = beat.case.claim(beat.case.message("m1"))
        assert who(held) == ("claim", tick.message.message_id)
        assert held is not None
        assert held.holder.task_id == tick.message.task_id
        assert beat.case.is_about(held.time_left, beat.case.long)
        assert abs(held.holder.since - beat.case.now()) < 30

    def test_sent_touches_no_lease_and_no_other_claim(self, beat: Beat) -> None:
        """G6: the message may have started, ended and been followed before beat comes to it."""
        tick, half = beat.tick(1), beat.case.long / 2
        answer = beat.ask(tick)
        beat.case.start(tick.message, "n1", lease_ttl=half)
        assert not beat.sent(tick, answer)
        held = beat.case.store.holder(tick.message)
        assert held is not None
        assert held.time_left <= half + beat.case.slack
        beat.case.finish(tick.message, "n1")
        beat.case.claim(beat.case.message("m1"), unique_for=half)
        assert not beat.sent(tick, answer)
        held = beat.case.claim(tick.message)
        assert held is not None
        assert held.holder.message_id == beat.case.message("m1").message_id
        assert held.time_left <= half + beat.case.slack

    def test_a_claim_is_not_made_again_beside_another_one(self, beat: Beat) -> None:
        """G6: it ended, and another call has the key."""
        tick, other = beat.tick(1, claim_for=beat.case.brief), beat.case.message("m1")
        answer = beat.ask(tick)
        beat.case.eventually(
            lambda: beat.case.claim(other) is None, "the tick's claim had ended"
        )
        assert not beat.sent(tick, answer)
        assert beat.case.has(other) == f"claim {other.message_id}"

    def test_a_tick_id_that_begins_like_another_owns_nothing_of_it(self, beat: Beat) -> None:
        """Owners are compared whole, also in the claims of ticks."""
        beat.arrange(Predecessor.RUNNING)
        long, short = beat.tick(44, "buffer_one"), beat.tick(4, "buffer_one")
        answer = beat.ask(long)
        assert not beat.sent(short, answer)
        beat.unsend(short, answer)
        waits = beat.as_waiting(short)
        beat.case.put_off(waits, 1, unique_for=beat.case.brief)
        beat.case.let_pass(beat.case.brief)
        beat.case.finish(beat.running, "n2")
        beat.case.run(waits, "n4")
        beat.case.finish(waits, "n4")
        beat.case.drop(waits)
        beat.case.run(beat.case.message("m1"), "n1")
        assert beat.waiting() == long.message.message_id

    @_REPLACING
    def test_the_older_ticks_claim_stands_until_the_newer_one_is_sent(
        self, beat: Beat, predecessor: Predecessor
    ) -> None:
        """A beat that dies in between must not leave the older message without one."""
        beat.arrange(predecessor)
        queued = predecessor is Predecessor.QUEUED
        policy, older = ("skip", beat.queued) if queued else ("buffer_one", beat.buffered)
        newer = beat.new("keep_latest")
        answer = beat.ask(newer)
        assert answer.replaced
        assert _place(beat, policy) == older.message_id
        assert beat.sent(newer, answer)
        assert _place(beat, policy) == newer.message.message_id

    @_REPLACING
    @pytest.mark.parametrize("meanwhile", ["the older one ended", "the newer one was put off"])
    def test_a_newer_tick_gets_the_claim_whatever_was_faster_than_beat(
        self, beat: Beat, predecessor: Predecessor, meanwhile: str
    ) -> None:
        """A worker may be; the newer one waits still, and later ticks fold into it."""
        beat.arrange(predecessor)
        queued = predecessor is Predecessor.QUEUED
        policy, older = ("skip", beat.queued) if queued else ("buffer_one", beat.buffered)
        newer = beat.new("keep_latest")
        answer = beat.ask(newer)
        if meanwhile == "the older one ended":
            assert beat.case.drop(older)
            assert _place(beat, policy) == ""
        else:
            beat.case.put_off(beat.as_waiting(newer), 1)
        assert beat.sent(newer, answer)
        assert _place(beat, policy) == newer.message.message_id

    @_REPLACING
    def test_a_newer_tick_that_has_started_gets_no_claim(
        self, beat: Beat, predecessor: Predecessor
    ) -> None:
        """Nobody would free it."""
        beat.arrange(predecessor)
        newer = beat.new("keep_latest")
        answer = beat.ask(newer)
        beat.case.drop(beat.queued)
        beat.case.drop(beat.buffered)
        beat.case.finish(beat.running, "n2")
        beat.case.run(newer.message, "n4")
        beat.case.finish(newer.message, "n4")
        assert not beat.sent(newer, answer)
        assert (beat.case.has(newer.message), beat.waiting()) == ("", "")

    def test_a_tick_that_was_superseded_before_beat_said_sent_gets_no_claim(
        self, beat: Beat
    ) -> None:
        """Its beat was stalled for a tick; it will not run, and the key is for others."""
        tick, newer = beat.tick(1), beat.new("keep_latest")
        late = beat.ask(tick)
        beat.send(newer)
        beat.case.run(newer.message, "n4")
        beat.case.finish(newer.message, "n4")
        assert not beat.sent(tick, late)
        assert beat.case.has(tick.message) == ""

    def test_a_waiting_tick_starts_when_the_run_has_ended(self, beat: Beat) -> None:
        """Its claim ends with that, and the next tick may be buffered."""
        beat.arrange(Predecessor.RUNNING_AND_BUFFERED)
        assert beat.case.start(beat.buffered, "n3").answer is Answer.CONFLICT
        assert beat.waiting() == beat.buffered.message_id
        beat.case.finish(beat.running, "n2")
        assert beat.case.start(beat.buffered, "n3").answer is Answer.ACQUIRED
        assert beat.waiting() == ""
        assert beat.ask(beat.new("buffer_one")).verdict is Verdict.BUFFER

    def test_a_waiting_tick_that_is_dropped_leaves_its_place(self, beat: Beat) -> None:
        """Revoked, expired or too late: the next tick may be buffered."""
        beat.arrange(Predecessor.RUNNING_AND_BUFFERED)
        assert beat.case.drop(beat.buffered)
        assert beat.waiting() == ""
        assert beat.case.runs(beat.running) == "n2"
        assert not beat.case.drop(beat.buffered)

    @pytest.mark.parametrize("end", ["finish", "shorten"])
    def test_a_run_that_never_started_here_leaves_its_place(self, beat: Beat, end: str) -> None:
        """It ran unguarded while the store was away, or its process died before it asked."""
        beat.arrange(Predecessor.RUNNING_AND_BUFFERED)
        for message in (beat.as_waiting(beat.tick(9)), beat.buffered):
            assert beat.waiting() == beat.buffered.message_id
            if end == "finish":
                beat.case.finish(message, "n9")
            else:
                beat.case.shorten(message, "n9", lease_ttl=beat.case.short)
        assert beat.waiting() == ""
        assert beat.case.runs(beat.running) == "n2"

    def test_a_waiting_ticks_claim_lives_on_when_it_is_put_off(self, beat: Beat) -> None:
        """A run may take longer than unique_for; still only one tick may wait for its end."""
        beat.arrange(Predecessor.RUNNING)
        tick = beat.tick(3, "buffer_one")
        beat.sent(tick, beat.ask(tick), unique_for=beat.case.short)
        kept = beat.case.put_off(beat.buffered, 1) and beat.waiting()
        beat.case.let_pass(beat.case.short)
        assert beat.waiting() == (tick.message.message_id if kept else "")

    def test_a_waiting_ticks_claim_ends_by_itself(self, beat: Beat) -> None:
        """G6: it is not another's then, and its own message frees nobody else's."""
        beat.arrange(Predecessor.RUNNING)
        late, newer = beat.tick(3, "buffer_one"), beat.new("buffer_one")
        beat.send(late, unique_for=beat.case.brief)
        beat.case.eventually(lambda: beat.waiting() == "", "its claim had ended")
        beat.send(newer)
        beat.case.put_off(beat.running, 1, unique_for=beat.case.brief)
        beat.case.finish(beat.running, "n2")
        beat.case.run(beat.as_waiting(late), "n3")
        beat.case.finish(beat.as_waiting(late), "n3")
        beat.case.run(beat.case.message("m1"), "n1")
        assert beat.waiting() == newer.message.message_id

    @pytest.mark.parametrize(
        ("policy", "predecessor"),
        [
            ("skip", Predecessor.NONE),
            ("keep_latest", Predecessor.QUEUED),
            ("buffer_one", Predecessor.RUNNING),
            ("keep_latest", Predecessor.RUNNING_AND_BUFFERED),
            ("cancel_other", Predecessor.RUNNING_AND_BUFFERED),
        ],
    )
    def test_a_tick_taken_back_leaves_everything_as_it_was(
        self, beat: Beat, policy: str, predecessor: Predecessor
    ) -> None:
        """Slot and claims; it is another beat's to send, which may have a broker."""
        beat.arrange(predecessor)
        before, has, waits = beat.last(), beat.case.has(beat.queued), beat.waiting()
        tick = beat.new(policy)
        answer = beat.ask(tick)
        assert beat.unsend(tick, answer)
        assert not beat.unsend(tick, answer), "the first reply may have been lost"
        after = beat.last()
        assert (after and after.slot) == (before and before.slot)
        assert (beat.case.has(beat.queued), beat.waiting()) == (has, waits)
        theirs = beat.elsewhere.ask(beat.tick(5, policy, slot=tick.slot))
        assert theirs.verdict is answer.verdict

    def test_a_tick_taken_back_leaves_the_skips_before_it(self, beat: Beat) -> None:
        """Else a job that never runs would not be seen."""
        other = beat.case.message("m1")
        beat.case.claim(other)
        beat.ask(beat.tick(1))
        beat.case.store.unclaim(other)
        answer = beat.ask(beat.tick(2))
        assert beat.unsend(beat.tick(2), answer)
        last = beat.last()
        assert last is not None
        assert last.slot == pytest.approx(beat.base + 1, abs=0.01)
        assert last.skips == 1
        again = beat.ask(beat.tick(3, slot=beat.at(beat.base + 1)))
        assert again.verdict is Verdict.TAKEN

    @pytest.mark.parametrize("policy", ["skip", None], ids=["once", "without once"])
    def test_a_tick_is_not_taken_back_after_the_next_one(
        self, beat: Beat, policy: str | None
    ) -> None:
        """A publish that hung for an interval fails now: the schedule has gone on."""
        first, second = beat.tick(1, policy), beat.tick(2, policy)
        answer = beat.ask(first)
        beat.case.drop(first.message)
        beat.send(second)
        has = beat.case.has(second.message)
        assert not beat.unsend(first, answer)
        last = beat.last()
        assert last is not None
        assert last.slot == pytest.approx(beat.base + 2, abs=0.01)
        assert beat.case.has(second.message) == has

    def test_a_tick_that_seemed_to_fail_and_runs_keeps_its_lease(self, beat: Beat) -> None:
        """G6: a publish may fail with its message sent."""
        tick = beat.tick(1)
        answer = beat.ask(tick)
        beat.case.run(tick.message, "n1")
        beat.unsend(tick, answer)
        assert beat.case.runs(tick.message) == "n1"

    def test_taking_back_frees_nobody_elses_claim(self, beat: Beat) -> None:
        """G6: the short claim has ended, and another publisher has the key."""
        tick, other = beat.tick(1, claim_for=beat.case.brief), beat.case.message("m1")
        answer = beat.ask(tick)
        beat.case.eventually(
            lambda: beat.case.claim(other) is None, "the tick's claim had ended"
        )
        beat.unsend(tick, answer)
        assert beat.case.has(other) == f"claim {other.message_id}"


def _place(beat: Beat, policy: str) -> str:
    """Whose claim stands where that of a tick of this policy would: by message id."""
    if policy == "buffer_one":
        return beat.waiting()
    return beat.case.has(beat.queued).rpartition(" ")[2]
