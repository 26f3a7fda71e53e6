"""Slots: which firing of a schedule a tick is, the same for all beats."""

import bisect
import math
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onceguard.rules.ticks import (
    aligned_slot,
    instant_slot,
    instants_around,
    interval_slot,
    latest_instant,
    rounded_slot,
)

DAY = 86400.0
YEAR = 365 * DAY
LEAP_DAYS = 8 * 366 * DAY
NOW = 1_900_000_000.0
GAPS = st.one_of(
    st.floats(0.6, 120), st.floats(60, 3 * DAY), st.floats(DAY, YEAR), st.just(60.0)
)


def schedule(instants: list[float]) -> Callable[[float], float]:
    """Tell the next of these instants, which is all that Celery's schedules can do."""

    def next_after(instant: float) -> float:
        place = bisect.bisect_right(instants, instant)
        return instants[place] if place < len(instants) else math.inf

    return next_after


@given(gaps=st.lists(GAPS, min_size=1, max_size=40), since=st.floats(0, YEAR))
@example(gaps=[60.0], since=0.0)
@example(gaps=[0.6] * 20, since=0.5)
@example(gaps=[LEAP_DAYS], since=LEAP_DAYS - 1)
def test_the_latest_instant_is_found_whatever_the_gaps(gaps: list[float], since: float) -> None:
    """A schedule may fire each second or each leap day, evenly or not."""
    instants = [NOW]
    for gap in gaps:
        instants.append(instants[-1] + gap)
    now = instants[-1] + since
    later = [*instants, now + 1, now + YEAR]
    brute = max(each for each in later if each <= now)
    assert latest_instant(schedule(later), now) == brute


@given(gap=st.floats(1, YEAR), since=st.floats(0, 1), skew=st.floats(-3, 3))
def test_beats_with_skewed_clocks_find_the_same_instant(
    gap: float, since: float, skew: float
) -> None:
    """As long as both have come to it: the slot is the schedule's, not the asker's."""
    next_after = schedule([NOW - gap, NOW, NOW + max(gap, 8)])
    mine = latest_instant(next_after, NOW + 3 + since)
    theirs = latest_instant(next_after, NOW + 3 + since + skew)
    assert mine == theirs == NOW


def test_a_schedule_that_has_not_fired_in_nine_years_has_no_latest_instant() -> None:
    """The search must come to an end: beat waits for it."""
    asked: list[float] = []

    def never(instant: float) -> float:
        asked.append(instant)
        return math.inf

    assert latest_instant(never, NOW) is None
    assert latest_instant(schedule([NOW + 1]), NOW) is None
    assert min(asked) < NOW - 9 * YEAR
    assert len(asked) < 20


def test_an_instant_eight_years_ago_is_found() -> None:
    """29 February: 2096 and then 2104."""
    assert latest_instant(schedule([NOW - LEAP_DAYS]), NOW) == NOW - LEAP_DAYS


@given(
    gaps=st.lists(GAPS, min_size=2, max_size=40),
    since=st.floats(0, YEAR),
    known=st.none() | st.floats(0, 1),
)
@example(gaps=[60.0] * 10, since=0.0, known=0.95)
@example(gaps=[60.0] * 10, since=0.0, known=0.0)
def test_the_instants_around_now_are_found_from_any_last_tick(
    gaps: list[float], since: float, known: float | None
) -> None:
    """One or forty instants ago, or never: it is the same firing for all beats."""
    instants = [NOW]
    for gap in gaps:
        instants.append(instants[-1] + gap)
    now = instants[-1] + since
    later = [*instants, now + 1, now + YEAR]
    last = None if known is None else NOW + known * (instants[-1] - NOW) * 0.999
    assert instants_around(schedule(later), last, now) == (instants[-1], now + 1)


def test_the_instants_around_now_are_two_questions_away_from_the_last_tick() -> None:
    """Some schedules take their time for each answer; only an outage makes it more."""
    asked: list[float] = []

    def next_after(instant: float) -> float:
        asked.append(instant)
        return math.floor(instant / 60) * 60 + 60

    begin = math.floor(NOW / 60) * 60.0
    assert instants_around(next_after, begin + 0.2, begin + 60.1) == (begin + 60, begin + 120)
    assert len(asked) == 2
    instants_around(next_after, begin - DAY, begin + 60.1)
    assert len(asked) < 40


