"""Celery's own scheduler with the hook around it, in this process: no server is needed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery import Celery, signals
from celery.beat import BeatLazyFunc, Scheduler
from celery.schedules import schedstate, schedule

import onceguard
from onceguard.beat.hook import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

pytest.importorskip("fakeredis")

OFTEN = 0.2
"""Seconds between two ticks."""


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose broker and lock server are in memory."""
    made = Celery("hook", broker="memory://", set_as_current=False)
    made.conf.update(once_url=f"memory://{uuid4()}", task_publish_retry=False)
    onceguard.setup(made)
    yield made
    made.close()


def beat_of(app: Celery, entry: dict[str, Any]) -> Any:
    """A scheduler of one entry, as beat starts it."""
    app.conf.beat_schedule = {"tick": {"task": "work", **entry}}
    app.finalize()
    scheduler = Scheduler(app=app)
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

    unsendable = [object()]
    argument = BeatLazyFunc(lambda: unsendable.pop() if unsendable else "sendable")
    once = {"key": "work"}
    beat = beat_of(app, {"schedule": OFTEN, "args": [argument], "once": once})
    signals.before_task_publish.connect(audit)
    try:
        play(beat, until=lambda: "work" in sent)
    finally:
        signals.before_task_publish.disconnect(audit)
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
    at = time.time() + OFTEN
    one, other = (beat_of(app, {"schedule": Once(at)}) for _ in range(2))
    play(one, other, until=lambda: time.time() > at + 2 * OFTEN)
    assert sent == ["work"]
    assert not caplog.records
