"""RedBeat's scheduler with the hook around it, in this process: it keeps its entries itself."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from celery import Celery, signals
from celery.schedules import schedule

import onceguard
from onceguard.beat.hook import wrap
from tests.harness.redis_server import RedisServer

redbeat = pytest.importorskip("redbeat.schedulers")
rrule = pytest.importorskip("redbeat.schedules").rrule

OFTEN = 2.0
"""Seconds between two ticks."""


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[Celery]:
    """An app of RedBeat's, without RedBeat's own lock."""
    made = Celery("redbeat", broker=redis_server.celery_socket_url, set_as_current=False)
    entries = redis_server.celery_socket_url.replace("redis+socket", "unix")
    made.conf.update(
        redbeat_redis_url=f"{entries}?db=2", redbeat_redis_options={}, redbeat_lock_key=None
    )
    onceguard.setup(made)
    made.task(name="work", shared=False)(work)
    made.finalize()
    yield made
    made.close()


@pytest.fixture
def sent() -> Iterator[list[float]]:
    """When messages were sent."""
    times: list[float] = []

    def note(**_: Any) -> None:
        times.append(time.time())

    signals.after_task_publish.connect(note)
    yield times
    signals.after_task_publish.disconnect(note)


def work() -> None:
    """Never run: there is no worker."""


def entry_of(app: Celery, given: Any, *, once: bool = True) -> Any:
    """An entry; save it when it is as it should be."""
    headers = {"headers": {"once": True}} if once else {}
    return redbeat.RedBeatSchedulerEntry("tick", "work", given, app=app, options=headers)


def beat_of(app: Celery) -> Any:
    """A scheduler as beat starts it."""
    scheduler = redbeat.RedBeatScheduler(app)
    wrap(scheduler, app)
    return scheduler


def play(beat: Any, *, until: Callable[[], object]) -> None:
    """Let it tick."""
    deadline = time.monotonic() + 20
    while not until() and time.monotonic() < deadline:
        time.sleep(min(beat.tick(), 0.05))
    assert until()


def in_seconds(seconds: float) -> datetime:
    """An instant."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def test_an_entry_that_never_ran_is_sent_by_one_of_two_beats(
    app: Celery, sent: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """RedBeat has no time of its making for it, and takes it for due at once."""
    beats = [beat_of(app), beat_of(app)]
    new = entry_of(app, schedule(60, app=app))
    new.last_run_at = None
    new.save()
    loaded = [beat.schedule["tick"] for beat in beats]  # both, before either has sent it
    for beat, entry in zip(beats, loaded, strict=True):
        beat.maybe_due(entry, producer=beat.producer)
    assert len(sent) == 1
    assert not caplog.records


def test_a_reservation_that_fails_gives_its_tick_back(
    app: Celery, sent: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RedBeat asks again a second later, and must not hear that the tick was sent."""
    beat = beat_of(app)
    entry_of(app, schedule(OFTEN, app=app), once=False).save()
    play(beat, until=lambda: len(sent) == 1)
    reserve = redbeat.RedBeatSchedulerEntry._next_instance
    failed: list[float] = []

    def away_once(entry: Any, **options: Any) -> Any:
        if not failed:
            failed.append(time.time())
            raise redis.ConnectionError
        return reserve(entry, **options)

    monkeypatch.setattr(redbeat.RedBeatSchedulerEntry, "_next_instance", away_once)
    monkeypatch.setattr(redbeat.RedBeatSchedulerEntry, "__next__", away_once)
    play(beat, until=lambda: len(sent) == 2)
    assert sent[1] - failed[0] < OFTEN / 2


def test_a_last_firing_that_is_skipped_is_tried_again(
    app: Celery, sent: list[float], redis_server: RedisServer
) -> None:
    """As a clocked row: no other follows in which its call could run."""
    beat = beat_of(app)
    twice = rrule("SECONDLY", interval=1, count=2, dtstart=in_seconds(1), app=app)
    entry_of(app, twice).save()
    play(beat, until=lambda: len(sent) == 1)
    time.sleep(1.5)
    beat.tick()
    assert len(sent) == 1, "no worker runs the first"
    with redis_server.client() as client:
        for lock in client.scan_iter("once1:*:lock:*"):
            client.delete(lock)
    play(beat, until=lambda: len(sent) == 2)
