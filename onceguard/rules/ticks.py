"""When a scheduled tick is a new one: slots of schedules, without clock and Celery."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_DAY = 86400.0
_EARLY = 0.02
_NEAR = 0.5
_STEPS = 5
_LONGEST_PERIOD = 9 * 366 * 86400.0  # 29 February: up to eight years apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """
    Which firing of a schedule a tick is, in terms that all beats share.

    Attributes:
        at: The scheduled instant, unix seconds; None for an interval, which is
            due so long after its last tick, by the clock of the lock server.
        spacing: Least seconds between the last claimed slot and this one; less
            is the same tick, sent by another beat.
        interval: Seconds between two ticks of an interval, 0 for other schedules:
            a tick without *at* is due so long after the last.
        final: No other instant follows: a tick that is skipped must be tried again.
        period: About how many seconds there are until the next one. A claimed
            slot further ahead than this is from a clock that was wrong.
    """

    at: float | None
    spacing: float
    period: float
    interval: float = 0.0
    final: bool = False


def interval_slot(interval: float) -> Slot:
    """
    Return the slot of a plain interval.

    Beats that adopted one another's time ask within milliseconds, a little
    early perhaps: a fiftieth of a second, a tenth of a short interval.
    """
    early = min(_EARLY, interval / 10)
    return Slot(at=None, spacing=interval - early, period=interval, interval=interval)


def rounded_slot(interval: float) -> Slot:
    """Return the slot of an interval below a minute that is rounded down to a second."""
    spacing = max(interval / 2, interval - 1 - _EARLY)
    return Slot(at=None, spacing=spacing, period=interval, interval=interval)


def instant_slot(at: float, following: float) -> Slot:
    """
    Return the slot of a schedule of instants (crontab, solar), by two of them.

    A schedule of one instant (clocked) has none *following*: infinity, or the same.
    """
    if not at + _NEAR < following < math.inf:
        return Slot(at=at, spacing=_NEAR, period=_DAY, final=True)
    return Slot(at=at, spacing=_NEAR, period=max(_NEAR, following - at))


def aligned_slot(at: float, interval: float, unit: float) -> Slot:
    """
    Return the slot of an interval aligned to a unit of the clock (``relative=True``).

    Args:
        at: The last full unit, unix seconds.
        interval: Seconds between two ticks.
        unit: 86400, 3600 or 60. Days of 23 hours exist, and hours of 30 minutes
            between two full ones of the clock (Lord Howe Island).
    """
    units = interval // unit * unit
    slack = min(unit / 2, 1.5 * 3600) + _NEAR
    return Slot(at=at, spacing=units - slack, period=max(interval, units))


def instants_around(
    next_after: Callable[[float], float], last: float | None, now: float
) -> tuple[float, float]:
    """
    Find the last scheduled instant that is not in the future, and the one that follows.

    Celery's schedules can only tell the next one, and some take their time for it. So
    the search goes on from the *last* tick, which is a few instants ago at most; after
    an outage it goes back from *now*.

    Args:
        next_after: Gives the first scheduled instant after an instant, both in
            unix seconds; infinity if there is none.
        last: When the last tick was sent, unix seconds; None if that is not known.
        now: Unix seconds.

    Returns:
        Now instead of an instant if there was none in the nine years before.
    """
    found = now if last is None else next_after(last)
    if last is not None and found <= now:
        for _ in range(_STEPS):
            following = next_after(found + _NEAR)  # a sunset may follow on itself
            if following > now or following <= found + _NEAR:
                return found, following
            found = following
    latest = latest_instant(next_after, now)
    return now if latest is None else latest, next_after(now)


def latest_instant(next_after: Callable[[float], float], now: float) -> float | None:
    """
    Find the last scheduled instant that is not in the future.

    Celery's schedules can only tell the next one. The search goes back in
    growing steps until an instant lies before *now*, then halves the gap.

    Args:
        next_after: Gives the first scheduled instant after an instant, both in
            unix seconds; infinity if there is none.
        now: Unix seconds.

    Returns:
        None if there was no instant in the nine years before.
    """
    reach = 90.0
    while (found := next_after(now - reach)) > now:
        reach *= 4
        if reach > 4 * _LONGEST_PERIOD:
            return None
    low, high = now - reach, now
    while high - low > _NEAR:
        middle = (low + high) / 2
        candidate = next_after(middle)
        if candidate > now:
            high = middle
        else:
            found = max(found, candidate)
            low = max(middle, candidate)
    return found
