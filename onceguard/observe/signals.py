"""
Celery signals, one for each outcome that an application may want to act on.

Each is sent with ``sender`` = the task's name and ``event`` = an
`onceguard.observe.events.Event`. An exception in a receiver is logged by Celery
and changes nothing.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

from onceguard.rules.outcomes import Outcome

once_duplicate = Signal(name="once_duplicate", providing_args={"event"})
once_duplicate_delivery = Signal(name="once_duplicate_delivery", providing_args={"event"})
once_already_completed = Signal(name="once_already_completed", providing_args={"event"})
once_overlap_skipped = Signal(name="once_overlap_skipped", providing_args={"event"})
once_buffered = Signal(name="once_buffered", providing_args={"event"})
once_buffer_dropped = Signal(name="once_buffer_dropped", providing_args={"event"})
once_replaced = Signal(name="once_replaced", providing_args={"event"})
once_missed = Signal(name="once_missed", providing_args={"event"})
once_rescheduled = Signal(name="once_rescheduled", providing_args={"event"})
once_rejected = Signal(name="once_rejected", providing_args={"event"})
once_lease_lost = Signal(name="once_lease_lost", providing_args={"event"})
once_abandoned = Signal(name="once_abandoned", providing_args={"event"})
once_store_unavailable = Signal(name="once_store_unavailable", providing_args={"event"})

BY_OUTCOME = {
    Outcome.DUPLICATE: once_duplicate,
    Outcome.DUPLICATE_DELIVERY: once_duplicate_delivery,
    Outcome.ALREADY_COMPLETED: once_already_completed,
    Outcome.OVERLAP_SKIPPED: once_overlap_skipped,
    Outcome.BUFFERED: once_buffered,
    Outcome.BUFFER_DROPPED: once_buffer_dropped,
    Outcome.REPLACED: once_replaced,
    Outcome.MISSED: once_missed,
    Outcome.RESCHEDULED: once_rescheduled,
    Outcome.REJECTED: once_rejected,
    Outcome.LEASE_LOST: once_lease_lost,
    Outcome.ABANDONED: once_abandoned,
    Outcome.STORE_UNAVAILABLE: once_store_unavailable,
}
