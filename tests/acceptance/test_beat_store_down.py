"""With the lock server away beat goes on as configured, in time, and says so once."""

import itertools
import re
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.harness.beat import Beat
from tests.harness.pace import duplicates
from tests.harness.pace import gaps as gaps_between
from tests.harness.post import Letter
from tests.harness.proxy import Proxy
from tests.harness.redis_server import RedisServer
from tests.harness.schedule import Entry
from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually, stays

EVERY = 0.4
"""Seconds between two ticks."""

TIMEOUT = 0.5
"""`once_socket_timeout` of these sites, in seconds."""

SLACK = 1.0
"""Seconds that a loaded machine may delay a tick by."""

TICKS = 15
"""Of an entry, while the lock server is away: beat asks it again after five seconds."""

Break = Callable[[RedisServer], Callable[[], object]]


def stopped(store: RedisServer) -> Callable[[], object]:
    """Connections are refused; it comes back empty."""
    store.stop()
    return store.start


def hung(store: RedisServer) -> Callable[[], object]:
    """Connections are taken and nothing is answered; it comes back with its data."""
    store.pause()
    return store.resume


BREAKS = pytest.mark.parametrize("trouble", [stopped, hung])
SETTINGS = ("send", "skip")


@pytest.fixture
def apart(own_redis_server: RedisServer) -> Iterator[Site]:
    """A site with a store of its own, apart from the broker."""
    conf = {"once_url": own_redis_server.url, "once_socket_timeout": TIMEOUT}
    schedule = entries("any")
    with redis_site(conf=conf, base="Task", install="setup", schedule=schedule) as site:
        yield site


def entries(label: str) -> dict[str, Entry]:
    """One entry that is guarded, and one that is only claimed, as every entry is."""
    return {
        name: {"task": "plain", "schedule": EVERY, "args": [name], **once}
        for name, once in ((guarded(label), {"once": True}), (f"bare-{label}", {}))
    }


def guarded(label: str) -> str:
    """Name of the entry that is."""
    return f"guarded-{label}"


def spawn(site: Site, setting: str, label: str) -> Beat:
    """Start a beat of that setting, with entries of its own."""
    conf = {"once_beat_on_store_unavailable": setting}
    return site.spawn_beat(conf=conf, schedule=entries(label))


def said(beat: Beat, level: str, about: str = "lock server") -> list[str]:
    """Lines of one level in beat's log that say something about the lock server."""
    found: list[str] = re.findall(rf"^\[[^]]*: {level}/[^]]*\] .*$", beat.log(), re.MULTILINE)
    return [line for line in found if about in line.lower()]


def gaps(beat: Beat, name: str) -> list[float]:
    """Seconds between ticks of an entry that became due, sent or not."""
    return [later - earlier for earlier, later in itertools.pairwise(beat.due_at(name))]


def assert_goes_on(beats: dict[str, Beat]) -> None:
    """
    Check that ticks stay due in time, and are sent or not as configured.

    One ERROR when the lock server goes: nobody reads the hundredth.
    """
    for beat in beats.values():
        eventually(partial(said, beat, "ERROR"), "beat said that the lock server is away")
    sent = {setting: len(beat.sent()) for setting, beat in beats.items()}
    due = {setting: beat.due(guarded(setting)) for setting, beat in beats.items()}
    began = time.monotonic()
    for setting, beat in beats.items():
        # Long enough for beat to ask again, which must not be said again.
        beat.await_due(guarded(setting), due[setting] + TICKS)
        assert time.monotonic() - began < TICKS * EVERY + TIMEOUT + SLACK
    beats["send"].await_sent(sent["send"] + TICKS)
    assert len(beats["skip"].sent()) == sent["skip"]
    for beat in beats.values():
        lines = beat.ledger.lines("once_store_unavailable")
        assert any(line.pid == beat.pid for line in lines)
        assert len(said(beat, "ERROR", "")) == 1


def assert_is_back(beats: dict[str, Beat]) -> None:
    """Check that ticks are claimed again, and that beat says so in one line."""
    for beat in beats.values():
        eventually(partial(says_that_it_is_back, beat), "beat said that it is back")
    for setting, beat in beats.items():
        for name in entries(setting):
            beat.await_sent(len(beat.sent(name)) + 2, name)
            assert max(gaps(beat, name)) < EVERY + TIMEOUT + SLACK
        assert len(said(beat, "(?:WARNING|INFO)", "answers again")) == 1
        assert len(said(beat, "ERROR", "")) == 1
        assert "Traceback" not in beat.log()


