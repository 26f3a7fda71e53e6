"""G8: n beats send each tick once, with any n-1 of them killed or stopped at any time."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

import pytest

from tests.conftest import missing
from tests.harness.beat import Beat
from tests.harness.clock import preload, skewed
from tests.harness.clockwork import SetClock
from tests.harness.crowd import RIGHT, Clock, crowd_of
from tests.harness.pace import duplicates, usual_gap, worst_gap
from tests.harness.post import Letter, Post, watched
from tests.harness.proxy import Proxy
from tests.harness.schedule import Entry
from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually

EVERY: Final = 1.0
"""Seconds between two ticks of an interval."""

LATE: Final = 0.8
"""Share of an interval that a loaded machine may add to one; a lost tick adds all of it."""

SKEWS: Final = (0, 3, -2)
"""By how many seconds the clocks of three beats are wrong."""

ENTRIES: Final[dict[str, Entry]] = {
    "bare": {"task": "plain", "args": ["bare"]},
    "guarded": {"task": "work", "args": ["guarded"], "once": True},
}
"""Without `once` ticks are claimed too; with it the key is, which a worker has to free."""

EITHER = pytest.mark.parametrize("name", ENTRIES)


@pytest.fixture(scope="module")
def library() -> str:
    """Path of libfaketime, for clocks that are wrong."""
    return preload() or missing("faketime")


@pytest.fixture(params=["right", "wrong"])
def clocks(request: pytest.FixtureRequest) -> Sequence[Clock]:
    """Clocks of three beats that agree, and clocks that do not."""
    if request.param == "right":
        return RIGHT
    return [skewed(request.getfixturevalue("library"), each) for each in SKEWS]


@contextlib.contextmanager
def office(name: str, schedule: Any = EVERY, **conf: Any) -> Iterator[tuple[Site, Post]]:
    """A site with one entry, with what comes into its queue, and with a worker."""
    entries = {name: ENTRIES[name] | {"schedule": schedule}}
    with (
        redis_site(schedule=entries, install="setup", conf=conf) as site,
        watched(site.server) as post,
    ):
        if name == "guarded":
            site.spawn(concurrency=1)
        yield site, post


def assert_each_tick_once(post: Post) -> None:
    """
    Check that a tick was claimed in each interval, and a message sent for each, and no other.

    On a loaded machine a tick comes later than it was due, and the next is counted from
    there: 1.12 intervals were seen with Django's scheduler, which also writes its row.
    Ticks that are lost again and again would add a whole interval to the usual gap.
    """
    letters, claims = post.letters(), post.claims()
    assert len(letters) <= len(claims)
    assert min(after - before for before, after in pairwise(claims)) > EVERY - EVERY / 20
    assert worst_gap(letters) < EVERY + LATE * EVERY
    assert usual_gap(letters) < EVERY + EVERY / 4


@EITHER
def test_killing_whoever_sent_last_neither_doubles_nor_loses_a_tick(
    redis_binary: str, name: str, clocks: Sequence[Clock]
) -> None:
    """
    A leader would have to be missed first; here the others ask at the next tick as ever.

    The killed ones come back while the rest go on, on an empty disk, where they know of
    no tick, and on an old one, by which many are overdue.
    """
    assert redis_binary
    with office(name) as (site, post), crowd_of(site, post, clocks) as crowd:
        crowd.kill_senders(6)
        post.await_next()
        assert len({letter.sender for letter in post.letters()}) >= 4
        assert_each_tick_once(post)


RARELY: Final = 3.0
"""Seconds between two ticks of a job whose beat does not live that long."""


def test_beats_that_never_live_for_an_interval_send_its_ticks(redis_binary: str) -> None:
    """
    Deployed more often than a job is due, plain beat never sends it: each begins to count.

    A guarded one goes on from the last tick, though the disk is empty each time. A tick
    that falls due while a beat starts, which takes its time on a loaded machine, comes then.
    """
    assert redis_binary
    with office("bare", RARELY) as (site, post):
        beat = site.beat()
        post.await_letters(1)
        ends, slowest = time.monotonic() + 10 * RARELY, 0.0
        while len(post.letters()) < 3 and time.monotonic() < ends:
            idle = partial(stopped_idle, beat, site, post)
            eventually(idle, "what was claimed was sent")
            beat.kill_main()
            began = time.monotonic()
            beat = site.beat()
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(RARELY / 4)
        assert duplicates(post.letters(), RARELY) == 0
        assert len(post.letters()) >= 3
        assert worst_gap(post.letters()) < RARELY + LATE * RARELY + slowest


def stopped_idle(beat: Beat, site: Site, post: Post) -> bool:
    """Stop a beat, unless it has a tick in hand: that would be lost with it."""
    beat.freeze()
    if nothing_in_hand(site, post):
        return True
    beat.thaw()
    return False


def nothing_in_hand(site: Site, post: Post) -> bool:
    """Whether the last tick that was claimed has been sent."""
    return last_claim(site) - post.letters()[-1].at < RARELY / 2


def last_claim(site: Site) -> float:
    """Tell when a beat last claimed a tick, whichever, by the server's clock."""
    with site.server.client() as client:
        (state,) = client.keys("once1:*:tick:*")
        return int(str(client.get(state)).split(" ")[1]) / 1000


