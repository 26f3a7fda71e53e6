"""The rules of overlap: what becomes of a tick, by what it finds at its key."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from onceguard.rules.choices import OverlapPolicy
from onceguard.rules.overlap import Action, Predecessor, decide
from onceguard.rules.ticks import instant_slot
from onceguard.store.tick_contract import Verdict
from onceguard.testing.case import SCOPES, who

if TYPE_CHECKING:
    from onceguard.store.tick_contract import Tick, Ticked
    from onceguard.testing.beat import Beat

_EXACT = 0.01
_LOOKING = [each for each in OverlapPolicy if each is not OverlapPolicy.ALLOW_ALL]
_POLICIES = pytest.mark.parametrize("policy", _LOOKING)
_PREDECESSORS = pytest.mark.parametrize("predecessor", Predecessor)
_RUNNING = {Predecessor.RUNNING, Predecessor.RUNNING_AND_BUFFERED}


class Overlap:
    """What a tick does when an earlier one, or anyone else's call, has its key."""

    @_PREDECESSORS
    @_POLICIES
    def test_a_tick_does_as_the_table_says(
        self, beat: Beat, policy: OverlapPolicy, predecessor: Predecessor
    ) -> None:
        """And what it finds has its place until it is sent, or for good."""
        beat.arrange(predecessor)
        has, waits = beat.case.has(beat.queued), beat.waiting()
        tick = beat.new(policy)
        answer = beat.ask(tick)
        assert answer.verdict.value == decide(policy, predecessor).value
        assert (answer.holder is None) == (predecessor is Predecessor.NONE)
        assert answer.waits == (predecessor in _RUNNING and answer.verdict.sends)
        if answer.verdict.sends:
            assert beat.sent(tick, answer)
            if answer.waits:
                waits = tick.message.message_id
            else:
                has = f"claim {tick.message.message_id}"
        assert (beat.case.has(beat.queued), beat.waiting()) == (has, waits)

    @pytest.mark.parametrize(
        ("policy", "predecessor", "superseded"),
        [
            ("skip", Predecessor.RUNNING_AND_BUFFERED, ()),
            ("buffer_one", Predecessor.RUNNING, ()),
            ("keep_latest", Predecessor.QUEUED, (1,)),
            ("keep_latest", Predecessor.RUNNING, ()),
            ("keep_latest", Predecessor.RUNNING_AND_BUFFERED, (3,)),
            ("cancel_other", Predecessor.QUEUED, (1,)),
            ("cancel_other", Predecessor.RUNNING, (2,)),
            ("cancel_other", Predecessor.RUNNING_AND_BUFFERED, (2, 3)),
        ],
    )
    def test_a_tick_names_those_in_whose_place_it_is_sent(
        self, beat: Beat, policy: str, predecessor: Predecessor, superseded: tuple[int, ...]
    ) -> None:
        """And nobody else."""
        beat.arrange(predecessor)
        answer = beat.ask(beat.new(policy))
        assert answer.superseded == tuple(f"{beat.mine}{number}" for number in superseded)

    @pytest.mark.parametrize("predecessor", [Predecessor.QUEUED, *sorted(_RUNNING)])
    def test_a_skip_says_because_of_whom(self, beat: Beat, predecessor: Predecessor) -> None:
        """Beat logs the holder and since when."""
        beat.arrange(predecessor)
        answer = beat.ask(beat.new("skip"))
        queued = predecessor is Predecessor.QUEUED
        expected = ("claim", beat.queued) if queued else ("lease", beat.running)
        assert who(answer.holder) == (expected[0], expected[1].message_id)
        assert answer.holder is not None
        assert beat.case.is_about(answer.holder.time_left, beat.case.long)

    def test_a_waiting_tick_alone_is_a_queued_one(self, beat: Beat) -> None:
        """Between the end of the run and its own start it folds later ticks into itself."""
        beat.arrange(Predecessor.RUNNING_AND_BUFFERED)
        beat.case.finish(beat.running, "n2")
        answer = beat.ask(beat.new("buffer_one"))
        assert answer.verdict is Verdict.SKIP
        assert who(answer.holder) == ("claim", beat.buffered.message_id)
        newest = beat.ask(beat.tick(5, "keep_latest"))
        assert (newest.verdict, newest.superseded, newest.waits) == (
            Verdict.REPLACE,
            (beat.buffered.message_id,),
            True,
        )
        assert beat.case.has(beat.running) == ""

    @pytest.mark.parametrize("policy", ["keep_latest", "cancel_other"])
    @pytest.mark.parametrize("whose", ["a publisher's", "another entry's"])
    def test_what_anyone_else_has_queued_is_not_superseded(
        self, beat: Beat, policy: str, whose: str
    ) -> None:
        """It may have other arguments, and somebody waits for its result."""
        if whose == "a publisher's":
            beat.case.claim(beat.case.message("m1"))
        else:
            other = beat.beside
            other.send(other.tick(1))
        has = beat.case.has(beat.queued)
        answer = beat.ask(beat.new(policy))
        assert (answer.verdict, answer.superseded, answer.replaced) == (Verdict.SKIP, (), "")
        assert answer.last.skips == 1
        assert beat.case.has(beat.queued) == has

    @pytest.mark.parametrize("policy", ["keep_latest", "cancel_other"])
    def test_what_anyone_else_has_buffered_is_not_superseded(
        self, beat: Beat, policy: str
    ) -> None:
        """Two entries may share a key, each with ticks of its own. The run goes on, too."""
        beat.arrange(Predecessor.RUNNING)
        other = beat.beside
        theirs = other.tick(1, "buffer_one")
        other.send(theirs)
        answer = beat.ask(beat.new(policy))
        assert (answer.verdict, answer.superseded, answer.replaced) == (Verdict.DROP, (), "")
        assert beat.waiting() == theirs.message.message_id

    def test_an_own_tick_is_replaced_while_anyone_elses_waits(self, beat: Beat) -> None:
        """The one that is queued is in the way of nobody else's."""
        other, queued, newer = beat.beside, beat.tick(3), beat.new("keep_latest")
        beat.arrange(Predecessor.RUNNING)
        theirs = other.tick(1, "buffer_one")
        other.send(theirs)
        beat.case.finish(beat.running, "n2")
        beat.case.claim(queued.message)
        answer = beat.ask(newer)
        assert (answer.verdict, answer.superseded, answer.waits) == (
            Verdict.REPLACE,
            (queued.message.message_id,),
            False,
        )
        beat.sent(newer, answer)
        assert beat.case.has(newer.message) == f"claim {newer.message.message_id}"
        beat.case.run(newer.message, "n4")
        assert beat.waiting() == theirs.message.message_id

    def test_allow_all_claims_nothing_and_is_in_nobodys_way(self, beat: Beat) -> None:
        """Ticks of that policy run beside one another, and beside other calls."""
        beat.arrange(Predecessor.RUNNING)
        answer = beat.ask(beat.tick(4, None))
        assert (answer.verdict, answer.holder) == (Verdict.SEND, None)
        assert beat.case.has(beat.running) == f"lease {beat.running.message_id}"
        assert beat.waiting() == ""
        other = beat.case.message("m1", key=f"{beat.case.key}.free")
        free = beat.tick(5, None)
        assert beat.ask(replace(free, message=other)).verdict is Verdict.SEND
        assert beat.case.has(other) == ""

    @SCOPES
    def test_ticks_of_scope_until_executing_fold_until_the_start(
        self, beat: Beat, own_lease: bool
    ) -> None:
        """Their runs hold no key, so that nothing is running for the next tick."""
        first = beat.tick(1, own_lease=own_lease)
        beat.send(first)
        assert beat.ask(beat.tick(2, own_lease=own_lease)).verdict is Verdict.SKIP
        beat.case.run(first.message, "n1")
        verdict = beat.ask(beat.tick(3, own_lease=own_lease)).verdict
        assert verdict is (Verdict.SEND if own_lease else Verdict.SKIP)

    @_PREDECESSORS
    @_POLICIES
    def test_a_tick_sent_again_is_answered_alike(
        self, beat: Beat, policy: OverlapPolicy, predecessor: Predecessor
    ) -> None:
        """
        The first reply may have been lost.

        Whom it supersedes, what it replaced and how it is taken back: all that must come
        with the second one.
        """
        beat.arrange(predecessor)
        before = beat.last()
        tick = beat.new(policy)
        again = _answered_alike(beat, tick)
        unsent = decide(policy, predecessor) in {Action.SKIP, Action.DROP}
        assert again.last.skips == int(unsent)
        last = beat.last()
        assert last is not None
        assert last.slot == pytest.approx(beat.base + 4, abs=_EXACT)
        assert last.skips == int(unsent)
        if not unsent:
            has = beat.case.has(beat.queued)
            assert beat.unsend(tick, again)
            assert beat.case.has(beat.queued) == ("" if predecessor.value == "none" else has)
            restored = beat.last()
            assert (restored and restored.slot) == (before and before.slot)

    @pytest.mark.parametrize("task_id", ["a b", 'quo"ted\\', "ümläut", "x/y\n"])
    def test_whose_tick_was_sent_again_may_have_any_task_id(
        self, beat: Beat, task_id: str
    ) -> None:
        """Task ids are the user's to choose; an answer that is kept must keep them."""
        beat.case.claim(beat.case.message("m1", task_id=task_id))
        again = _answered_alike(beat, beat.new("skip"))
        assert again.holder is not None
        assert again.holder.holder.task_id == task_id

    @pytest.mark.parametrize(
        "predecessor", [Predecessor.QUEUED, Predecessor.RUNNING_AND_BUFFERED]
    )
    @pytest.mark.parametrize("first", [False, True], ids=["later", "the first tick"])
    def test_a_firing_without_a_next_is_not_claimed_by_a_skip(
        self, beat: Beat, predecessor: Predecessor, first: bool
    ) -> None:
        """A clocked row is tried again until its key is free; by another beat, perhaps."""
        beat.arrange(predecessor)
        entry = beat.beside if first else beat
        before = entry.last()
        final = instant_slot(beat.base + 100, math.inf)
        for number in (4, 4, 5):
            answer = entry.ask(entry.tick(number, "buffer_one", slot=final))
            assert answer.verdict in {Verdict.SKIP, Verdict.DROP}
            assert answer.holder is not None
        last = entry.last()
        assert (last and last.slot) == (before and before.slot)
        assert entry.ask(entry.tick(6, None, slot=final)).verdict is Verdict.SEND
        assert entry.ask(entry.tick(7, None, slot=final)).verdict is Verdict.TAKEN

    def test_a_firing_without_a_next_is_missed_for_good(self, beat: Beat) -> None:
        """It will only be later; its row is to be done with."""
        final = instant_slot(beat.base - 100, math.inf)
        assert beat.ask(beat.tick(1, slot=final, grace=50.0)).verdict is Verdict.MISSED
        assert beat.ask(beat.tick(2, slot=final, grace=50.0)).verdict is Verdict.TAKEN


def _answered_alike(beat: Beat, tick: Tick) -> Ticked:
    """What a tick is answered when it asks again, which must be what it was."""
    first, again = beat.ask(tick), beat.elsewhere.ask(tick)
    for each in (first, again):
        assert each.due_at == pytest.approx(first.due_at, abs=_EXACT)
        assert each.last.slot == pytest.approx(first.last.slot, abs=_EXACT)
    known = [
        (
            each.verdict,
            each.last.skips,
            each.holder and each.holder.holder,
            each.waits,
            each.superseded,
            each.replaced,
        )
        for each in (first, again)
    ]
    assert known[0] == known[1]
    return again
