"""
Slots of Celery's own schedules, in a year whose clocks the tests set.

`Simulated` plays one beat that is never late. What the store does with slots is in
`tests/store/test_contract_ticks.py`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab, schedule, solar
from django_celery_beat.clockedschedule import clocked as django_clocked
from django_celery_beat.tzcrontab import TzAwareCrontab as DjangoCrontab
from redbeat.schedules import rrule
from sqlalchemy_celery_beat.clockedschedule import clocked as sqlalchemy_clocked
from sqlalchemy_celery_beat.tzcrontab import TzAwareCrontab as SqlalchemyCrontab

from onceguard.beat.schedules import remember_for, slot_of
from onceguard.rules.ticks import Slot

UTC = timezone.utc
BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # half an hour of summer time
ST_JOHNS = ZoneInfo("America/St_Johns")  # half an hour off, and a whole one of summer time
DAY, HOUR = 86400.0, 3600.0
YEAR = 365 * DAY

A_LITTLE = 0.3
"""Seconds by which an instant may differ from one look to the next: solar ones do."""

Make = Callable[[Callable[[], datetime]], Any]


def wall(*fields: int) -> datetime:
    """What the wall shows, from the year down, in whichever zone a test puts it."""
    year, month, day, hour, minute, second = (*fields, 0, 0, 0)[:6]
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


CHANGES = [
    pytest.param(BERLIN, wall(2030, 3, 30, 23), id="Berlin, summer time begins"),
    pytest.param(BERLIN, wall(2030, 10, 26, 23), id="Berlin, summer time ends"),
    pytest.param(LORD_HOWE, wall(2030, 10, 5, 23), id="Lord Howe, summer time begins"),
    pytest.param(LORD_HOWE, wall(2030, 4, 6, 23), id="Lord Howe, summer time ends"),
    pytest.param(ST_JOHNS, wall(2030, 11, 2, 23), id="St John's, summer time ends"),
    pytest.param(KOLKATA, wall(2030, 3, 30, 23), id="Kolkata, no summer time"),
]
CLOCKS_APART = (0.001, 0.4, 2.9, 7.3)
"""Seconds after a firing when beats with different clocks ask for its slot."""


def app_in(zone: ZoneInfo | timezone) -> Celery:
    """An app with this `timezone`."""
    made = Celery("slots", set_as_current=False)
    made.conf.timezone = str(zone)
    return made


@dataclass(frozen=True)
class Firing:
    """When Celery found the schedule due, and the slot as each beat finds it."""

    due: float
    slots: list[Slot]

    @property
    def slot(self) -> Slot:
        """The slot as the first beat finds it."""
        return self.slots[0]

    @property
    def instant(self) -> float:
        """Its instant, which must be the same for all of them."""
        at = [slot.at for slot in self.slots if slot.at is not None]
        assert len(at) == len(self.slots)
        assert max(at) - min(at) < A_LITTLE < self.slot.spacing
        return at[0]


class Simulated:
    """
    A schedule under a clock of the test's own.

    Args:
        make: Makes the schedule, with a ``nowfun``.
        zone: The app's time zone.
        begin: Local time at which beat starts.
    """

    def __init__(self, make: Make, zone: ZoneInfo | timezone, begin: datetime) -> None:
        self._zone = zone
        self.now = begin.replace(tzinfo=zone).timestamp()
        self.schedule = make(lambda: self._local(self.now))
        self.schedule.app = app_in(zone)

    def _local(self, instant: float) -> datetime:
        return datetime.fromtimestamp(instant, self._zone)

    def slot(self, *, after: float = 0.0, last: float | None = None) -> Slot:
        """The slot as a beat finds it whose clock is so many seconds ahead."""
        last_run_at = None if last is None else self._local(last + after)
        before, self.now = self.now, self.now + after
        try:
            return slot_of(self.schedule, last_run_at)
        finally:
            self.now = before

    def firings(self, count: int) -> list[Firing]:
        """So many firings as Celery finds them due."""
        found: list[Firing] = []
        last = self.now - 0.01
        while len(found) < count:
            due, left = self.schedule.is_due(self._local(last))
            if due:
                slots = [self.slot(after=apart, last=last) for apart in CLOCKS_APART]
                slots.append(self.slot(after=CLOCKS_APART[-1]))  # knows no last tick
                found.append(Firing(self.now, slots))
                last = self.now
            self.now += max(left, 0.001) + 0.001
        return found


def crontab_of(**fields: Any) -> Make:
    return lambda now: crontab(nowfun=now, **fields)


LEAP_DAY = crontab_of(minute=0, hour=0, day_of_month=29, month_of_year=2)


def aligned(seconds: float) -> Make:
    return lambda now: schedule(timedelta(seconds=seconds), relative=True, nowfun=now)


def instants(firings: list[Firing]) -> list[float]:
    return [each.instant for each in firings]


@pytest.mark.parametrize(("zone", "begin"), CHANGES)
@pytest.mark.parametrize(
    ("make", "count"),
    [
        pytest.param(crontab_of(), 300, id="each minute"),
        pytest.param(crontab_of(minute="*/7"), 50, id="each 7th minute"),
        pytest.param(crontab_of(minute="0,30"), 20, id="half-hourly"),
        pytest.param(crontab_of(minute=0), 12, id="hourly"),
        pytest.param(crontab_of(minute="15,59", hour="1,2"), 8, id="in the hours that change"),
        pytest.param(crontab_of(minute=30, hour=2), 3, id="daily at 2:30"),
        pytest.param(crontab_of(minute=0, hour=3), 3, id="daily at 3:00"),
    ],
)
def test_firings_of_a_crontab_are_later_and_later_slots_for_all_beats(
    make: Make, count: int, zone: ZoneInfo, begin: datetime
) -> None:
    """
    On the days on which clocks are put forward and back, too.

    In local time 2:30 comes twice in autumn: the second one would look as if it had been
    sent. In UTC it does not.
    """
    beat = Simulated(make, zone, begin)
    firings = beat.firings(count)
    assert all(each.instant % 60 == 0 for each in firings)
    assert all(0 <= each.due - each.instant < 0.01 for each in firings)
    for each, following in pairwise(firings):
        assert following.instant - each.instant >= 60
        gap = following.instant - each.instant
        assert each.slot.period == pytest.approx(gap, abs=1.01 * HOUR)


def test_a_beat_that_comes_late_finds_the_last_firing_only() -> None:
    """Catching up is one run, as in Celery."""
    beat = Simulated(crontab_of(minute=0, hour=6), BERLIN, wall(2030, 6, 12, 17, 30))
    slot = beat.slot()
    assert slot.at == datetime(2030, 6, 12, 6, tzinfo=BERLIN).timestamp()
    assert slot.period == DAY


@pytest.mark.parametrize(
    ("make", "last", "period"),
    [
        (crontab_of(minute=0, hour=0, day_of_month=1, month_of_year=1), (2030, 1, 1), YEAR),
        (
            LEAP_DAY,
            (2028, 2, 29),
            4 * YEAR,
        ),
        (crontab_of(minute=0, hour=0, day_of_month=31), (2030, 5, 31), 61 * DAY),
        (crontab_of(minute=0, hour=0, day_of_week="fri"), (2030, 6, 7), 7 * DAY),
    ],
    ids=["yearly", "29 February", "the 31st", "Fridays"],
)
def test_a_rare_firing_is_found_and_remembered_until_after_the_next(
    make: Make, last: tuple[int, int, int], period: float
) -> None:
    """State that ended before would let a beat that starts late in the year send it again."""
    slot = Simulated(make, UTC, wall(2030, 6, 12)).slot()
    assert slot.at == datetime(*last, tzinfo=UTC).timestamp()
    assert period <= slot.period <= period + 2 * DAY
    assert remember_for(slot) > 1.5 * slot.period + HOUR


def test_the_gap_of_eight_years_between_leap_days_is_no_gap() -> None:
    """2096 and 2104: the state of an entry may live for ten years."""
    slot = Simulated(LEAP_DAY, UTC, wall(2103, 12, 31)).slot()
    assert slot.at == datetime(2096, 2, 29, tzinfo=UTC).timestamp()
    assert slot.period > 8 * YEAR
    assert remember_for(slot) > slot.period


@pytest.mark.parametrize("kind", [DjangoCrontab, SqlalchemyCrontab])
@pytest.mark.parametrize("own", [KOLKATA, ZoneInfo("America/New_York")])
def test_a_crontab_with_a_zone_of_its_own_goes_by_that(kind: Any, own: ZoneInfo) -> None:
    """Rows of both database schedulers have one, whatever the app's is."""

    def make(now: Callable[[], datetime]) -> Any:
        made = kind(minute="30", hour="6", tz=own)
        made.nowfun = lambda: now().astimezone(own)
        return made

    at = instants(Simulated(make, BERLIN, wall(2030, 3, 8, 20)).firings(5))
    local = [datetime.fromtimestamp(each, own) for each in at]
    assert {(each.hour, each.minute) for each in local} == {(6, 30)}
    assert [each.day for each in local] == list(range(local[0].day, local[0].day + 5))