def no_lock(scheduler: str) -> dict[str, Any]:
    """RedBeat lets one beat work at a time, unless it is told not to."""
    return {"redbeat_lock_key": None} if scheduler == "redbeat" else {}


@pytest.mark.parametrize("scheduler", ["django", "sqlalchemy", "redbeat"])
def test_every_scheduler_survives_the_death_of_senders(
    redis_binary: str, scheduler: str
) -> None:
    """Each sends, and takes over what another has sent, in a way of its own."""
    assert redis_binary
    with redis_site(install="setup") as site, watched(site.server) as post:
        site.add_row(scheduler, "tick", ENTRIES["bare"] | {"schedule": EVERY})
        conf = no_lock(scheduler)
        with crowd_of(site, post, scheduler=scheduler, conf=conf) as crowd:
            crowd.kill_senders(4)
            post.await_next()
        assert_each_tick_once(post)


def test_plain_beats_send_duplicates_in_the_same_run(redis_binary: str) -> None:
    """Or the test above would be green without the library."""
    assert redis_binary
    with office("bare") as (site, post), crowd_of(site, post, guarded=False) as crowd:
        crowd.kill_senders(2)
        post.await_letters(len(post.letters()) + 6)
        assert duplicates(post.letters(), EVERY) > 2


@EITHER
def test_a_stopped_sender_sends_nothing_twice_when_it_goes_on(
    redis_binary: str, name: str
) -> None:
    """It finds itself overdue, by its own clock and by its own memory."""
    assert redis_binary
    with office(name) as (site, post), crowd_of(site, post) as crowd:
        for _ in range(2):
            stopped = crowd.await_sender()
            stopped.freeze()
            due = stopped.due(name)
            post.await_letters(len(post.letters()) + 2)
            stopped.thaw()
            stopped.await_due(name, due + 1)
        post.await_next()
        assert_each_tick_once(post)


MINUTES_SKEWS: Final = (0, 1, -1)
"""As SKEWS, but less, for the test has to wait for the one that lives."""


