"""Stand between a scheduler and what it sends, whichever scheduler it is."""

from __future__ import annotations

import inspect
import logging
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from celery import signals

from onceguard.beat.rows import OneOffRows, is_one_off
from onceguard.beat.schedules import has_own_rule, is_interval
from onceguard.beat.ticks import Passed, Sending, Ticks
from onceguard.rules.lives import aware

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.store.tick_contract import LastTick

logger = logging.getLogger("celery.beat")

_JUST_AFTER = 1.0
_SOON = 0.02
_PAUSE = 5.0
_LATE = 0.05
_UNCOUNTED = "only_update_last_run_at"  # RedBeat's


def wrap(scheduler: Any, app: Any) -> None:
    """
    Put the hook around a scheduler, once.

    The instance is wrapped, not its class, and nothing of ours gets into what it
    stores: without onceguard the same schedule goes on.
    """
    if not isinstance(getattr(scheduler, "apply_async", None), Hook):
        Hook(scheduler, Ticks(app)).install()


class _NotSent:
    """What ``apply_async`` gives for a tick that passes; some schedulers log its id."""

    id = None

    def __bool__(self) -> bool:
        return False


_NOT_SENT = _NotSent()


class Hook:
    """
    What a scheduler calls instead of its own ``apply_async``.

    All schedulers send by ``apply_async``: Celery's own, django-celery-beat's and
    sqlalchemy-celery-beat's after they have reserved the entry, RedBeat by having
    it reserved there. Nothing is asked in ``is_due``, which beat calls hundreds of
    times for each tick.

    Args:
        scheduler: An instance of `celery.beat.Scheduler`.
        ticks: Who decides.
    """

    def __init__(self, scheduler: Any, ticks: Ticks) -> None:
        self._scheduler = scheduler
        self._ticks = ticks
        self._send: Callable[..., Any] = scheduler.apply_async
        self._reserve: Callable[[Any], Any] = scheduler.reserve
        self._when: Callable[..., Any] = scheduler._when  # noqa: SLF001 - where the heap asks
        self._populate: Callable[..., Any] = scheduler.populate_heap
        self._end: Callable[[], Any] = scheduler.close
        self._rows = OneOffRows(scheduler)
        self._reserved: tuple[Any, Any] = (None, None)
        self._due: tuple[Any, int] = (None, 0)
        self._moved: Any = None
        self._known: set[str] = set()
        self._left: float | None = None
        self._sending: str | None = None
        self._published = False

    def install(self) -> None:
        """Take the scheduler's methods over."""
        signals.after_task_publish.connect(self._note_published, weak=False)
        self._scheduler.apply_async = self
        self._scheduler.reserve = self._reserve_noted
        self._scheduler._when = self._when_moved  # noqa: SLF001 - as above
        self._scheduler.populate_heap = self._populate_adopted
        self._scheduler.close = self._close
        if hasattr(self._scheduler, "maybe_due"):
            self._maybe_due = self._scheduler.maybe_due
            self._scheduler.maybe_due = self._maybe_due_sooner

    def _close(self) -> Any:
        self._rows.catch_up(at_once=True)
        return self._end()

    def __call__(
        self, entry: Any, producer: Any = None, advance: bool = True, **options: Any
    ) -> Any:
        """Send a due entry, or let it pass; as the scheduler's own ``apply_async``."""
        new = self._new_of(entry)
        row = self._rows.take(new)
        if self._rows.has_run(row):
            return _NOT_SENT
        try:
            decision = self._ticks.decide(entry, self._nth(entry))
        except Exception:  # beat must live, and say so
            logger.exception(
                "onceguard could not decide about %r: it is sent UNGUARDED. Please report.",
                entry.name,
            )
            self._rows.give_back(row)
            return self._send(entry, producer=producer, advance=advance, **options)
        if isinstance(decision, Passed):
            self._pass_over(entry, new, decision, advance=advance)
            return _NOT_SENT
        self._sending, self._published = decision.task_id, False
        try:
            if advance:
                self._reserve(entry)
            result = self._send(decision.entry, producer=producer, advance=False, **options)
        except BaseException as error:
            self._rows.give_back(row)
            self._broke_off(decision, error)
            raise
        self._ticks.sent(decision)
        self._rows.save_run(row)
        return result

    def _broke_off(self, sending: Sending, error: BaseException) -> None:
        """
        Settle a tick whose sending did not return.

        A beat that is told to end may be told so right after its message was sent. If
        nobody knows whether it was, the tick is not given back: it is sent once at most.
        """
        if self._published:
            self._ticks.sent(sending)
        elif isinstance(error, Exception):
            self._ticks.failed(sending)

    def _note_published(self, headers: Any = None, body: Any = None, **_: Any) -> None:
        """Note that the tick's message was sent; whoever listens may send others meanwhile."""
        first = body if isinstance(body, dict) else {}  # with task_protocol = 1
        if {**first, **(headers or {})}.get("id") == self._sending:
            self._published = True

    def _reserve_noted(self, entry: Any) -> Any:
        new = self._reserve(entry)
        self._reserved, self._due = (entry, new), (entry, 0)
        return new

    def _nth(self, entry: Any) -> int:
        """
        Count how often a due entry has been sent already.

        Some schedulers send it once for each tenant: each of these is a tick of its own.
        """
        due, number = self._due
        if due is not entry:
            return 0
        self._due = due, number + 1
        return number

    def _new_of(self, entry: Any) -> Any:
        """Return what an entry that is due was reserved as; None if it was not."""
        old, new = self._reserved
        self._reserved = None, None
        return new if old is entry else None

    def _pass_over(self, entry: Any, new: Any, passed: Passed, *, advance: bool) -> None:
        """Let a tick go by: it was due now, but it is no run unless another beat sent it."""
        try:
            if advance:
                self._pass_over_unreserved(entry, passed)
                return
            if new is None:
                return
            _shift(new, passed)
            if is_one_off(new) and passed.counts:
                self._rows.save_run(new)
            else:
                self._moved = new
        except Exception:
            logger.exception("onceguard could not pass over %r", entry.name)

    def _pass_over_unreserved(self, entry: Any, passed: Passed) -> None:
        """Let an entry go by that RedBeat would only reserve when it sends it."""
        following = getattr(entry, "_next_instance", None)
        if following is None or _UNCOUNTED not in inspect.signature(following).parameters:
            self._reserve(entry)
            return
        if passed.slot.final and not passed.counts:  # it stays due: RedBeat asks again
            self._left = _PAUSE
            return
        last_run = None
        if passed.last is not None and passed.slot.at is None:
            last_run = _earlier(entry._default_now(), passed.last.age)  # noqa: SLF001 - as RedBeat
        new = following(last_run_at=last_run, **{_UNCOUNTED: not passed.counts})
        due, left = new.is_due()
        self._left = _PAUSE if due else left

    def _maybe_due_sooner(self, entry: Any, **options: Any) -> Any:
        """RedBeat sleeps for a whole interval after an entry that was due."""
        left = self._maybe_due(entry, **options)
        if self._left is not None:
            left = self._left if left is None else min(left, self._left)
            self._left = None
        return left

    def _when_moved(self, entry: Any, next_time_to_run: Any, *args: Any, **kwargs: Any) -> Any:
        """Put an entry that was passed over where it is due by its new last run."""
        self._rows.catch_up()
        if entry is self._moved:
            self._moved = None
            try:
                next_time_to_run = _due_again(entry)
            except Exception:  # of a database row, perhaps
                logger.exception("onceguard could not tell when %r is due again", entry.name)
        return self._when(entry, next_time_to_run, *args, **kwargs)

    def _populate_adopted(self, *args: Any, **kwargs: Any) -> Any:
        try:
            self._adopt()
        except Exception:
            logger.exception("onceguard could not read the last ticks; beat starts without")
        return self._populate(*args, **kwargs)

    def _adopt(self) -> None:
        """Take over when entries were last sent, by whichever beat, as they turn up."""
        schedule = self._scheduler.schedule
        new = [entry for name, entry in schedule.items() if name not in self._known]
        self._known.update(schedule)
        last = self._ticks.last_ticks(new)
        for entry, tick in zip(new, last, strict=True):
            if tick is not None:
                _adopt(entry, tick)


