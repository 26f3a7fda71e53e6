"""What a scheduler's entry says of its database row, if it has one."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from onceguard.rules.lives import aware

if TYPE_CHECKING:
    from datetime import datetime

logger = logging.getLogger("celery.beat")

_PAUSE = 5.0


def is_one_off(entry: Any) -> bool:
    """Whether it is a row that is to run once, and is switched off then."""
    return bool(getattr(getattr(entry, "model", None), "one_off", False))


def changed_at(entry: Any) -> float:
    """
    Return when the row was last changed, by a user for example, in unix seconds.

    Minus infinity if nobody knows.
    """
    changed: datetime | None = getattr(getattr(entry, "model", None), "date_changed", None)
    if changed is None:
        return -math.inf
    if changed.tzinfo is None and hasattr(entry.model, "_meta"):  # Django's are local then
        return changed.timestamp()
    return aware(changed).timestamp()


class OneOffRows:
    """
    Rows that run once, whose runs we save ourselves: in all beats alike, and at once.

    A scheduler saves them with all others minutes later; sqlalchemy-celery-beat reads
    everything again then if anything changed, and saves a row without runs. Switched off
    they are by their scheduler, when it would: that makes all beats read everything.

    Args:
        scheduler: Whose rows they are.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._late: dict[str, Any] = {}
        self._try_at = 0.0

    def take(self, entry: Any) -> Any:
        """Keep the scheduler from saving an entry; None, and nothing, if it is no such row."""
        if not is_one_off(entry):
            return None
        self._unsaved.discard(entry.name)
        return entry

    def has_run(self, row: Any) -> bool:
        """
        Whether another beat has saved meanwhile that a row of `take` has run, or is off.

        To be asked before its tick is: who finds that taken saves the run before it is sent.
        """
        if row is None:
            return False
        try:
            return not _is_to_run(row)
        except Exception:
            logger.exception("onceguard could not see whether %r has run by now", row.name)
            return False

    def give_back(self, row: Any) -> None:
        """Leave it to the scheduler after all; a row of `take`."""
        if row is not None:
            self._unsaved.add(row.name)

    def save_run(self, row: Any) -> None:
        """Save that a row has run: a beat that reads it from now on must not send it."""
        if row is None:
            return
        try:
            _save_run(row)
        except Exception:
            logger.exception("onceguard will try again to save that %r has run", row.name)
            self._late[row.name] = row
            self._try_at = time.monotonic() + _PAUSE

    def catch_up(self, *, at_once: bool = False) -> None:
        """
        Save the runs that could not be saved, every few seconds or *at_once*.

        The scheduler would save what it has read since then, which knows of no run.
        """
        if not self._late or not (at_once or time.monotonic() > self._try_at):
            return
        try:
            for name, row in list(self._late.items()):
                _save_run(row)
                del self._late[name]
        except Exception as error:  # noqa: BLE001 - whichever driver says that it is away
            logger.debug("onceguard could not save a row: %r", error)
            self._try_at = time.monotonic() + _PAUSE

    @property
    def _unsaved(self) -> set[str]:
        found: set[str] = getattr(self._scheduler, "_dirty", set())
        return found


def _is_to_run(row: Any) -> bool:
    """Whether a row is on and has not run, in the database."""
    model, kind = row.model, type(row.model)
    if hasattr(kind, "_default_manager"):  # Django's
        waiting = kind._default_manager.filter(pk=model.pk, enabled=True)  # noqa: SLF001
        return bool(waiting.filter(total_run_count=0).exists())
    if hasattr(row, "Session"):
        from sqlalchemy import select  # noqa: PLC0415 - whose row it is

        waits = (kind.id == model.id, kind.enabled.is_(True), kind.total_run_count == 0)
        with row.Session() as session:
            return session.execute(select(kind.id).where(*waits)).first() is not None
    return True


def _save_run(row: Any) -> None:
    """
    Save a row's last run and their number, unless it has been switched off meanwhile.

    What a scheduler's own ``save`` writes into a row that another beat has switched off
    ("it has run") would switch it off again as soon as somebody switches it on.
    """
    model, kind = row.model, type(row.model)
    run = {"last_run_at": model.last_run_at, "total_run_count": model.total_run_count}
    if hasattr(kind, "_default_manager"):  # Django's
        kind._default_manager.filter(pk=model.pk, enabled=True).update(**run)  # noqa: SLF001
    elif hasattr(row, "Session"):
        from sqlalchemy import update  # noqa: PLC0415 - whose row it is

        with row.Session() as session, session.begin():
            is_on = (kind.id == model.id, kind.enabled.is_(True))
            session.execute(update(kind).where(*is_on).values(**run))
    else:
        row.save()
