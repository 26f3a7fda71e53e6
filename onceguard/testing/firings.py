"""The rules of firings: each tick of an entry is claimed once, however many beats ask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from onceguard.store.tick_contract import Verdict
from onceguard.testing.sharing import at_once

if TYPE_CHECKING:
    from onceguard.testing.beat import Beat

_MINUTE = 60.0
_DAY = 86400.0
_EXACT = 0.01
_KINDS = pytest.mark.parametrize("policy", ["skip", None], ids=["once", "without once"])


class Firings:
    """Which firings of an entry are claimed, when they were due, what is remembered."""

    @_KINDS
    def test_of_two_beats_one_sends_a_tick(self, beat: Beat, policy: str | None) -> None:
        """G8; the other learns when that was, to be due together with it from then on."""
        slot = beat.at(beat.base - 1)
        first = beat.ask(beat.tick(1, policy, slot=slot))
        other = beat.elsewhere.ask(beat.tick(2, policy, slot=slot))
        assert (first.verdict, other.verdict) == (Verdict.SEND, Verdict.TAKEN)
        assert other.last.slot == pytest.approx(beat.base - 1, abs=_EXACT)
        assert 0 <= other.last.age < 30
        assert (other.holder, other.superseded, other.waits) == (None, (), False)

    @_KINDS
    def test_of_many_beats_at_once_one_sends_a_tick(
        self, beat: Beat, policy: str | None
    ) -> None:
        """G8: they all wake up at the full minute."""
        slot = beat.at(beat.base)
        ask = at_once(
            beat.case, lambda case, n: case.store.tick(beat.tick(n, policy, slot=slot))
        )
        verdicts = [answer.verdict for answer in ask]
        assert verdicts.count(Verdict.SEND) == 1, ask
        assert verdicts.count(Verdict.TAKEN) == len(verdicts) - 1, ask
        if policy:
            winner = beat.tick(verdicts.index(Verdict.SEND)).message
            assert beat.case.has(winner) == f"claim {winner.message_id}"

    @_KINDS
    def test_the_next_tick_is_a_new_one(self, beat: Beat, policy: str | None) -> None:
        """By whichever beat."""
        beat.send(beat.tick(1, policy))
        beat.case.finish(beat.tick(1).message, "n")
        assert beat.elsewhere.ask(beat.tick(2, policy)).verdict is Verdict.SEND

    @pytest.mark.parametrize(
        ("later", "verdict"),
        [
            (-0.4, Verdict.TAKEN),
            (0.4, Verdict.TAKEN),
            (0.5, Verdict.SEND),
            (-_MINUTE, Verdict.TAKEN),
            (-5 * _MINUTE, Verdict.TAKEN),
            (-30 * _DAY, Verdict.TAKEN),
        ],
    )
    def test_an_instant_is_new_if_it_is_later_than_the_last(
        self, beat: Beat, later: float, verdict: Verdict
    ) -> None:
        """
        Solar instants differ a little; a beat whose clock lags by minutes asks for old ones.

        That one must not send each minute a second time (G11).
        """
        beat.ask(beat.tick(1, None, slot=beat.at(beat.base)))
        answer = beat.ask(beat.tick(2, None, slot=beat.at(beat.base + later)))
        assert answer.verdict is verdict

    def test_an_interval_is_due_by_the_stores_clock(self, beat: Beat) -> None:
        """Its next tick was due an interval after the last, however late beat asks."""
        first = beat.ask(beat.tick(1, None, slot=beat.interval(beat.case.brief)))
        assert (first.verdict, first.late, first.before) == (Verdict.SEND, 0.0, "")
        assert first.last.slot == first.due_at == pytest.approx(beat.base, abs=30)
        assert beat.ask(beat.tick(2, None, slot=beat.interval())).verdict is Verdict.TAKEN
        beat.case.let_pass(beat.case.brief)
        second = beat.ask(beat.tick(3, None, slot=beat.interval(beat.case.brief)))
        assert second.verdict is Verdict.SEND
        assert second.due_at == pytest.approx(first.last.slot + beat.case.brief, abs=_EXACT)
        assert 0 <= second.late < 30

    def test_a_last_slot_from_a_clock_that_was_set_back_is_not_believed(
        self, beat: Beat
    ) -> None:
        """
        A beat whose clock was a day ahead must not stop the schedule for a day.

        But one whose clock still is sends each tick, and the others must not send it
        again: so not before nobody has claimed anything for a period and a half.
        """
        ahead = beat.at(beat.base + _DAY)
        assert beat.ask(beat.tick(1, None, slot=ahead)).verdict is Verdict.SEND
        now = beat.at(beat.base)
        assert beat.ask(beat.tick(2, None, slot=now)).verdict is Verdict.TAKEN
        now = replace(now, period=beat.case.brief)
        beat.case.let_pass(2 * now.period)
        assert beat.ask(beat.tick(3, None, slot=now)).verdict is Verdict.SEND
        assert beat.elsewhere.ask(beat.tick(4, None, slot=now)).verdict is Verdict.TAKEN

    def test_a_last_slot_is_not_wrong_for_being_ahead_of_one_clock_only(
        self, beat: Beat
    ) -> None:
        """Of the beat that asks, or of the store: which of two is wrong nobody can tell."""
        instants = (beat.base, beat.base - 300, beat.base + _DAY)
        now, behind, ahead = (
            replace(beat.at(instant), period=beat.case.brief) for instant in instants
        )
        beat.ask(beat.tick(1, None, slot=now))
        other = beat.beside
        other.ask(other.tick(1, None, slot=ahead))
        beat.case.let_pass(2 * now.period)
        assert beat.ask(beat.tick(2, None, slot=behind)).verdict is Verdict.TAKEN
        assert other.ask(other.tick(2, None, slot=ahead)).verdict is Verdict.TAKEN

    def test_a_store_whose_clock_is_behind_lets_no_tick_pass_twice(self, beat: Beat) -> None:
        """Its clock is not what crontabs go by; only the beats' own instants are compared."""
        ahead = beat.base + _DAY
        beat.ask(beat.tick(1, None, slot=beat.at(ahead)))
        again = beat.ask(beat.tick(2, None, slot=beat.at(ahead)))
        assert again.verdict is Verdict.TAKEN
        answer = beat.ask(beat.tick(3, None, slot=beat.at(ahead + _MINUTE)))
        assert answer.verdict is Verdict.SEND
        assert answer.late < 0

    def test_without_claimed_slots_each_beat_sends(self, beat: Beat) -> None:
        """``once_beat_ticks=False``: the schedule has one beat, and its ticks are all new."""
        slot = beat.at(beat.base)
        for number in (1, 2):
            answer = beat.ask(beat.tick(number, None, slot=slot, claims_slot=False))
            assert (answer.verdict, answer.due_at) == (Verdict.SEND, beat.base)

    def test_a_crontabs_tick_was_due_at_its_instant(self, beat: Beat) -> None:
        """The run reads it as ``scheduled_time``."""
        answer = beat.ask(beat.tick(1, slot=beat.at(beat.base - 100)))
        assert answer.due_at == answer.last.slot == pytest.approx(beat.base - 100, abs=_EXACT)
        assert 100 - beat.case.slack <= answer.late < 130

    @_KINDS
    def test_a_tick_that_is_too_late_is_missed_by_all_beats(
        self, beat: Beat, policy: str | None
    ) -> None:
        """``misfire_grace_time``: nobody wants this morning's report tonight."""
        slot = beat.at(beat.base - 100)
        missed = beat.ask(beat.tick(1, policy, slot=slot, grace=90.0))
        assert missed.verdict is Verdict.MISSED
        assert missed.late > 100 - beat.case.slack
        assert beat.case.has(beat.tick(1).message) == ""
        other = beat.elsewhere.ask(beat.tick(2, policy, slot=slot, grace=90.0))
        assert (other.verdict, other.last.skips) == (Verdict.TAKEN, 1)

    def test_a_tick_within_its_grace_is_sent(self, beat: Beat) -> None:
        """A beat that restarts comes a little late to everything."""
        slot = beat.at(beat.base - 100)
        assert beat.ask(beat.tick(1, slot=slot, grace=300.0)).verdict is Verdict.SEND

    def test_a_missed_interval_is_due_an_interval_later(self, beat: Beat) -> None:
        """One tick is lost to an outage; not each one after it as well."""
        brief = beat.interval(beat.case.brief)
        beat.ask(beat.tick(1, None, slot=brief))
        beat.case.let_pass(3 * beat.case.brief)
        late = beat.ask(beat.tick(2, slot=brief, grace=beat.case.brief))
        assert late.verdict is Verdict.MISSED
        assert beat.ask(beat.tick(3, slot=beat.interval())).verdict is Verdict.TAKEN

    @_KINDS
    def test_an_interval_is_as_late_as_its_beat_says_and_no_later(
        self, beat: Beat, policy: str | None
    ) -> None:
        """
        A beat whose last publish failed comes in time for the tick after that.

        It can't be late by more than what has passed since the last tick, whatever it says.
        """
        brief = beat.interval(beat.case.brief)
        first = beat.ask(beat.tick(1, None, slot=brief))
        beat.case.let_pass(4 * beat.case.brief)
        asked = beat.tick(2, policy, slot=brief, grace=beat.case.brief, overdue=0.0)
        in_time = beat.ask(asked)
        assert (in_time.verdict, beat.ask(asked).verdict) == (Verdict.SEND, Verdict.SEND)
        assert 0 <= in_time.late < beat.case.brief
        assert in_time.due_at - first.due_at > 2 * beat.case.brief
        beat.unsend(asked, in_time)
        late = beat.ask(beat.tick(3, policy, slot=brief, grace=60.0, overdue=9000.0))
        assert late.due_at == pytest.approx(first.due_at + beat.case.brief, abs=_EXACT)

    def test_ticks_that_are_not_sent_are_counted_until_one_is(self, beat: Beat) -> None:
        """A job that is always skipped is a job that never runs: beat warns at 2, 4, 8."""
        due = [beat.tick(number, slot=beat.at(beat.base - 60 + number)) for number in range(6)]
        beat.case.claim(beat.case.message("m1"))
        assert [beat.ask(each).last.skips for each in due[:2]] == [1, 2]
        assert beat.ask(due[1]).last.skips == 2, "it asks again"
        assert beat.ask(beat.tick(9, slot=due[1].slot)).last.skips == 2, "it is taken"
        missed = beat.ask(beat.tick(2, slot=due[2].slot, grace=10.0))
        assert (missed.verdict, missed.last.skips) == (Verdict.MISSED, 3)
        beat.case.store.unclaim(beat.case.message("m1"))
        assert beat.send(due[3]).last.skips == 0
        assert beat.ask(due[4]).last.skips == 1

    def test_last_ticks_are_read_by_entry(self, beat: Beat) -> None:
        """A beat that starts takes them over; entries that are new have none."""
        second, third, nobody = beat.beside, beat.beside, beat.beside
        beat.ask(beat.tick(1, slot=beat.at(beat.base - 10)))
        second.ask(second.tick(1, None, slot=beat.at(beat.base - 20)))
        third.ask(third.tick(1, slot=beat.at(beat.base - 30)))  # the first one has the key
        asked = [third.entry, nobody.entry, second.entry, beat.entry]
        found = beat.case.other.last_ticks(asked)
        assert found[1] is None
        known = [each for each in found if each]
        slots = [beat.base - 30, beat.base - 20, beat.base - 10]
        assert [each.slot for each in known] == pytest.approx(slots, abs=_EXACT)
        assert [each.skips for each in known] == [1, 0, 0]
        assert all(0 <= each.age < 30 for each in known)
        assert beat.case.store.last_ticks([]) == []

    def test_an_entry_that_is_seen_for_the_first_time_is_due_from_there(
        self, beat: Beat
    ) -> None:
        """An interval longer than the time between two deployments runs all the same."""
        store, known, never = beat.case.store, beat.beside, beat.beside
        known.ask(known.tick(1, None))
        seen = {beat.entry: beat.case.long, known.entry: beat.case.long}
        asked = [beat.entry, known.entry, never.entry]
        for expected in (False, True):
            first, other, nobody = store.last_ticks(asked, first_seen=seen)
            assert (first is not None, nobody) == (expected, None)
            assert other is not None
            assert other.slot == pytest.approx(known.base + 1, abs=_EXACT)
        assert first is not None
        assert first.slot == pytest.approx(beat.base, abs=30)
        assert first.skips == 0
        early = beat.ask(beat.tick(2, None, slot=beat.interval()))
        assert early.verdict is Verdict.TAKEN

    def test_entries_take_no_ticks_from_one_another(self, beat: Beat) -> None:
        """Every app has a `celery.backend_cleanup`; its identity is part of the entry's."""
        for each in (beat, beat.beside, beat.beside):
            answer = each.ask(each.tick(1, None))
            assert (answer.verdict, answer.before) == (Verdict.SEND, "")
