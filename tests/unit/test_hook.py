"""Celery's own scheduler with the hook around it, in this process: no server is needed."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from itertools import cycle
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery import VERSION, Celery, current_app, signals
from celery.beat import BeatLazyFunc, Scheduler, Service
from celery.schedules import schedstate, schedule
from sqlalchemy import update

import onceguard
from onceguard.beat.hook import Hook, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("fakeredis")

OFTEN = 0.2
"""Seconds between two ticks."""


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose broker and lock server are in memory."""
    made = Celery("hook", broker="memory://", set_as_current=False)
    made.conf.update(once_url=f"memory://{uuid4()}", task_publish_retry=False)
    onceguard.setup(made)
    made.task(name="work", shared=False)(work)
    yield made
    made.close()


def work(*args: Any) -> None:
    """Never run: there is no worker."""


def beat_of(app: Celery, entry: dict[str, Any], kind: Any = Scheduler) -> Any:
    """A scheduler of one entry, as beat starts it."""
    app.conf.beat_schedule = {"tick": {"task": "work", **entry}}
    app.finalize()
    scheduler = kind(app=app)
    wrap(scheduler, app)
    return scheduler


def play(*beats: Any, until: Callable[[], object]) -> None:
    """Let beats tick, one after the other."""
    deadline = time.monotonic() + 10
    while not until() and time.monotonic() < deadline:
        for beat in beats:
            beat.tick()
        time.sleep(0.01)
    assert until()


@contextmanager
def before_each_publish(receiver: Callable[..., None]) -> Iterator[None]:
    """Let somebody listen who does more than that."""
    signals.before_task_publish.connect(receiver)
    try:
        yield
    finally:
        signals.before_task_publish.disconnect(receiver)


@pytest.fixture
def sent() -> Iterator[list[str]]:
    """Names of the tasks of all messages that were sent."""
    names: list[str] = []

    def note(sender: str, **_: Any) -> None:
        names.append(sender)

    signals.after_task_publish.connect(note)
    yield names
    signals.after_task_publish.disconnect(note)


def test_a_tick_that_failed_is_taken_back_though_another_message_was_sent_meanwhile(
    app: Celery, sent: list[str]
) -> None:
    """
    An outbox or a tracer sends messages of its own when somebody publishes.

    That is no sign that beat's message was sent: its claim would hold the key for an hour.
    """

    def audit(sender: str, **_: Any) -> None:
        if sender == "work":
            app.send_task("audit")

    argument = BeatLazyFunc(lambda: "sendable" if "audit" in sent else object())
    once = {"key": "work"}
    beat = beat_of(app, {"schedule": OFTEN, "args": [argument], "once": once})
    with before_each_publish(audit):
        play(beat, until=lambda: "work" in sent)
    assert sent == ["audit", "audit", "work"]


class Once(schedule):  # type: ignore[misc]  # Celery has no types
    """A user's own schedule with one instant, and no next time after it."""

    def __init__(self, at: float) -> None:
        super().__init__(3600)
        self.at = at

    def is_due(self, last_run_at: datetime) -> Any:
        """Say whether and when, or never."""
        if last_run_at.timestamp() >= self.at:
            return schedstate(False, None)
        left = self.at - time.time()
        return schedstate(left <= 0, None if left <= 0 else left)


