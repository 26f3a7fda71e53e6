"""`once=True` holds wherever it is written, with every scheduler, alone and in a worker."""

import itertools
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pytest

from tests.harness.beat import Beat
from tests.harness.ledger import Line, Run
from tests.harness.schedule import PLACES, Entry
from tests.harness.schedulers import SCHEDULERS, STORES
from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually

pytestmark = pytest.mark.oldest

BARE: Final = "bare"
"""An entry without `once`, which shows that beat ticks while the others are held."""


def entry(name: str, **more: Any) -> Entry:
    """Make a tick each second whose run takes until the test opens the gate."""
    return {"task": "plain_held", "schedule": 1.0, "args": [name], **more}


@pytest.fixture(scope="module")
def shared(redis_binary: str) -> Iterator[Site]:
    """
    A site whose one worker runs what the beats of all schedulers send, one after the other.

    Its tasks are guarded by their entries only: the class would guard every entry.
    """
    assert redis_binary
    with redis_site(base="Task", install="setup") as site:
        site.start(pool="threads", concurrency=40)
        yield site


class Entries:
    """Entries for each place where `once` may be written, in a scheduler's configuration."""

    def __init__(self, site: Site, scheduler: str) -> None:
        self.site, self.scheduler = site, scheduler
        self.schedule: dict[str, Entry] = {}
        self.names: list[str] = []
        self.objects: list[str] = []

    def add(self, label: str) -> None:
        """Add an entry for each place, and a row where the scheduler has a store."""
        for place in PLACES:
            name = f"{self.scheduler}-{label}-{place}"
            self.schedule[name] = entry(name, once=True, place=place)
            self.names.append(name)
        if self.scheduler in STORES:
            row = f"{self.scheduler}-{label}-row"
            self.site.add_row(self.scheduler, row, entry(row, once=True))
            self.names.append(row)

    def add_objects(self) -> None:
        """Add entries with an `Once` object, which could not be read without the library."""
        for place in PLACES:
            name = f"{self.scheduler}-object-{place}"
            once = {"Once": {"overlap_policy": "buffer_one"}}
            self.schedule[name] = entry(name, task="plain", once=once, place=place)
            self.objects.append(name)

    def beat(self, phase: str, **options: Any) -> Beat:
        """Start a beat with these entries, and with a bare one whose runs tell the phase."""
        bare = {BARE: entry(self.bare(phase))}
        return self.site.beat(
            scheduler=self.scheduler, schedule=self.schedule | bare, **options
        )

    def bare(self, phase: str) -> str:
        """Under which name the ledger knows the bare entry."""
        return f"{self.scheduler}-{BARE}-{phase}"

    def close(self) -> None:
        """Let all runs end."""
        for name in [*self.names, *map(self.bare, ("alone", "plain", "in-a-worker"))]:
            self.site.open_gate(name)


@contextmanager
def entries_of(site: Site, scheduler: str) -> Iterator[Entries]:
    """Leave the site to the next scheduler as it was."""
    entries = Entries(site, scheduler)
    try:
        yield entries
    finally:
        print(site.story())
        entries.close()
        for beat in site.beats:
            beat.close()
        site.beats.clear()
        with site.server.client() as client:  # what a killed `worker -B` had taken
            client.delete("unacked", "unacked_index")


def runs_since(site: Site, began: int, name: str) -> list[Run]:
    """Runs of that name in this phase of the test."""
    return [run for run in site.ledger.runs(name) if run.start.at > began]


def await_run(site: Site, began: int, name: str, nth: int) -> None:
    """Wait until a body of that name began for the nth time in this phase."""
    what = f"{name} began {nth} times"
    eventually(lambda: len(runs_since(site, began, name)) >= nth, what)


def overlap(runs: Sequence[Run]) -> bool:
    """Whether any of these runs, in the order of their begins, met the next one."""
    return any(one.end > other.start.at for one, other in itertools.pairwise(runs))


def assert_one_run_at_a_time(entries: Entries, beat: Beat, phase: str, began: int) -> None:
    """
    Check that ticks are not sent while the last run goes on, and that the next one is.

    The bare entry in the same schedule overlaps meanwhile, so it is not beat's fault.
    """
    site, names, bare = entries.site, entries.names, entries.bare(phase)
    for name in names:
        await_run(site, began, name, 1)
    beat.await_sent(4, bare)
    for name in names:
        beat.await_due(name, 3)
    assert {name: len(beat.sent(name)) for name in names} == dict.fromkeys(names, 1)
    assert overlap(runs_since(site, began, bare))
    for name in (*names, bare):
        site.open_gate(name)
    for name in names:
        await_run(site, began, name, 2)
        assert not overlap(runs_since(site, began, name))
    assert "Traceback" not in beat.log()