@pytest.mark.parametrize("kind", [DjangoCrontab, SqlalchemyCrontab])
def test_a_crontab_of_a_row_is_asked_by_its_own_clock(kind: Any) -> None:
    """Unlike Celery's it has always a ``nowfun``."""
    made = kind(minute="*", tz=KOLKATA)
    made.app = app_in(BERLIN)
    slot = slot_of(made)
    assert slot.at is not None
    assert 0 <= time.time() - slot.at < 61
    assert slot.period == 60


@pytest.mark.parametrize("kind", [django_clocked, sqlalchemy_clocked])
def test_a_clocked_schedule_has_one_slot_for_good(kind: Any) -> None:
    """It stays due until its row is switched off; each look finds the same firing."""
    instant = datetime(2030, 6, 12, 15, 4, 5, tzinfo=UTC)
    for after in (0.001, 5.0, 3 * DAY, YEAR):
        beat = Simulated(
            lambda now: kind(instant, nowfun=now), UTC, wall(2030, 6, 12, 15, 4, 5)
        )
        slot = beat.slot(after=after)
        assert slot.at == pytest.approx(instant.timestamp(), abs=0.001)
        assert slot.final
        assert remember_for(slot) >= DAY


def test_other_schedules_are_not_final() -> None:
    """Their skipped ticks are made up for by the next one."""
    assert not Simulated(crontab_of(), UTC, wall(2030, 6, 12)).slot().final
    assert not Simulated(aligned(60), UTC, wall(2030, 6, 12)).slot().final
    assert not slot_of(schedule(60.0)).final


