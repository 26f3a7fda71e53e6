"""Database rows that are to run once, among several beats and with any of them killed."""

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import pytest

from tests.harness.crowd import crowd_of
from tests.harness.post import Post, watched
from tests.harness.schedulers import DATABASES, Database
from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually, stays

ROWS: Final = pytest.mark.parametrize("scheduler", ["django", "sqlalchemy"])
ONE_OFF: Final = 2.0


@contextlib.contextmanager
def rows(scheduler: str) -> Iterator[tuple[Site, Post]]:
    """A site whose database has a row that is to run once, and one that ticks."""
    with redis_site(install="setup") as site, watched(site.server) as post:
        site.add_row(scheduler, "tick", {"task": "plain", "args": ["bare"], "schedule": 0.5})
        once = {"task": "plain", "args": ["once"], "schedule": ONE_OFF, "one_off": True}
        site.add_row(scheduler, "once", once)
        yield site, post


def saved(site: Site, scheduler: str) -> bool:
    """Whether the run is in the database, or the row is switched off for it already."""
    return bool(row(site, scheduler, "total_run_count")) or not row(site, scheduler, "enabled")


def row(site: Site, scheduler: str, column: str) -> Any:
    """Read the row that is to run once."""
    return database(site, scheduler).column(column, "once")


def database(site: Site, scheduler: str) -> Database:
    """Where the rows are."""
    return DATABASES[scheduler](site.directory)


@ROWS
def test_a_one_off_row_of_two_beats_runs_once_though_its_sender_dies(
    redis_binary: str, scheduler: str
) -> None:
    """For the one that was second it must count as a run, or it would run it later."""
    assert redis_binary
    with (
        rows(scheduler) as (site, post),
        crowd_of(site, post, [{}, {}], scheduler=scheduler) as two,
    ):
        (letter,) = post.await_letters(1, "once")
        eventually(lambda: saved(site, scheduler), "the run was saved")
        sender = two.sender_of(letter)
        assert sender is not None
        two.lose(sender)
        eventually(lambda: not row(site, scheduler, "enabled"), "the row was switched off")
        stays(lambda: len(post.letters("once")) == 1, "it ran once", during=ONE_OFF)


@ROWS
def test_a_beat_that_starts_after_a_one_off_row_was_sent_does_not_send_it(
    redis_binary: str, scheduler: str
) -> None:
    """
    Schedulers save what they sent minutes later, and a killed one never does.

    So the row has to say that it has run before the next beat reads it.
    """
    assert redis_binary
    with (
        rows(scheduler) as (site, post),
        crowd_of(site, post, [{}], scheduler=scheduler) as one,
    ):
        post.await_letters(1, "once")
        eventually(lambda: saved(site, scheduler), "the run was saved")
        one.kill(one.beats[0]).await_ready()
        eventually(lambda: not row(site, scheduler, "enabled"), "the row was switched off")
        stays(lambda: len(post.letters("once")) == 1, "it ran once", during=ONE_OFF)


LONG: Final = 60.0
"""Seconds of an interval that no test waits for."""


@contextlib.contextmanager
def due_row(scheduler: str) -> Iterator[tuple[Site, Post, Database]]:
    """A row that is to run once, and is due as soon as a beat reads it."""
    with redis_site(install="setup") as site, watched(site.server) as post:
        once = {"task": "plain", "args": ["once"], "schedule": LONG, "one_off": True}
        site.add_row(scheduler, "once", once)
        store = database(site, scheduler)
        store.write("once", last_run_at=before_now(2 * LONG))
        yield site, post, store


def before_now(seconds: float) -> str:
    """Write an instant as both databases do."""
    instant = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return instant.strftime("%Y-%m-%d %H:%M:%S.%f")


@ROWS
def test_a_one_off_row_whose_run_was_not_saved_is_not_sent_by_a_beat_that_reads_it(
    redis_binary: str, scheduler: str
) -> None:
    """
    Between the message and the row a beat may die, and another may read the row.

    It must not take the tick for one after which the next is due.
    """
    assert redis_binary
    with due_row(scheduler) as (site, post, store):
        unsaved = site.directory / "unsaved.sqlite"
        store.copied(unsaved)
        with crowd_of(site, post, [{}], scheduler=scheduler) as one:
            eventually(lambda: saved(site, scheduler), "the run was saved")
            one.lose(one.beats[0])
        shutil.copy(unsaved, store.file)  # as if it had not
        with crowd_of(site, post, [{}], scheduler=scheduler):
            eventually(lambda: saved(site, scheduler), "the run was saved")
            assert len(post.letters("once")) == 1


