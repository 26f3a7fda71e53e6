"""One event for each decision: logged, and sent as a signal."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onceguard.observe.signals import BY_OUTCOME
from onceguard.rules.outcomes import Outcome

if TYPE_CHECKING:
    from onceguard.rules.holder import Holder

logger = logging.getLogger("onceguard")

_LEVELS = {
    Outcome.DUPLICATE: logging.INFO,
    Outcome.DUPLICATE_DELIVERY: logging.INFO,
    Outcome.ALREADY_COMPLETED: logging.INFO,
    Outcome.OVERLAP_SKIPPED: logging.INFO,
    Outcome.BUFFERED: logging.INFO,
    Outcome.BUFFER_DROPPED: logging.INFO,
    Outcome.REPLACED: logging.INFO,
    Outcome.MISSED: logging.WARNING,
    Outcome.RESCHEDULED: logging.INFO,
    Outcome.REJECTED: logging.ERROR,
    Outcome.LEASE_LOST: logging.ERROR,
    Outcome.ABANDONED: logging.WARNING,
    Outcome.STORE_UNAVAILABLE: logging.WARNING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    What was decided about a call, and because of whom.

    Attributes:
        outcome: One of the closed list.
        key: What must be unique.
        task: Name of the task.
        task_id: Celery's id of the call that the decision is about.
        holder: Who has the key, where anybody is in the way.
        detail: The rest of the sentence, for people.
        entry: Name of the beat entry, if the decision is about a tick.
    """

    outcome: Outcome
    key: str
    task: str
    task_id: str
    holder: Holder | None = None
    detail: str = ""
    entry: str = ""

    def __str__(self) -> str:
        holder = f": {self.key} is {self.holder}" if self.holder else f" for {self.key}"
        detail = f" ({self.detail})" if self.detail else ""
        if self.entry:
            tick = f"tick of {self.entry!r} ({self.task})"
            return f"{tick} {self.outcome.value}{holder}{detail}"
        return f"{self.task}[{self.task_id}] {self.outcome.value}{holder}{detail}"


def emit(event: Event) -> None:
    """
    Log an event at its outcome's level and send its signal.

    Outcomes of an ordinary run (acquired, renewed, released) are logged at DEBUG.
    """
    log(event, logger, _LEVELS.get(event.outcome, logging.DEBUG))
    announce(event)


def log(event: Event, where: logging.Logger, level: int) -> None:
    """Log an event elsewhere than on our own logger, or at another level."""
    if where.isEnabledFor(level):
        where.log(level, "%s", event, extra={"once_outcome": event.outcome.value})


def announce(event: Event) -> None:
    """Send an event's signal only."""
    signal = BY_OUTCOME.get(event.outcome)
    if signal is not None and signal.receivers:
        signal.send(sender=event.task, event=event)