class Minutes:
    """
    Real crontab minutes, without the wait: clocks are set to shortly before each.

    The beats' clocks differ, so one comes to a minute seconds before another does, or
    the other does not come to it before it is over.
    """

    def __init__(self, site: Site, library: str) -> None:
        files = [site.directory / f"clock{number}" for number in range(len(MINUTES_SKEWS))]
        self._clocks = [SetClock(library, file) for file in files]
        self.begin = self._minute = time.time() // 60 * 60
        self.environments = [each.environment for each in self._clocks]
        self._set(30)

    def advance(self) -> None:
        """Go to shortly before the next minute, by the clock that is ahead."""
        self._minute += 60
        self._set(-max(MINUTES_SKEWS) - 0.3)

    def number_of(self, letter: Letter, clock: Clock) -> int:
        """Tell which minute it was by the sender's clock, counted from the beginning."""
        mine = self._clocks[self.environments.index(clock)]
        return int((mine.at(letter.at) - self.begin) // 60)

    def _set(self, seconds: float) -> None:
        for clock, skew in zip(self._clocks, MINUTES_SKEWS, strict=True):
            clock.set(self._minute + seconds + skew)


@EITHER
def test_each_minute_of_a_crontab_is_sent_once_while_senders_die_and_stop(
    redis_binary: str, name: str, library: str
) -> None:
    """
    A minute is one and the same for beats whose clocks come to it at different times.

    Whoever is late, has just started or was stopped finds that it has been sent.
    """
    assert redis_binary
    with office(name, {"crontab": {}}, beat_max_loop_interval=0.2) as (site, post):
        minutes = Minutes(site, library)
        with crowd_of(site, post, minutes.environments) as crowd:

            def next_sender() -> Beat:
                seen = len(post.letters())
                minutes.advance()
                beat = crowd.sender_of(post.await_letters(seen + 1)[seen])
                assert beat is not None
                return beat

            for _ in range(2):  # of four minutes
                for _ in range(2):
                    crowd.kill(next_sender())
                crowd.await_ready()
                stopped = next_sender()
                stopped.freeze()
                next_sender()
                stopped.thaw()
            next_sender()
            sent = [minutes.number_of(each, crowd.clock_of(each)) for each in post.letters()]
            assert sent == list(range(1, 10))
            if name == "guarded":
                due = [(each.due_at - minutes.begin) / 60 for each in post.letters()]
                assert due == sent


HELD: Final = 1.5
"""Seconds between two ticks where a beat dies with one in its hand."""


@contextlib.contextmanager
def two_with_proxies(name: str) -> Iterator[tuple[Site, Post, list[Beat], list[Proxy]]]:
    """Two beats, each with a way of its own to the broker, and a common one to the store."""
    with office(name, HELD) as (site, post):
        proxies = [Proxy(site.server.port), Proxy(site.server.port)]
        store = site.server.celery_socket_url
        ways = [f"redis://127.0.0.1:{proxy.port}/0" for proxy in proxies]
        beats = [site.spawn_beat(conf={"broker_url": way, "once_url": store}) for way in ways]
        for beat in beats:
            beat.await_ready()
        yield site, post, beats, proxies
        for program, proxy in zip(beats, proxies, strict=True):
            program.close()
            proxy.close()


@EITHER
def test_a_beat_that_dies_between_claim_and_publish_takes_one_tick_with_it(
    redis_binary: str, name: str
) -> None:
    """
    At most once: nobody can know whether the dead one's message was sent.

    Its claim of the key, which no worker will ever free, must not outlive the tick.
    """
    assert redis_binary
    with two_with_proxies(name) as (site, post, [doomed, other], [way, _]):
        post.await_letters(1)
        time.sleep(HELD / 5)  # in between two ticks neither has one in its hand
        other.freeze()
        sent = post.await_letters(2)
        assert sent[-1].sender == doomed.pid
        time.sleep(HELD / 5)
        way.hang()
        claimed = last_claim(site)
        eventually(lambda: last_claim(site) != claimed, "the next tick was claimed")
        lost = last_claim(site)
        doomed.kill_main()
        other.thaw()
        following = post.await_letters(len(sent) + 2)[len(sent) :]
        assert {each.sender for each in following} == {other.pid}
        assert HELD - 0.1 < following[0].at - lost < HELD + LATE * HELD
        assert HELD - 0.1 < following[1].at - following[0].at < HELD + LATE * HELD
