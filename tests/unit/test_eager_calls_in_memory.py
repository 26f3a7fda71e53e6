"""Eager calls over the memory store: tests of an application see what production refuses."""

from collections.abc import Iterator
from threading import Barrier, Thread
from typing import Any

import pytest
from celery import Celery, chain, group

from onceguard import AlreadyQueued, QueueOnce
from onceguard.store.memory import forget

URL = "memory://eager"


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app without any server."""
    made = Celery("eager", broker="memory://", set_as_current=False)
    made.conf.update(task_always_eager=True, task_eager_propagates=True, once_url=URL)
    yield made
    forget("eager")


def test_an_equal_call_inside_a_call_is_refused(app: Celery) -> None:
    """What a worker would do: the first call has its key until it ends."""
    met: list[str] = []

    @app.task(base=QueueOnce, shared=False)
    def outer(x: int) -> int:
        with pytest.raises(AlreadyQueued) as refused:
            outer.delay(x)
        met.append(refused.value.holder.task_id)
        return x

    result = outer.delay(7)
    assert result.get() == 7
    assert met == [result.id]


def test_a_call_inside_a_call_with_other_arguments_runs(app: Celery) -> None:
    """Only equal calls are duplicates."""

    @app.task(base=QueueOnce, shared=False)
    def countdown(x: int) -> int:
        return x if x == 0 else int(countdown.delay(x - 1).get(disable_sync_subtasks=False))

    assert countdown.delay(3).get() == 0


@pytest.mark.parametrize("fails", [False, True])
def test_the_key_is_free_when_the_call_has_ended(app: Celery, fails: bool) -> None:
    """Also of a call that failed, which raises here."""

    @app.task(base=QueueOnce, shared=False)
    def work() -> None:
        if fails:
            raise LookupError

    for _ in range(2):
        if fails:
            with pytest.raises(LookupError):
                work.delay()
        else:
            work.delay()


def test_threads_are_refused_too(app: Celery) -> None:
    """A web application's test client may answer from several threads."""
    both, inside = Barrier(2, timeout=10), Barrier(2, timeout=10)
    refused: list[Exception] = []

    @app.task(base=QueueOnce, shared=False)
    def slow() -> None:
        both.wait()
        inside.wait()

    first = Thread(target=slow.delay)
    first.start()
    both.wait()
    try:
        slow.delay()
    except AlreadyQueued as error:
        refused.append(error)
    inside.wait()
    first.join(10)
    assert len(refused) == 1


def test_a_duplicate_that_is_skipped_returns_the_holders_result(app: Celery) -> None:
    """`on_conflict="skip"` looks the same as in production."""
    told: list[Any] = []

    @app.task(base=QueueOnce, shared=False, once={"on_conflict": "skip"})
    def outer() -> None:
        told.append(outer.delay())

    result = outer.delay()
    assert [each.id for each in told] == [result.id]
    assert told[0].duplicate


def test_an_eager_task_can_retry(app: Celery) -> None:
    """The retry is the same call going on."""
    app.conf.task_eager_propagates = False

    @app.task(base=QueueOnce, bind=True, shared=False, max_retries=2)
    def stubborn(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    assert stubborn.delay().get() == 2
    assert stubborn.delay().get() == 2


def test_members_of_a_canvas_run(app: Celery) -> None:
    """They are never refused at publish."""

    @app.task(base=QueueOnce, shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    assert chain(add.s(1, 2), add.s(3))().get() == 6
    assert group(add.s(1, 1), add.s(1, 1))().get() == [2, 2]


def test_a_memory_of_another_name_is_another(app: Celery) -> None:
    """Two test modules must not meet."""
    other = Celery("other", broker="memory://", set_as_current=False)
    other.conf.update(task_always_eager=True, once_url="memory://another")

    @other.task(base=QueueOnce, shared=False, name="the.same")
    def inner() -> None:
        return None

    @app.task(base=QueueOnce, shared=False, name="the.same")
    def outer() -> None:
        inner.delay()

    outer.delay()