def assert_skipped_ticks_do_not_count_as_runs(entries: Entries, beat: Beat) -> None:
    """Check what whoever reads the store's count reads: how often the task was sent."""
    site = entries.site
    for row in set(entries.names) - set(entries.schedule):
        store = site.rows(entries.scheduler)
        sent = len(beat.sent(row))
        assert beat.due(row) >= sent + 2
        assert store.total_run_count(site.settings["conf"], row) == sent


def assert_goes_on_without_the_library(entries: Entries, beat: Beat) -> None:
    """
    Check that nothing of ours is in a scheduler's store: uninstalling needs no clean-up.

    An `Once` object, for instance, could not be read back from the schedule file.
    """
    for name in (*entries.names, *entries.objects):
        beat.await_sent(2, name)
    for word in ("Traceback", "ERROR", "corrupted", "Reset"):
        assert word not in beat.log()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_one_run_at_a_time_wherever_once_is_written(shared: Site, scheduler: str) -> None:
    """
    In a beat alone and in `worker -B`, after a plain beat too, and plain ones go on after.

    Three beats follow each other on one store: with the library, without, and with it
    again, for neither installing nor uninstalling must need a clean-up. The plain one
    leaves entries behind that no beat with the library has seen.
    """
    site = shared
    with entries_of(site, scheduler) as entries:
        entries.add("first")
        entries.add_objects()
        began = time.monotonic_ns()
        alone = entries.beat("alone")
        assert_one_run_at_a_time(entries, alone, "alone", began)
        for name in entries.objects:
            alone.await_sent(1, name)
        alone.stop()
        assert_skipped_ticks_do_not_count_as_runs(entries, alone)

        entries.add("second")
        entries.close()
        plain = entries.beat("plain", guarded=False, store=alone.store)
        assert_goes_on_without_the_library(entries, plain)
        plain.stop()

        site.await_drained()
        for name in entries.names:
            site.shut_gate(name)
        site.shut_gate(entries.bare("in-a-worker"))
        many: dict[str, Any] = {"pool": "threads", "concurrency": 20}
        began = time.monotonic_ns()
        embedded = entries.beat("in-a-worker", embedded=True, store=alone.store, **many)
        assert_one_run_at_a_time(entries, embedded, "in-a-worker", began)


OFTEN: Final = 0.4
"""Seconds between two ticks where no scheduler needs whole ones."""


def assert_guarded(site: Site, beats: dict[str, Beat]) -> None:
    """Check that of these entries, each of that beat, one run at a time is sent."""
    for name, beat in beats.items():
        site.ledger.await_begin(name)
        beat.await_sent(4, BARE)
        assert len(beat.sent(name)) == 1
    for name in beats:
        site.open_gate(name)
    for name in beats:
        site.ledger.await_begin(name, 2)
        assert not site.ledger.overlaps(name)


def test_every_kind_of_task(redis_binary: str) -> None:
    """
    Beats often run without the tasks' code; an entry of a guarded task need not say `once`.

    `once: False` is the way out for one such entry. That of a task of Celery's own class
    in a beat which knows it is in the test above.
    """
    assert redis_binary
    bare = entry(BARE, schedule=OFTEN)
    guarded_by_class = {
        "bare-here": bare,
        "by-class": entry("by-class", task="held", schedule=OFTEN),
        "off": entry("off", task="held", schedule=OFTEN, once=False),
    }
    unknown_here = {
        "bare-there": bare,
        "plain": entry("plain", schedule=OFTEN, once=True),
        "guarded": entry("guarded", task="held", schedule=OFTEN, once=True),
    }
    with redis_site() as site:
        site.spawn(pool="threads", concurrency=60)
        known = site.spawn_beat(schedule=guarded_by_class)
        unknown = site.spawn_beat(schedule=unknown_here, declares=False, install="setup")
        assert_guarded(site, {"by-class": known, "plain": unknown, "guarded": unknown})
        site.ledger.await_begin("off", 2)
        assert site.ledger.overlaps("off")


def test_installed_by_import_and_nothing_else(redis_binary: str, name: str) -> None:
    """`imports = ("onceguard.auto",)`: projects without base=QueueOnce need no more."""
    assert redis_binary
    schedule = {"tick": entry(name, schedule=OFTEN, once=True)}
    schedule[BARE] = entry(BARE, schedule=OFTEN)
    with redis_site(base="Task", install="auto", schedule=schedule) as site:
        site.spawn(pool="threads", concurrency=20)
        assert_guarded(site, {name: site.spawn_beat(declares=False)})