def _due_again(entry: Any) -> Any:
    """Return in how many seconds an entry that was passed over is due again; None for never."""
    due, left = entry.is_due()
    if not due:
        return left
    if has_own_rule(entry.schedule):
        return left or _PAUSE
    return _SOON if is_interval(entry.schedule) else _PAUSE  # a clocked row stays due


def _shift(entry: Any, passed: Passed) -> None:
    """Correct an entry that was reserved for a tick that is not sent."""
    if not passed.counts:
        for place in _places(entry):
            place.total_run_count = max(0, place.total_run_count - 1)
    if passed.last is not None and passed.slot.at is None:
        # Celery rounds a relative interval down to a second: rather late than early.
        late = _LATE if getattr(entry.schedule, "relative", False) else 0.0
        _set_last_run(entry, _earlier(entry.last_run_at, passed.last.age - late))


def _adopt(entry: Any, tick: LastTick) -> None:
    """
    Take the shared last tick for the entry's own.

    An entry that has run here later than that (while the lock server was away)
    keeps its own; one that never ran has only the time of its making. So does a one-off
    row: it has no next tick, and asks whether another beat has sent the only one.
    """
    if is_one_off(entry):
        return
    now = aware(entry._default_now())  # noqa: SLF001 - as the schedulers do
    sent = _earlier(now, tick.age)
    if not is_interval(entry.schedule):
        instant = _earlier(now, now.timestamp() - tick.slot - _JUST_AFTER)
        sent = min(max(sent, instant), now)  # a clock that was ahead is set right now
    if entry.total_run_count and sent < aware(entry.last_run_at) <= now:
        return
    _set_last_run(entry, sent)


def _places(entry: Any) -> list[Any]:
    """Name where an entry keeps its last run: a database row has its own."""
    model = getattr(entry, "model", None)
    return [entry] if model is None else [entry, model]


def _set_last_run(entry: Any, instant: datetime) -> None:
    """Write it as each place has it: in its own zone, or naive."""
    for place in _places(entry):
        zone = getattr(place.last_run_at, "tzinfo", None)
        local = aware(instant).astimezone(zone or timezone.utc)
        place.last_run_at = local if zone else local.replace(tzinfo=None)


def _earlier(instant: datetime, seconds: float) -> datetime:
    """Go back in time, not on the wall: a day at the end of summer time has 25 hours."""
    back = aware(instant).astimezone(timezone.utc) - timedelta(seconds=seconds)
    return back.astimezone(instant.tzinfo or timezone.utc)