@pytest.mark.parametrize("last", [NOW - 5, NOW + 5])
def test_a_clocked_schedule_is_followed_by_itself(last: float) -> None:
    """It names its one instant whenever it is asked; that needs no search."""
    asked = 0

    def next_after(_: float) -> float:
        nonlocal asked
        asked += 1
        return NOW + asked / 1e5  # two looks at the clock are never the same

    at, following = instants_around(next_after, last, NOW + 7)
    assert asked == 2
    assert at == pytest.approx(NOW, abs=0.001)
    assert instant_slot(at, following).final


def test_an_instant_that_follows_closely_on_itself_is_one() -> None:
    """A sunset comes a tenth of a second later when it is computed from nearer."""

    def next_after(instant: float) -> float:
        if instant < NOW - 3600:
            return NOW + 0.1
        return NOW + 0.19 if instant < NOW + 0.19 else NOW + DAY

    for now in (NOW + 0.15, NOW + 0.25):
        at, following = instants_around(next_after, NOW - 5000, now)
        assert at == pytest.approx(NOW + 0.15, abs=0.06)
        assert following == NOW + DAY


def test_without_any_instant_it_is_now() -> None:
    """Nothing that is due has none; but beat must not stumble."""
    assert instants_around(schedule([]), None, NOW) == (NOW, math.inf)
    assert instants_around(schedule([]), NOW - 60, NOW) == (NOW, math.inf)


@pytest.mark.parametrize("gap", [1.0, 60.0, DAY, YEAR, LEAP_DAYS])
def test_the_search_asks_some_dozens_of_times(gap: float) -> None:
    """Each question costs a crontab tens of microseconds, in beat's loop."""
    asked = 0

    def next_after(instant: float) -> float:
        nonlocal asked
        asked += 1
        return math.floor(instant / gap) * gap + gap

    assert latest_instant(next_after, NOW) == math.floor(NOW / gap) * gap
    assert asked < 60


@pytest.mark.parametrize(
    ("interval", "spacing"), [(3600.0, 3599.98), (1.0, 0.98), (0.2, 0.18), (0.1, 0.09)]
)
def test_an_interval_is_due_so_long_after_its_last_tick(
    interval: float, spacing: float
) -> None:
    """A fiftieth of a second early counts as due, a tenth of a short interval."""
    slot = interval_slot(interval)
    assert slot.at is None
    assert slot.spacing == pytest.approx(spacing)
    assert slot.interval == slot.period == interval


def test_a_schedule_of_instants_is_known_by_the_instant() -> None:
    """Instants are compared with some slack, for solar ones are computed anew each time."""
    slot = instant_slot(NOW, NOW + 60)
    assert (slot.at, slot.period, slot.interval) == (NOW, 60, 0.0)
    assert 0 < slot.spacing < 1


@pytest.mark.parametrize("following", [NOW, NOW + 0.0001, NOW - 60, math.inf])
def test_an_instant_without_a_following_one_is_final(following: float) -> None:
    """
    A clocked schedule fires once: what is skipped then must be tried again.

    What it says it is followed by is itself, a little later by each look at the clock.
    """
    slot = instant_slot(NOW, following)
    assert slot.final
    assert slot.period > 60
    assert not instant_slot(NOW, NOW + 60).final
    assert not interval_slot(60.0).final


@pytest.mark.parametrize(
    ("interval", "unit", "least", "most"),
    [
        (60.0, 60, 1.0, 30.0),
        (90.0, 60, 1.0, 30.0),
        (7200.0, 3600, 3601.0, 5400.0),
        (DAY, 86400, 22 * 3600.0, 23 * 3600.0),
        (3 * DAY, 86400, 2 * DAY + 22 * 3600, 2 * DAY + 23 * 3600),
    ],
)
def test_an_aligned_interval_wants_its_units_and_its_spacing(
    interval: float, unit: float, least: float, most: float
) -> None:
    """
    Half a unit of slack: the instant is a full unit of the clock, for all beats.

    The day on which summer time begins has 23 hours, and is a day.
    """
    slot = aligned_slot(NOW, interval, unit)
    assert slot.at == NOW
    assert least < slot.spacing < most
    assert slot.period >= slot.spacing
    assert slot.interval == 0.0


@pytest.mark.parametrize(
    ("interval", "spacing"), [(1.0, 0.5), (1.5, 0.75), (5.0, 3.98), (30.0, 28.98)]
)
def test_an_interval_that_is_rounded_to_seconds_may_come_a_second_early(
    interval: float, spacing: float
) -> None:
    """By the lock server's clock, for there is nothing that beats could align to."""
    slot = rounded_slot(interval)
    assert slot.at is None
    assert slot.spacing == pytest.approx(spacing)
    assert slot.interval == slot.period == interval