@ROWS
def test_a_run_that_could_not_be_saved_at_once_is_saved_later(
    redis_binary: str, scheduler: str
) -> None:
    """A database that fails over takes the run with it only if beat dies meanwhile."""
    assert redis_binary
    with redis_site(install="setup") as site, watched(site.server) as post:
        tick = {"task": "plain", "args": ["tick"], "schedule": 0.5}
        site.add_row(scheduler, "tick", tick)
        beat = site.beat(scheduler=scheduler)
        post.await_letters(2)  # beat saves everything after its first one
        once = {"task": "plain", "args": ["once"], "schedule": 2 * SOON, "one_off": True}
        site.add_row(scheduler, "once", once)
        eventually(lambda: "Schedule changed" in beat.log(), "beat knows the row")
        with database(site, scheduler).read_only():
            post.await_letters(1, "once")
            said = "will try again to save that 'once' has run"
            eventually(lambda: said in beat.log(), "the run could not be saved")
        assert row(site, scheduler, "total_run_count") == 0
        beat.stop()
        assert row(site, scheduler, "total_run_count") == 1


SOON: Final = 4.0
"""Seconds until a row is due, in which beats start, or read it."""

MANY: Final = 20
"""Rows that are due at once, so that beats take turns with them."""


@ROWS
def test_of_many_one_off_rows_each_runs_once_and_may_be_switched_on_again(
    redis_binary: str, scheduler: str
) -> None:
    """
    What one beat saves of a row must not undo what another has saved of it.

    A row that is off and has run would be switched off at the first look if somebody
    switched it on; one that is on and has not run would run again.
    """
    assert redis_binary
    names = ["once", *(f"once{number}" for number in range(1, MANY))]
    with redis_site(install="setup") as site, watched(site.server) as post:
        once = {"task": "plain", "args": ["once"], "schedule": SOON, "one_off": True}
        site.add_row(scheduler, "once", once)
        store = database(site, scheduler)
        store.write("once", last_run_at=before_now(0))
        store.multiply("once", names[1:])
        with crowd_of(site, post, [{}, {}], scheduler=scheduler):
            post.await_letters(MANY)
            over = "the rows were switched off"
            eventually(lambda: states(store, names) == {(0, 0)}, over, timeout=60)
            stays(lambda: len(post.letters()) == MANY, "each ran once", during=SOON)
        assert {letter.name for letter in post.letters()} == set(names)


def states(store: Database, names: Sequence[str]) -> set[tuple[int, int]]:
    """Whether rows are on, and how often they have run."""
    return {
        (store.column("enabled", each), store.column("total_run_count", each)) for each in names
    }


def switch_on(site: Site, scheduler: str, **columns: Any) -> float:
    """Switch the row on again, as a user does; returns when, in unix seconds."""
    given = {"enabled": 1, "date_changed": before_now(0)} | columns
    database(site, scheduler).write("once", **given)
    return time.time()


@contextlib.contextmanager
def done_row(scheduler: str, schedule: Any) -> Iterator[tuple[Site, Post]]:
    """A row that has run once and is switched off."""
    with redis_site(install="setup") as site, watched(site.server) as post:
        once = {"task": "plain", "args": ["once"], "schedule": schedule, "one_off": True}
        site.add_row(scheduler, "once", once)
        with crowd_of(site, post, [{}], scheduler=scheduler) as one:
            post.await_letters(1, "once")
            eventually(lambda: saved(site, scheduler), "the run was saved")
            one.kill(one.beats[0]).await_ready()
            eventually(lambda: not row(site, scheduler, "enabled"), "the row was switched off")
        yield site, post


@ROWS
def test_a_one_off_row_that_is_switched_on_again_runs_again(
    redis_binary: str, scheduler: str
) -> None:
    """An interval after that, as without the library; its earlier run is another one."""
    assert redis_binary
    with done_row(scheduler, ONE_OFF) as (site, post):
        switched_on = switch_on(site, scheduler, last_run_at=None)
        with crowd_of(site, post, [{}], scheduler=scheduler):
            _, second = post.await_letters(2, "once")
            assert second.at - switched_on > ONE_OFF - 0.1
            eventually(lambda: not row(site, scheduler, "enabled"), "the row was switched off")


@ROWS
def test_a_row_that_is_switched_on_within_its_interval_asks_again_if_it_was_early(
    redis_binary: str, scheduler: str
) -> None:
    """By its own clock it may be due before the interval since its run is over."""
    assert redis_binary
    with done_row(scheduler, SOON) as (site, post):
        (first,) = post.letters("once")
        just_before = before_now(time.time() - first.at + 0.3)
        switch_on(site, scheduler, last_run_at=just_before)
        with crowd_of(site, post, [{}], scheduler=scheduler):
            post.await_letters(2, "once")
            eventually(lambda: not row(site, scheduler, "enabled"), "the row was switched off")


@ROWS
def test_a_clocked_row_that_is_switched_on_again_runs_at_once(
    redis_binary: str, scheduler: str
) -> None:
    """Its instant is over, and is no new one: that somebody changed the row makes it one."""
    assert redis_binary
    soon = datetime.now(timezone.utc) + timedelta(seconds=1)
    with done_row(scheduler, {"clocked": soon}) as (site, post):
        switch_on(site, scheduler)
        with crowd_of(site, post, [{}, {}], scheduler=scheduler):
            post.await_letters(2, "once")
            eventually(lambda: saved(site, scheduler), "the run was saved")
            stays(lambda: len(post.letters("once")) == 2, "it ran once more", during=1)
