"""Which tick of an entry is due, and how late it is, by what its beat knows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery import schedules

from onceguard.beat.rows import changed_at, is_one_off
from onceguard.beat.schedules import has_own_rule, slot_of
from onceguard.rules.lives import aware

if TYPE_CHECKING:
    from onceguard.rules.ticks import Slot
    from onceguard.store.tick_contract import LastTick

_NEW = 60.0


def slot_due(entry: Any) -> Slot:
    """Tell which firing is due: of a one-off row a new one if the row was changed since."""
    slot = slot_of(entry.schedule, entry.last_run_at)
    if slot.at is None or not is_one_off(entry):
        return slot
    return replace(slot, at=max(slot.at, changed_at(entry)))


def is_this(entry: Any, slot: Slot, last: LastTick) -> bool:
    """
    Whether the last tick that is known is the one that is due, not the one before.

    An interval that is asked for a little early meets the one before, except in a one-off
    row, which has no other since it was changed.
    """
    if slot.at is not None or last.age < slot.period / 2:
        return True
    claimed = aware(entry._default_now()).timestamp() - last.age  # noqa: SLF001 - as beat
    return is_one_off(entry) and claimed > changed_at(entry)


def overdue(entry: Any, slot: Slot) -> float | None:
    """Seconds since an interval fell due by the entry's own last run; None: nobody knows."""
    if slot.at is not None or entry.last_run_at is None:
        return None
    if has_own_rule(entry.schedule):  # which names only how long it is until the next one
        return 0.0
    now = aware(entry._default_now())  # noqa: SLF001 - as beat
    return max(0.0, (now - aware(entry.last_run_at)).total_seconds() - slot.interval)


def is_new(entry: Any) -> bool:
    """Whether an interval was made just now; database rows know since when they are there."""
    schedule = entry.schedule
    plain = isinstance(schedule, schedules.schedule) and not schedule.relative
    if hasattr(entry, "model") or not plain:
        return False
    age = (entry._default_now() - entry.last_run_at).total_seconds()  # noqa: SLF001 - as beat
    return not entry.total_run_count and age < _NEW
