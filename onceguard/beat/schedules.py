"""Which firing of a Celery schedule is due, in terms that all beats share."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone
from typing import Any

from celery import schedules

from onceguard.rules.lives import aware
from onceguard.rules.ticks import (
    Slot,
    aligned_slot,
    instant_slot,
    instants_around,
    interval_slot,
    rounded_slot,
)

_DAY, _HOUR, _MINUTE = 86400, 3600, 60
_LONGEST = 3650 * 86400.0
_SHORTEST = 0.01


def slot_of(schedule: Any, last_run_at: datetime | None = None) -> Slot:
    """
    Return the slot of a schedule that is due now.

    Args:
        schedule: A Celery schedule: an interval, anything else with
            ``remaining_estimate``, such as crontab and solar, or one of the user's own
            that only says whether it ``is_due``.
        last_run_at: When its entry was last sent; naive is UTC, as in Celery.
    """
    if has_own_rule(schedule):
        return _of_own_rule(schedule, last_run_at)
    if isinstance(schedule, schedules.schedule):
        return _of_interval(schedule)
    last = None if last_run_at is None else aware(last_run_at).timestamp()
    found = instants_around(lambda at: _next_after(schedule, at), last, _now(schedule))
    return instant_slot(*found)


def is_interval(schedule: Any) -> bool:
    """Whether it is due so long after its last tick, not at instants of the clock."""
    return isinstance(schedule, schedules.schedule) or has_own_rule(schedule)


def remember_for(slot: Slot) -> float:
    """Seconds that an entry's state must live: until long after its next firing."""
    return min(2 * slot.period + _DAY, _LONGEST)


def has_own_rule(schedule: Any) -> bool:
    """Whether a class of the user's own says when it is due."""
    kind, interval = type(schedule), schedules.schedule
    if not isinstance(schedule, interval):
        return kind.remaining_estimate is schedules.BaseSchedule.remaining_estimate
    return (kind.is_due, kind.remaining_estimate) != (
        interval.is_due,
        interval.remaining_estimate,
    )


def _of_own_rule(schedule: Any, last_run_at: datetime | None) -> Slot:
    """Take it for the interval that it has now: until it is due again if it ran now."""
    now = schedule.now()
    following = schedule.is_due(now)[1]
    interval = _DAY if following is None else float(following)
    if last_run_at is not None:
        interval = min(interval, (aware(now) - aware(last_run_at)).total_seconds())
    return interval_slot(max(_SHORTEST, interval))


def _of_interval(schedule: Any) -> Slot:
    seconds = float(schedule.seconds)
    if not schedule.relative or seconds < 1:
        return interval_slot(seconds)
    unit = next((each for each in (_DAY, _HOUR, _MINUTE) if seconds >= each), None)
    if unit is None:
        return rounded_slot(seconds)
    local = datetime.fromtimestamp(_now(schedule), tz=_zone(schedule))
    fields = {"microsecond": 0, "second": 0}
    if unit >= _HOUR:
        fields["minute"] = 0
    if unit >= _DAY:
        fields["hour"] = 0
    return aligned_slot(local.replace(**fields).timestamp(), seconds, unit)  # type: ignore[arg-type]


def _next_after(schedule: Any, instant: float) -> float:
    left = schedule.remaining_estimate(datetime.fromtimestamp(instant, tz=_zone(schedule)))
    if left is None:
        return math.inf
    found: float = _now(schedule) + left.total_seconds()
    # A crontab's instants are whole minutes; what lies between is the time between
    # its own look at the clock and ours.
    return float(round(found)) if isinstance(schedule, schedules.crontab) else found


def _now(schedule: Any) -> float:
    if schedule.nowfun is None:
        return time.time()
    now: datetime = schedule.now()
    return aware(now).timestamp()


def _zone(schedule: Any) -> Any:
    return getattr(schedule, "tz", None) or timezone.utc