def test_beats_live_on_when_a_schedule_ends(
    app: Celery, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One of them passes over its last tick, and hears of no next one."""
    at = time.time() + 2  # so long a loaded machine may take for both of them
    one, other = (beat_of(app, {"schedule": Once(at)}) for _ in range(2))
    play(one, other, until=lambda: time.time() > at + 2 * OFTEN)
    assert sent == ["work"]
    assert not caplog.records


def test_a_beat_of_the_current_app_is_guarded(app: Celery, tmp_path: Path) -> None:
    """Who builds a beat by hand may give it `celery.current_app`, which is a proxy."""
    app.set_current()
    app.finalize()
    service = Service(current_app, schedule_filename=str(tmp_path / "schedule"))
    signals.beat_init.send(sender=service)
    assert isinstance(service.scheduler.apply_async, Hook)
    service.scheduler.close()


class WhileThereIsWork(schedule):  # type: ignore[misc]  # as above
    """A user's own schedule that stays due, and says when to ask again."""

    def is_due(self, last_run_at: datetime) -> Any:  # noqa: ARG002
        """There is always work."""
        return schedstate(True, OFTEN)


@pytest.mark.skipif(VERSION < (5, 7), reason="plain beat sends it again and again there")
def test_a_schedule_that_stays_due_is_sent_once_by_two_beats(
    app: Celery, sent: list[str]
) -> None:
    """A beat that finds its tick sent waits for as long as if it had sent it."""
    beats = [beat_of(app, {"schedule": WhileThereIsWork(3600)}) for _ in range(2)]
    began = time.monotonic()
    play(*beats, until=lambda: len(sent) == 5)
    assert time.monotonic() - began > 3.5 * OFTEN


class Gaps(schedule):  # type: ignore[misc]  # as above
    """A user's own schedule that is due after gaps of different lengths."""

    LENGTHS = (2 * OFTEN, 6 * OFTEN)

    def __init__(self, begin: float) -> None:
        super().__init__(3600)
        self.begin = begin

    def after(self, instant: float) -> float:
        """The next time when it is due."""
        due = self.begin
        for length in cycle(self.LENGTHS):
            due += length
            if due > instant:
                return due
        raise AssertionError

    def is_due(self, last_run_at: datetime) -> Any:
        """Name the next gap when it is due, and not the one before."""
        now, due = time.time(), self.after(last_run_at.timestamp())
        if due <= now:
            return schedstate(True, self.after(now) - now)
        return schedstate(False, due - now)


def test_a_tick_after_a_long_gap_is_not_late_because_the_next_gap_is_short(
    app: Celery, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Such a schedule does not tell since when it is due: beat was there all the time."""
    once = {"misfire_grace_time": OFTEN, "overlap_policy": "allow_all"}
    beat = beat_of(app, {"schedule": Gaps(time.time()), "once": once})
    play(beat, until=lambda: len(sent) == 4)
    assert not caplog.records


class ForEachTenant(Scheduler):  # type: ignore[misc]  # as above
    """What tenant-schemas-celery does: one tick, and a message for each tenant."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Log the id of whatever was sent, if anything was."""
        for _ in ("north", "south"):
            result = self.apply_async(entry, producer=producer, advance=False)
            logging.getLogger("tenants").debug("sent %s", result.id)


def test_a_scheduler_may_send_an_entry_once_for_each_tenant(
    app: Celery, sent: list[str]
) -> None:
    """The second is no duplicate of the first: each is a tick that two beats share."""
    one, other = (beat_of(app, {"schedule": 3600.0}, ForEachTenant) for _ in range(2))
    for beat in (one, other):
        next(iter(beat.schedule.values())).last_run_at -= timedelta(hours=2)
    one.tick()
    assert sent == ["work", "work"]
    other.tick()
    assert sent == ["work", "work"]


def rows_of(module: str) -> Any:
    """A module of sqlalchemy-celery-beat."""
    return pytest.importorskip(f"sqlalchemy_celery_beat.{module}")


def a_row_in(file: Path, app: Celery) -> tuple[Any, Any]:
    """Make a one-off row that is due; returns what opens a session, and the row's class."""
    models = rows_of("models")
    app.conf.beat_dburi = f"sqlite:///{file}"
    app.conf.beat_engine_options = {"connect_args": {"timeout": 0.1}}
    manager = rows_of("session").SessionManager()
    engine, make_session = manager.create_session(app.conf.beat_dburi)
    manager.prepare_models(engine)
    with make_session() as session:
        every = models.IntervalSchedule(every=1, period="hours")
        session.add(every)
        session.commit()
        past = datetime.now(timezone.utc) - timedelta(hours=2)
        row = {"name": "once", "task": "work", "one_off": True, "last_run_at": past}
        session.add(models.PeriodicTask(schedule_model=every, **row))
        session.commit()
    return make_session, models.PeriodicTask


def test_a_row_that_another_beat_has_run_meanwhile_is_not_sent(
    app: Celery, sent: list[str], tmp_path: Path
) -> None:
    """
    A beat that was stopped for longer than the interval finds no tick in its way.

    Nor has anybody told it to read its rows again: they are not changed by a run.
    """
    make_session, model = a_row_in(tmp_path / "rows.sqlite", app)
    beat = beat_of(app, {"schedule": 3600.0}, rows_of("schedulers").DatabaseScheduler)
    with make_session() as session, session.begin():
        session.execute(update(model).values(total_run_count=1))
    began = time.monotonic()
    play(beat, until=lambda: time.monotonic() > began + OFTEN)
    assert not sent
    with make_session() as session, session.begin():
        session.execute(update(model).values(total_run_count=0))
    late = beat_of(app, {"schedule": 3600.0}, rows_of("schedulers").DatabaseScheduler)
    play(late, until=lambda: sent)  # the tick was given back


def test_a_run_is_saved_when_the_database_is_back(
    app: Celery, sent: list[str], tmp_path: Path
) -> None:
    """And by us: sqlalchemy-celery-beat would save what it read since, which has not run."""
    file = tmp_path / "rows.sqlite"
    make_session, model = a_row_in(file, app)
    with closing(sqlite3.connect(file)) as other:

        def occupy(sender: str, **_: Any) -> None:
            if sender == "work":
                other.execute("BEGIN IMMEDIATE")

        with before_each_publish(occupy):
            beat = beat_of(app, {"schedule": 3600.0}, rows_of("schedulers").DatabaseScheduler)
            play(beat, until=lambda: "work" in sent)
    beat.close()
    with make_session() as session:
        found = session.query(model).filter_by(name="once").one()
        assert (found.enabled, found.total_run_count) == (True, 1)


def test_a_row_that_was_switched_off_meanwhile_is_left_as_it_is(
    app: Celery, sent: list[str], tmp_path: Path
) -> None:
    """
    Its message took long; another beat saw the tick taken, and has done with the row.

    "Off, and has run" would switch it off again as soon as somebody switches it on.
    """
    make_session, model = a_row_in(tmp_path / "rows.sqlite", app)

    def switch_off(sender: str, **_: Any) -> None:
        if sender == "work":
            with make_session() as session, session.begin():
                session.execute(update(model).values(enabled=False))

    with before_each_publish(switch_off):
        beat = beat_of(app, {"schedule": 3600.0}, rows_of("schedulers").DatabaseScheduler)
        play(beat, until=lambda: "work" in sent)
    beat.close()
    with make_session() as session:
        found = session.query(model).filter_by(name="once").one()
        assert (found.enabled, found.total_run_count) == (False, 0)