def test_once_enabled_false_leaves_beat_as_it_is(redis_binary: str, name: str) -> None:
    """The switch for an application's tests holds for beat too."""
    assert redis_binary
    schedule = {"tick": entry(name, task="held", schedule=0.3, once=True)}
    with redis_site(schedule=schedule, conf={"once_enabled": False}) as site:
        site.beat().await_sent(4, name)
        eventually(lambda: site.broker.waiting() >= 4, "all of them lay there")


def names(beat: Beat, mistake: str) -> bool:
    """Whether that beat said what is wrong."""
    return mistake in beat.log()


def test_a_wrong_option_in_an_entry_is_said_and_does_not_stop_beat(
    redis_binary: str, name: str
) -> None:
    """An entry or a row that somebody mistyped must not take the others with it."""
    assert redis_binary
    mistakes = {"configuration": "overlap_polcy", "row": "lease_tll"}
    wrong = {where: entry(where, once={mistake: "skip"}) for where, mistake in mistakes.items()}
    schedule = {"right": entry(name, once=True), "configuration": wrong["configuration"]}
    with redis_site(base="Task", install="setup", schedule=schedule) as site:
        site.add_row("sqlalchemy", "row", wrong["row"])
        beat = site.beat(scheduler="sqlalchemy")
        beat.await_sent(1, name)
        for where, mistake in mistakes.items():
            beat.await_sent(1, where)
            named = partial(names, beat, mistake)
            eventually(named, "the mistake was named", timeout=5)
            beat.await_due(where, 3)
            assert len(beat.sent(where)) == 1
        assert beat.alive


CLEANUP: Final = "celery.backend_cleanup"
"""Every app has an entry of this name."""


EVERY: Final = 0.5
"""Seconds between two ticks of the entry that several apps have."""


def messages_for_each_tick(sent: Sequence[Line], *beats: Beat) -> float:
    """Count what these beats sent together in the time of a tick."""
    names = {beat.name for beat in beats}
    theirs = [line for line in sent if line.fact("beat") in names]
    return (len(theirs) - 1) * EVERY / (theirs[-1].at - theirs[0].at) * 1e9


def test_beats_share_the_ticks_of_their_app_and_of_no_other(redis_binary: str) -> None:
    """
    Entries of one name in two apps are not one entry: each app's beats send its own.

    Apps that share a Redis differ by name, by queue or by prefix. Two beats in which
    nothing differs send each tick once.
    """
    assert redis_binary
    schedule = {CLEANUP: entry(BARE, schedule=EVERY)}
    others: dict[str, dict[str, Any]] = {
        "name": {"main": "other"},
        "queue": {"conf": {"task_default_queue": "other"}},
        "prefix": {"conf": {"once_prefix": "other"}},
    }
    with redis_site(base="Task", install="setup", schedule=schedule) as site:
        same = [site.spawn_beat(), site.spawn_beat()]
        different = {what: site.spawn_beat(**options) for what, options in others.items()}
        beats = [*same, *different.values()]
        for beat in beats:
            beat.await_ready()
        for beat in beats:
            beat.await_due(CLEANUP, 1)
        before = len(site.ledger.lines("sent"))
        enough = {beat: beat.due(CLEANUP) + 8 for beat in beats}
        for beat, due in enough.items():
            beat.await_due(CLEANUP, due)
        sent = site.ledger.lines("sent")[before:]
        assert messages_for_each_tick(sent, *same) < 1.2
        for what, other in different.items():
            assert messages_for_each_tick(sent, *same, other) > 1.6, what


def test_a_tick_is_not_sent_again_when_its_beat_ends_in_mid_publish(
    redis_binary: str,
) -> None:
    """
    The message is sent, and beat ends before it can say so: by a deployment, or a crash.

    The other beat must not take it for unsent: two runs of a nightly job are what the
    claim of a tick is there to prevent.
    """
    assert redis_binary
    every = 2.0
    ends = {"deployment": signal.SIGTERM, "crash": signal.SIGKILL}
    schedule = {each: entry(each, once=True, schedule=every) for each in ends}
    with redis_site(base="Task", install="setup", schedule=schedule) as site:
        second = site.beat()
        second.freeze()
        slow = {"HARNESS_SLOW_PUBLISH": "10"}
        firsts = {
            each: site.spawn_beat(schedule={each: schedule[each]}, environment=slow)
            for each in ends
        }
        lines = {each: first.await_sent(1, each) for each, first in firsts.items()}
        for each, first in firsts.items():
            first.send(ends[each])
        for first in firsts.values():
            first.await_exit()
        second.thaw()
        for each, line in lines.items():
            second.await_due(each, 1)
            time.sleep(0.1)  # a message may be on its way
            for again in second.sent(each):
                assert (again.at - line.at) / 1e9 > 0.9 * every