def test_a_rule_of_redbeat_has_slots() -> None:
    """Any schedule with `remaining_estimate` will do."""
    begin = datetime(2030, 6, 12, 9, tzinfo=UTC)

    def make(now: Callable[[], datetime]) -> Any:
        return rrule("HOURLY", dtstart=begin, interval=2, nowfun=now, app=app_in(UTC))

    at = instants(Simulated(make, UTC, wall(2030, 6, 12, 14, 30)).firings(4))
    assert at == [(begin + timedelta(hours=2 * n)).timestamp() for n in range(3, 7)]


def test_the_last_of_a_rule_with_an_end_is_final() -> None:
    """Nothing follows; `remaining_estimate` says None then."""
    begin = datetime(2030, 6, 12, 9, tzinfo=UTC)

    def make(now: Callable[[], datetime]) -> Any:
        return rrule("HOURLY", dtstart=begin, count=3, nowfun=now, app=app_in(UTC))

    slot = Simulated(make, UTC, wall(2030, 6, 12, 11, 0, 1)).slot()
    assert slot.at == datetime(2030, 6, 12, 11, tzinfo=UTC).timestamp()
    assert slot.final


SOLAR = [("sunrise", 52.5, 13.4), ("sunset", 52.5, 13.4), ("solar_noon", -35.0, 149.0)]


@pytest.mark.parametrize("event", SOLAR, ids=[event for event, *_ in SOLAR])
@pytest.mark.parametrize("month", [3, 6, 9, 12])
def test_a_solar_event_is_one_slot_for_all_beats(
    event: tuple[str, float, float], month: int
) -> None:
    """Its instant comes out a little different each time, by where the search began."""
    beat = Simulated(lambda now: solar(*event, nowfun=now), BERLIN, wall(2030, month, 18, 1))
    for each in beat.firings(4):
        at = [slot.at or 0.0 for slot in each.slots[1:]]
        assert max(at) - min(at) < 0.25
        assert each.slots[1].spacing - 0.25 > 0
        assert abs(each.slots[1].period - DAY) < 300


@pytest.mark.parametrize(
    ("event", "day"),
    [("sunset", 20), ("dusk_civil", 20), ("sunrise", 20), ("dawn_nautical", 14)],
)
def test_a_solar_event_that_is_due_is_not_yesterdays(event: str, day: int) -> None:
    """
    Celery finds it due up to 0.2 s before its slot, which is computed from nearer.

    Yesterday's slot was sent: the tick would be taken for another beat's.
    """
    beat = Simulated(
        lambda now: solar(event, 52.5, 13.4, nowfun=now), BERLIN, wall(2030, 3, day, 1)
    )
    for each in beat.firings(20):
        assert each.instant == pytest.approx(each.due, abs=0.3)


@pytest.mark.parametrize(("zone", "begin"), CHANGES)
@pytest.mark.parametrize(
    ("seconds", "count"),
    [(60, 300), (90, 300), (300, 70), (HOUR, 15), (DAY, 4), (3 * DAY, 3)],
)
def test_firings_of_an_aligned_interval_are_spaced_as_the_store_wants_them(
    seconds: float, count: int, zone: ZoneInfo, begin: datetime
) -> None:
    """
    ``relative=True``: none is taken for the one before.

    Not on the day with 23 hours; and where summer time is half an hour, the next full
    hour comes after half an hour.
    """
    beat = Simulated(aligned(seconds), zone, begin + timedelta(seconds=11))
    firings = beat.firings(count)
    for each, following in pairwise(firings):
        assert following.instant - each.instant >= following.slot.spacing


