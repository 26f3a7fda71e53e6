"""Every pool guards alike: prefork, threads, solo, gevent, eventlet."""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.conftest import missing
from tests.harness.site import LEASE, Site, redis_site
from tests.harness.waiting import eventually, stays

pytestmark = pytest.mark.oldest

POOLS = ["prefork", "threads", "solo", "gevent", "eventlet"]


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    """A pool that can be had here; only eventlet may be missing in CI."""
    name = str(request.param)
    if name == "eventlet":
        pytest.importorskip("eventlet")
    if name == "gevent":
        try:
            import gevent  # noqa: F401, PLC0415  only to see whether it is there
        except ImportError:
            missing("gevent")
    return name


@pytest.fixture(scope="module")
def pooled(redis_binary: str, pool: str) -> Iterator[Site]:
    """A site with one worker that has this pool, and outlives all that is done to it."""
    assert redis_binary
    with redis_site() as site:
        site.start(pool=pool, concurrency=1 if pool == "solo" else 3)
        yield site


def test_a_run_holds_its_key_beyond_the_lease_and_frees_it_at_its_end(
    pooled: Site, name: str
) -> None:
    """Guarded, renewed, refused and freed: the whole of it in each pool."""
    result = pooled.publish("held", name)
    run = pooled.ledger.await_begin(name)
    stays(lambda: pooled.refusal("held", name), "the key was held", during=2.2 * LEASE)
    assert pooled.refusal("held", name).holder.fencing_token == run.fencing_token
    pooled.open_gate(name)
    pooled.await_state(result, "SUCCESS")
    again = pooled.await_accepted("held", name, timeout=LEASE / 2)
    pooled.await_state(again, "SUCCESS")
    assert len(pooled.ledger.runs(name)) == 2
    assert not pooled.ledger.overlaps(name)


def test_a_second_delivery_does_not_run_beside_the_first(
    pooled: Site, pool: str, name: str
) -> None:
    """In pools without processes both copies would run in one and the same."""
    result = pooled.publish("held", name)
    pooled.ledger.await_begin(name)
    pooled.broker.deliver(pooled.broker.capture(result.id))
    if pool != "solo":  # which takes one message at a time
        put_off = partial(pooled.ledger.lines, "once_duplicate_delivery", "held")
        eventually(lambda: result.id in {x.task_id for x in put_off()}, "it was put off")
    stays(lambda: len(pooled.ledger.runs(name)) == 1, "one run", during=LEASE)
    pooled.open_gate(name)
    pooled.await_state(result, "SUCCESS")
    pooled.await_drained()
    assert len(pooled.ledger.runs(name)) == 1


@pytest.mark.parametrize("task", ["fail", "ignore", "reject", "memory_error", "retry_once"])
def test_ends_free_the_key(pooled: Site, pool: str, task: str, name: str) -> None:
    """Nothing of an end may hang on signals or handlers that only prefork has."""
    pooled.publish(task, name)
    pooled.ledger.await_end(name)
    pooled.await_accepted(task, name, timeout=10)
    assert pooled.workers[0].alive, pool
