"""What can become of a call: one closed list for results, signals, metrics, CLI and logs."""

from __future__ import annotations

from enum import Enum


class Outcome(str, Enum):
    """
    What was decided about a call, a delivery, a run or a tick.

    Members are their own text, so they go into JSON, labels and log fields
    as they are.
    """

    ACQUIRED = "acquired"
    RENEWED = "renewed"
    RELEASED = "released"
    DUPLICATE = "duplicate"
    DUPLICATE_DELIVERY = "duplicate_delivery"
    ALREADY_COMPLETED = "already_completed"
    OVERLAP_SKIPPED = "overlap_skipped"
    BUFFERED = "buffered"
    BUFFER_DROPPED = "buffer_dropped"
    REPLACED = "replaced"
    RESCHEDULED = "rescheduled"
    REJECTED = "rejected"
    MISSED = "missed"
    LIMITED = "limited"
    LEASE_LOST = "lease_lost"
    ABANDONED = "abandoned"
    FORCE_RELEASED = "force_released"
    PAUSED = "paused"
    STORE_UNAVAILABLE = "store_unavailable"

    # Python 3.10 to 3.12 disagree on what format() makes of a mixed-in enum.
    __str__ = str.__str__
