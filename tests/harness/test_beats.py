"""The beats of the harness are proved with plain Celery, as the rest of it is."""

import signal
import time
from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.harness.clock import preload, skewed
from tests.harness.schedule import PLACES
from tests.harness.schedulers import SCHEDULERS, STORES
from tests.harness.site import Site, redis_site
from tests.harness.waiting import eventually, stays

EVERY_SECOND = {"task": "plain_held", "schedule": 1.0, "args": ["a"]}


@pytest.fixture
def plain(redis_binary: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site without the library."""
    assert redis_binary
    monkeypatch.setenv("HARNESS_UNGUARDED", "1")
    with redis_site() as site:
        yield site


@pytest.mark.parametrize("embedded", [False, True], ids=["alone", "in-a-worker"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_plain_ticks_overlap(plain: Site, scheduler: str, *, embedded: bool) -> None:
    """What the library is for: every tick starts a run beside those before it."""
    plain.schedule = {"tick": EVERY_SECOND}
    beat = plain.beat(scheduler=scheduler, embedded=embedded)
    if not embedded:
        plain.start()
    plain.ledger.await_begin("a", 2)
    assert plain.ledger.overlaps("a")
    beat.await_sent(2, "a")
    assert beat.due("tick") >= 2


@pytest.mark.parametrize("place", PLACES)
def test_without_the_library_no_place_of_once_disturbs_beat(plain: Site, place: str) -> None:
    """Or tests of a place would be red for the wrong reason without the library."""
    plain.schedule = {"tick": EVERY_SECOND | {"schedule": 0.2, "once": True, "place": place}}
    beat = plain.beat()
    beat.await_sent(3)
    eventually(lambda: plain.broker.waiting() >= 3, "messages lay there")


@pytest.mark.parametrize("scheduler", STORES)
def test_rows_made_by_hand_are_sent(plain: Site, scheduler: str) -> None:
    """Tests add rows as users do: with `once` in the headers."""
    store = plain.add_row(scheduler, "tick", EVERY_SECOND | {"once": True})
    beat = plain.beat(scheduler=scheduler, declares=False)
    sent = beat.await_sent(2)
    message = plain.broker.capture(sent.task_id)
    assert message["headers"]["once"] is True
    beat.stop()
    assert store.total_run_count(plain.settings["conf"], "tick") >= 2


def test_plain_ticks_pile_up_without_a_worker(plain: Site) -> None:
    """And they are counted without one."""
    plain.schedule = {"tick": EVERY_SECOND | {"schedule": 0.1}}
    plain.beat().await_sent(10)
    eventually(lambda: plain.broker.waiting() >= 10, "they piled up")


def test_two_plain_beats_send_twice(plain: Site) -> None:
    """The ledger knows who sent what."""
    plain.schedule = {"tick": EVERY_SECOND | {"schedule": 0.5}}
    one, other = plain.spawn_beat(), plain.spawn_beat()
    one.await_ready().await_sent(3)
    other.await_ready().await_sent(3)
    assert not {x.task_id for x in one.sent()} & {x.task_id for x in other.sent()}


def test_a_frozen_beat_sends_nothing_and_a_killed_one_never_again(plain: Site) -> None:
    """Beats that stall or die are what the claim of a tick is for."""
    plain.schedule = {"tick": EVERY_SECOND | {"schedule": 0.2}}
    beat = plain.beat()
    beat.await_sent(1)
    beat.freeze()
    time.sleep(0.1)  # a message may be on its way
    before = len(beat.sent())
    stays(lambda: len(beat.sent()) == before, "a frozen beat sends nothing", during=0.6)
    beat.thaw()
    beat.await_sent(before + 1)
    beat.kill()
    assert not beat.processes()
    assert beat.exit_code == -signal.SIGKILL


@pytest.mark.parametrize("skew", [-7.5, 3600])
def test_a_beat_with_a_wrong_clock_ticks_and_the_ledger_is_right(
    plain: Site, skew: float
) -> None:
    """Lines of all processes are compared, so none may be written by a wrong clock."""
    library = preload() or missing("faketime")
    plain.schedule = {"tick": EVERY_SECOND | {"schedule": 0.3}}
    before = time.monotonic()
    beat = plain.beat(environment=skewed(library, skew))
    lines = [beat.await_sent(nth) for nth in (1, 2, 3)]
    assert before < lines[0].at / 1e9 < lines[2].at / 1e9 < time.monotonic()
    assert 0.5 < (lines[2].at - lines[0].at) / 1e9 < 2
    assert abs(beat.due_at("tick")[-1] - time.time() - skew) < 5


def test_a_beat_goes_on_from_the_store_of_another(plain: Site) -> None:
    """Restarts, and an uninstalled library, meet what the one before left there."""
    plain.schedule = {"tick": EVERY_SECOND | {"schedule": 3600.0}}
    first = plain.beat()
    first.stop()
    assert list(first.store.parent.glob(f"{first.store.name}*"))  # dbm adds what it likes
    second = plain.beat(store=first.store)
    assert second.store == first.store
    assert second.stop() == 0
    assert "corrupted" not in second.log()
