"""Direct and eager calls: nothing is guarded, and a task's own code works all the same."""

from typing import Any

import pytest
from celery import Celery, Task

from onceguard import InvalidOptions, QueueOnce


@pytest.fixture
def app() -> Celery:
    """An app whose servers do not exist: nothing here may ask them."""
    made = Celery("calls", broker="redis://127.0.0.1:1/0", set_as_current=False)
    made.conf.update(task_always_eager=True, task_eager_propagates=True)
    return made


def test_a_direct_call_runs_and_check_passes(app: Celery) -> None:
    """Unit tests of an application call its tasks like functions."""

    @app.task(base=QueueOnce, bind=True, shared=False)
    def add(self: Any, x: int, y: int = 1) -> int:
        self.request.once.check()
        assert self.request.once.fencing_token is None
        return x + y

    assert add(1) == 2
    assert add(2, y=3) == 5


def test_an_eager_call_keeps_celerys_request(app: Celery) -> None:
    """Task.__call__ would push an empty request over the one that apply() made."""

    @app.task(base=QueueOnce, bind=True, shared=False)
    def whoami(self: Any) -> tuple[Any, bool]:
        self.request.once.check()
        return self.request.id, self.request.is_eager

    result = whoami.apply_async(task_id="it's me")
    assert result.get() == ("it's me", True)


def test_an_eager_task_can_retry(app: Celery) -> None:
    """A retry asks the request whether it was called directly."""
    app.conf.task_eager_propagates = False

    @app.task(base=QueueOnce, bind=True, shared=False, max_retries=2)
    def stubborn(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    assert stubborn.delay().get() == 2


def test_a_class_with_its_own_call_runs_inside_it(app: Celery) -> None:
    """Flask's documented base class enters a context in __call__ and calls self.run."""
    entered = []

    class WithContext(Task):  # type: ignore[misc,unused-ignore]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            entered.append(args)
            return self.run(*args, **kwargs)

    class Both(WithContext, QueueOnce):
        abstract = True

    @app.task(base=Both, bind=True, shared=False)
    def task(self: Any, n: int) -> int:
        self.request.once.check()
        return n

    assert task.delay(1).get() == 1
    assert task(2) == 2
    assert entered == [(1,), (2,)]


def test_a_request_class_that_renews_nothing_is_refused(app: Celery) -> None:
    """Such a task's leases would end under it."""

    class Bare(QueueOnce):
        abstract = True
        Request = "celery.worker.request:Request"

    @app.task(base=Bare, shared=False)
    def task() -> None: ...

    with pytest.raises(InvalidOptions, match="renews no lease"):
        task.delay()