@pytest.mark.parametrize(
    ("seconds", "full"),
    [
        (60, wall(2030, 6, 12, 15, 17)),
        (7200, wall(2030, 6, 12, 15)),
        (DAY, wall(2030, 6, 12)),
        (3 * DAY, wall(2030, 6, 12)),
    ],
)
def test_an_aligned_interval_has_the_slot_of_the_last_full_unit(
    seconds: float, full: datetime
) -> None:
    """However late the beat that asks is; in the zone of the app."""
    slot = Simulated(aligned(seconds), KOLKATA, wall(2030, 6, 12, 15, 17, 42)).slot(after=0.5)
    assert slot.at == full.replace(tzinfo=KOLKATA).timestamp()


@pytest.mark.parametrize(("zone", "begin"), CHANGES)
@pytest.mark.parametrize("hours", [2, 3, 5])
def test_hours_that_are_no_days_go_on_after_the_clocks_have_changed(
    hours: int, zone: ZoneInfo, begin: datetime
) -> None:
    """Celery fires too early there once or twice; what is refused then comes in time."""
    firings = Simulated(aligned(hours * HOUR), zone, begin).firings(10)
    claimed = [firings[0].instant]
    for each in firings[1:]:
        if each.instant >= claimed[-1] + each.slot.spacing:
            claimed.append(each.instant)
    assert claimed[-1] == firings[-1].instant
    assert all(later - earlier <= (hours + 1.5) * HOUR for earlier, later in pairwise(claimed))


@pytest.mark.parametrize("seconds", [1.0, 5.0, 30.0])
def test_an_aligned_interval_below_a_minute_goes_by_seconds(seconds: float) -> None:
    """There is no unit to align to but the second, and that is the lock server's."""
    beat = Simulated(aligned(seconds), UTC, wall(2030, 6, 12, 12, 0, 3))
    assert beat.slot().spacing <= max(seconds - 1, seconds / 2)  # after a tick that was late
    for each, following in pairwise(beat.firings(20)):
        assert each.slot.at is None
        assert following.due - each.due >= following.slot.spacing


@pytest.mark.parametrize("relative", [False, True])
def test_an_interval_below_a_second_is_a_plain_one(relative: bool) -> None:
    """It cannot be aligned to anything."""
    slot = slot_of(schedule(0.5, relative=relative, app=app_in(BERLIN)))
    assert (slot.at, slot.interval, slot.period) == (None, 0.5, 0.5)
    assert slot.spacing == 0.48


@pytest.mark.parametrize("seconds", [1.0, 60.0, HOUR, DAY, 10 * YEAR])
def test_a_plain_interval_asks_for_no_clock(seconds: float) -> None:
    """The lock server's counts, whatever this beat's says."""
    slot = slot_of(schedule(seconds))
    assert slot.at is None
    assert slot.interval == slot.period == seconds
    assert min(slot.period + DAY, 3650 * DAY) <= remember_for(slot) <= 3650 * DAY


def test_the_zone_of_a_naive_clock_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Celery takes it: not the host's."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        naive = wall(2030, 6, 12, 12, 30).replace(tzinfo=None)
        made = crontab(minute=0, nowfun=lambda: naive, app=app_in(UTC))
        for last in (None, naive - timedelta(hours=1)):
            assert slot_of(made, last).at == wall(2030, 6, 12, 12).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("make", "begin"),
    [
        pytest.param(crontab_of(), wall(2030, 6, 12, 12, 0, 1), id="each minute"),
        pytest.param(crontab_of(hour=3, minute=0), wall(2030, 6, 12, 12), id="daily"),
        pytest.param(
            crontab_of(minute=0, hour=0, day_of_month=1, month_of_year=1),
            wall(2030, 6, 12),
            id="yearly",
        ),
        pytest.param(
            LEAP_DAY,
            wall(2030, 6, 12),
            id="29 February",
        ),
        pytest.param(
            lambda now: solar("sunset", 52.5, 13.4, nowfun=now),
            wall(2030, 6, 12, 12),
            id="sunset",
        ),
        pytest.param(aligned(DAY), wall(2030, 6, 12, 12), id="aligned"),
    ],
)
def test_a_slot_is_found_in_a_few_milliseconds(make: Make, begin: datetime) -> None:
    """Beat's loop waits for it, once for each due tick."""
    beat = Simulated(make, BERLIN, begin)
    beat.slot()
    best = min(_took(beat.slot) for _ in range(5))
    print(f"a slot took {best * 1000:.2f} ms")
    assert best < 0.025


def _took(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began
