"""A run knows when its tick was due, and what comes too late is missed."""

import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from typing import Any

import pytest

from tests.conftest import missing
from tests.harness.clock import preload, skewed
from tests.harness.pace import duplicates, usual_gap
from tests.harness.post import watched
from tests.harness.proxy import Proxy
from tests.harness.schedule import Entry, schedule_of
from tests.harness.site import SLACK, Site, redis_site
from tests.harness.waiting import eventually, stays


def entry(name: str, once: Any = True, **more: Any) -> Entry:
    """Make a tick each second with a short run."""
    return {"task": "work", "schedule": 1.0, "args": [name], "once": once, **more}


def signals(site: Site, signal: str) -> int:
    """How often the library said so."""
    return len(site.ledger.lines(signal))


def await_signals(site: Site, signal: str, times: int) -> None:
    """Wait until the library said so that often."""
    eventually(lambda: signals(site, signal) >= times, f"{signal} was sent {times} times")


def test_a_run_knows_when_its_tick_was_due_and_may_be_too_late(
    redis_binary: str, name: str
) -> None:
    """
    The time of the tick, not that of the run: the time spent in the queue counts.

    A run that would start too late is missed; the key is free for the next tick.
    """
    assert redis_binary
    once = {"misfire_grace_time": 0.5}
    schedule = {
        "tick": entry(name),
        "missed": entry("missed", once),
    }
    with redis_site(schedule=schedule) as site:
        before = time.time()
        beat = site.beat()
        late = beat.await_sent(1, "missed")
        known = beat.await_sent(1, name)
        beat.await_due("missed", 2)
        beat.await_due("tick", 2)  # the lateness that the run must not see
        await_signals(site, "once_overlap_skipped", 2)
        site.start()
        run = site.ledger.await_end(name)
        assert run.task_id == known.task_id
        assert before + 1 - 0.1 < float(run.start.fact("due")) < time.time() - 1
        await_signals(site, "once_missed", 1)
        beat.await_sent(2, "missed")
        assert site.ledger.await_end("missed").task_id != late.task_id
        assert site.ledger.lines("once_missed")[0].task_id == late.task_id


def test_jitter_and_a_tick_that_comes_too_late(redis_binary: str, name: str) -> None:
    """
    Jitter puts each tick off by a time of its own, and by no more than was said.

    A beat that was stopped for a while does not send what nobody needs any more.
    """
    assert redis_binary
    schedule = {
        "jitter": entry(name, {"jitter": 0.8}),
        "tick": entry("tick", {"misfire_grace_time": 0.4}),
    }
    with redis_site(schedule=schedule) as site:
        site.start()
        beat = site.beat()
        runs = [site.ledger.await_end(name, nth) for nth in (1, 2, 3, 4)]
        offset = time.time() - time.monotonic()
        delays = [run.start.at / 1e9 + offset - float(run.start.fact("due")) for run in runs]
        assert max(delays) - min(delays) > 0.05
        assert max(delays) < 0.8 + SLACK
        site.ledger.await_end("tick")
        beat.freeze()
        sent, missed = len(beat.sent("tick")), signals(site, "once_missed")
        time.sleep(2)  # so long beat is stopped
        beat.thaw()
        await_signals(site, "once_missed", missed + 1)
        assert len(beat.sent("tick")) == sent
        beat.await_sent(sent + 1, "tick")
        site.ledger.await_end("tick", sent + 1)


def full_minute(now: float) -> float:
    """When the next minute begins."""
    return now // 60 * 60 + 60


def sunrise(now: float) -> float:
    """When the sun rises next over the place in `SUN`."""
    schedule = schedule_of(SUN)
    instant = datetime.fromtimestamp(now, tz=timezone.utc)
    schedule.nowfun = lambda: instant
    return now + float(schedule.remaining_estimate(instant).total_seconds())


SUN = {"solar": {"event": "sunrise", "lat": 48.1, "lon": 11.6}}


MINUTE = {
    "crontab": {"crontab": {"minute": "*"}},
    "relative": {"seconds": 60, "relative": True},
}


@pytest.mark.parametrize(
    ("schedules", "following"),
    [(MINUTE, full_minute), ({"solar": SUN}, sunrise)],
    ids=["crontab-and-relative", "solar"],
)
def test_two_beats_send_a_scheduled_instant_once_and_its_run_knows_it(
    redis_binary: str, schedules: dict[str, Any], following: Callable[[float], float]
) -> None:
    """The scheduled instant, however much later beat woke up."""
    assert redis_binary
    library = preload() or missing("faketime")
    schedule = {each: entry(each, schedule=given) for each, given in schedules.items()}
    with redis_site(schedule=schedule) as site:
        site.start()
        # A clock for which the instant is near, so that nobody has to wait for it.
        now = time.time()
        instant = following(now)
        skew = instant - now - 12
        beats = [site.spawn_beat(environment=skewed(library, skew)) for _ in range(2)]
        for each in schedule:
            run = site.ledger.await_end(each)
            # As exactly as ephem knows it.
            assert abs(float(run.start.fact("due")) - instant) < 0.5
            assert abs(time.time() + skew - instant) < SLACK
            for beat in beats:
                beat.await_due(each, 1)
        once_each = dict.fromkeys(schedule, 1)
        stays(
            lambda: {x: len(site.ledger.lines("sent", x)) for x in schedule} == once_each,
            "each was sent once",
            during=1,
        )


def test_a_tick_in_time_is_not_missed_after_one_that_could_not_be_sent(
    redis_binary: str, name: str
) -> None:
    """
    The last tick that was sent is two intervals ago, which is no lateness of this one.

    Else a hiccup of the broker would cost a nightly job two nights.
    """
    assert redis_binary
    schedule = {"tick": entry(name, {"misfire_grace_time": 1.0}, schedule=EVERY)}
    with redis_site(schedule=schedule) as site, closing(Proxy(site.server.port)) as way:
        conf = {
            "broker_url": f"redis://127.0.0.1:{way.port}/0",
            "once_url": site.server.celery_socket_url,
            "task_publish_retry": False,
        }
        site.start()
        beat = site.beat(conf=conf)
        beat.await_sent(1, name)
        site.ledger.await_end(name)
        way.cut()
        beat.await_due("tick", 2)
        eventually(lambda: "Message Error" in beat.log(), "its message could not be sent")
        way.heal()
        beat.await_sent(2, name)
        site.ledger.await_end(name, 2)
        assert not signals(site, "once_missed")


EVERY = 3.0
"""Seconds between two ticks of an entry whose beat loses its broker in between."""


def test_a_schedule_of_ones_own_says_when_it_is_due(redis_binary: str, name: str) -> None:
    """Its class may say what it likes: two beats send each of its ticks, once."""
    assert redis_binary
    schedule = {"rush": entry(name, schedule={"rush_hour": 1.0}, task="plain")}
    with redis_site(schedule=schedule) as site, watched(site.server) as post:
        site.start()
        beats = [site.spawn_beat() for _ in range(2)]
        for beat in beats:
            beat.await_ready()
        post.await_letters(6)
        assert duplicates(post.letters(), 1.0) == 0
        assert usual_gap(post.letters()) < 1.5
        asked = sum(beat.due("rush") for beat in beats)
        assert asked < 4 * len(post.letters())