def assert_ends_when_told(beat: Beat, name: str) -> None:
    """A deployment must not wait, nor kill beat before its schedule is stored."""
    beat.await_due(name, beat.due(name) + 1)
    began = time.monotonic()
    beat.stop()
    assert time.monotonic() - began < 2 * TIMEOUT + 2 * SLACK


def assert_started(beats: dict[str, Beat]) -> None:
    """A host that boots before its store does must not need a hand."""
    for setting, beat in beats.items():
        beat.await_ready()
        began = time.monotonic()
        beat.await_due(guarded(f"late-{setting}"), 3)
        assert time.monotonic() - began < 3 * EVERY + 2 * TIMEOUT + 2 * SLACK
        assert len(said(beat, "ERROR", "")) == 1
    assert beats["send"].sent()
    assert not beats["skip"].sent()


def says_that_it_is_back(beat: Beat) -> bool:
    """Whether the lock server answers again."""
    return "answers again" in beat.log()


@BREAKS
def test_beat_goes_on_ends_and_starts_without_the_lock_server(
    apart: Site, own_redis_server: RedisServer, trouble: Break
) -> None:
    """
    The lock server goes away twice: from beats that run, one of which is told to end.

    Two others start before it is back. Of each two, one sends meanwhile and one skips.
    """
    apart.start(pool="threads")
    running = {setting: spawn(apart, setting, setting) for setting in SETTINGS}
    for setting, beat in running.items():
        for name in entries(setting):
            beat.await_sent(2, name)
    heal = trouble(own_redis_server)
    assert_goes_on(running)
    heal()
    assert_is_back(running)

    heal = trouble(own_redis_server)
    assert_ends_when_told(running["send"], guarded("send"))
    late = {setting: spawn(apart, setting, f"late-{setting}") for setting in SETTINGS}
    assert_started(late)
    heal()
    for setting, beat in late.items():
        eventually(partial(says_that_it_is_back, beat), "beat said that it is back")
        bare = f"bare-late-{setting}"
        beat.await_sent(len(beat.sent(bare)) + 2, bare)


def test_two_beats_share_ticks_again_when_a_store_that_forgot_everything_is_back(
    apart: Site, own_redis_server: RedisServer
) -> None:
    """A flushed store must not make every beat send for itself from then on."""
    beats = [apart.spawn_beat(), apart.spawn_beat()]
    for beat in beats:
        beat.await_ready()
    eventually(
        lambda: len(apart.ledger.lines("sent", "bare-any")) >= 3, "three ticks were sent"
    )
    own_redis_server.flush()
    after = time.monotonic_ns() + int(EVERY * 1e9)
    stays(lambda: all(beat.alive for beat in beats), "both beats lived", during=6 * EVERY)
    sent = [line for line in apart.ledger.lines("sent", "bare-any") if line.at > after]
    assert len(sent) >= 4
    letters = [
        Letter(at=x.at / 1e9, sender=x.pid, task_id=x.task_id, args=[], headers={})
        for x in sent
    ]
    assert duplicates(letters, EVERY) == 0
    # Two messages for each tick would halve it; the first of these may have come late.
    assert statistics.mean(gaps_between(letters)) > EVERY * 0.7


def test_a_publish_that_fails_gives_its_tick_back(redis_binary: str, name: str) -> None:
    """
    One beat's way to the broker is cut: slot and claim are rolled back.

    Else the tick would be lost for the other beat too, and its key would be blocked.
    """
    assert redis_binary
    every = 4.0
    schedule = {
        "tick": {"task": "plain", "schedule": every, "args": [name], "once": True},
        "first": {"task": "plain", "schedule": 0.5, "args": ["first"]},
    }
    with redis_site(base="Task", install="setup", schedule=schedule) as site:
        proxy = Proxy(site.server.port)
        once_url = {"once_url": site.server.url, "task_publish_retry": False}
        # Side by side: a beat that starts late finds the tick due at once.
        good = site.spawn_beat(conf=once_url | {"broker_url": site.server.url})
        through = {"broker_url": f"redis://127.0.0.1:{proxy.port}/0"}
        bad = site.spawn_beat(conf=once_url | through)
        good.await_ready()
        good.freeze()
        bad.await_sent(1, "first")  # once it is connected, beat does not wait for the broker
        proxy.cut()
        bad.await_due("tick", 1)
        eventually(lambda: "scheduled task tick" in bad.log(), "the tick could not be sent")
        bad.kill()
        good.thaw()
        thawed = time.monotonic()
        good.await_sent(1, name)
        assert time.monotonic() - thawed < every / 2
        assert not bad.sent(name)
        proxy.close()
