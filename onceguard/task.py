"""The base class of guarded tasks."""

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Task, signals
from celery._state import _task_stack
from celery.exceptions import Reject
from celery.states import FAILURE

from onceguard.publish.claim import publish
from onceguard.rules.errors import InvalidOptions
from onceguard.rules.keys import KeyMaker
from onceguard.rules.options import Once, check_signature, override, parse
from onceguard.store.bound import guard_of
from onceguard.worker.attempt import Attempt, Unguarded

if TYPE_CHECKING:
    from collections.abc import Callable

_REQUEST = "onceguard.worker.request:GuardedRequest"
_INHERIT = "Let it inherit from onceguard.worker.request.GuardedRequest."


class QueueOnce(Task):  # type: ignore[misc]
    """
    A task that runs once: not twice at a time, not piled up, not lost.

    ``@app.task(base=QueueOnce, once={...})``. Messages are acknowledged when
    their run is over (``acks_late``) and delivered again when their process dies
    (``reject_on_worker_lost``), unless the task says otherwise.

    Attributes:
        once: True, a dict of options, `Once`, or False to switch guarding off.
            Also through ``task_annotations``, and for one call as
            ``apply_async(..., once=...)``.
        once_options: The same, checked and completed with ``once_defaults``;
            None if switched off.
        once_track_started: Whether STARTED is stored, as ``track_started`` was set.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    Request = _REQUEST
    once: ClassVar[Any] = True
    once_options: ClassVar[Once | None] = None
    once_track_started: ClassVar[bool] = False
    _once_signature: ClassVar[inspect.Signature]

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """
        Check the declaration, and install the worker's part.

        Raises:
            InvalidOptions: With everything that is wrong with ``once``.
            InvalidSettings: With everything that is wrong with ``once_*``.
        """
        super().on_bound(app)
        settings = guard_of(app).settings
        cls._once_signature = _signature(cls)
        _check_request(cls)
        cls.once_options = None
        if cls.once is not False and cls.once is not None:
            cls.once_options = parse(cls.once, owner=cls.name, defaults=settings.defaults)
            check_signature(cls.once_options, cls._once_signature, cls.name)
        cls.once_track_started = cls.once_track_started or bool(cls.track_started)
        cls.track_started = False  # STARTED is stored when the run is known to begin
        _guard_call(cls)
        signals.task_prerun.connect(_begin, weak=False, dispatch_uid="onceguard")
        signals.task_postrun.connect(_end, weak=False, dispatch_uid="onceguard")

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> Any:
        """
        Publish a call, if no equal one is queued or running.

        As Celery's, with ``once`` among the options: True, False or a dict that
        replaces options of the task for this call.

        Raises:
            AlreadyQueued: An equal call has the key; nothing was sent.
            StoreUnavailable: The lock server did not answer; nothing was sent.
            KeyNotComputable: An argument cannot be part of a key; nothing was sent.
        """
        return publish(self, super().apply_async, args, kwargs, {**options, "task_id": task_id})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a delivered message under its lease; a direct call just runs."""
        return _enter(self, self.run, args, kwargs, entered=True)

    def once_with(self, value: Any) -> Once | None:
        """
        Complete the options of one call with those of the task.

        Raises:
            InvalidOptions: With everything that is wrong with *value*.
        """
        if value is False:
            return None
        owner = f"a call of {self.name}"
        if self.once_options is None:
            once = parse(value, owner=owner, defaults=guard_of(self.app).settings.defaults)
        else:
            once = override(self.once_options, value, owner)
        check_signature(once, self._once_signature, owner)
        return once

    def once_key(self, args: Any, kwargs: Any, once: Once) -> str:
        """
        Compute the key of a call.

        Raises:
            TypeError: The task cannot be called like this.
            KeyNotComputable: An argument has no canonical text.
        """
        if once is self.once_options:
            maker = self.__dict__.get("_once_maker")
            if maker is None:
                maker = KeyMaker(self.name, self._once_signature, once)
                self.__dict__["_once_maker"] = maker
        else:
            maker = KeyMaker(self.name, self._once_signature, once)
        return str(maker(args, kwargs))


def _signature(cls: type[QueueOnce]) -> inspect.Signature:
    """Return the task's signature as callers see it, without a bound ``self``."""
    run = inspect.getattr_static(cls, "run")
    if isinstance(run, (staticmethod, classmethod)):
        return inspect.signature(getattr(cls, "run"))  # noqa: B009 - resolves the descriptor
    signature = inspect.signature(run)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _check_request(cls: Any) -> None:
    """Refuse a Request class that would leave the task's leases unrenewed."""
    if cls.Request == _REQUEST:
        return
    from onceguard.worker.request import GuardedRequest  # noqa: PLC0415 - publishers need none

    if not (isinstance(cls.Request, type) and issubclass(cls.Request, GuardedRequest)):
        raise InvalidOptions(
            cls.name,
            [f"Request is {cls.Request!r}, which renews no lease. {_INHERIT}"],
        )


def _enter(
    task: QueueOnce, body: Callable[..., Any], args: Any, kwargs: Any, *, entered: bool
) -> Any:
    """
    Run *body*, guarded if this is a delivered message that has not been let in yet.

    With *entered* false, *body* is a ``__call__`` that may come by here again.
    """
    request = task.request
    attempt = getattr(request, "once", None)
    ours = attempt if isinstance(attempt, (Attempt, Unguarded)) else None
    if ours is not None and ours.begun and not ours.entered:
        ours.entered = True
        return body(*args, **kwargs)
    if request.called_directly or (ours is not None and ours.begun):
        return _called_directly(task, body, args, kwargs, entered=entered)
    if request.is_eager:
        request.once = _unguarded(entered=entered)
        return body(*args, **kwargs)
    from onceguard.worker.delivery import run  # noqa: PLC0415 - publishers need no worker

    return run(task, body, args, kwargs, entered=entered)


def _unguarded(*, entered: bool) -> Unguarded:
    attempt = Unguarded()
    attempt.begun, attempt.entered = True, entered
    return attempt


def _called_directly(
    task: QueueOnce, body: Callable[..., Any], args: Any, kwargs: Any, *, entered: bool
) -> Any:
    """Do what ``Task.__call__`` does, with a ``once`` in the request."""
    _task_stack.push(task)
    task.push_request(args=args, kwargs=kwargs, once=_unguarded(entered=entered))
    try:
        return body(*args, **kwargs)
    finally:
        task.pop_request()
        _task_stack.pop()


def _guard_call(cls: Any) -> None:
    """
    Put the guard around a ``__call__`` that a task class defines itself.

    Frameworks document a ``__call__`` that enters a context and then calls
    ``self.run``, which would leave the guard out.
    """
    own = cls.__call__
    if own is QueueOnce.__call__ or getattr(own, "once_guarded", False):
        return

    @functools.wraps(own)
    def __call__(self: QueueOnce, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        return _enter(self, functools.partial(own, self), args, kwargs, entered=False)

    __call__.once_guarded = True  # type: ignore[attr-defined]
    cls.__call__ = __call__


def _begin(task: Any = None, **_: Any) -> None:
    """Make the attempt before anything of the task's own can fail, such as before_start."""
    if not isinstance(task, QueueOnce) or task.request.is_eager:
        return
    from onceguard.worker.delivery import arrive  # noqa: PLC0415 - as in _enter

    with suppress(Exception):  # the run itself says it
        task.request.once = arrive(task)


def _end(task: Any = None, state: str | None = None, retval: Any = None, **_: Any) -> None:
    """
    Free what a run holds: the last thing before its message is acknowledged.

    Without a state the process is about to end, unless a handler of the task's or
    the result backend has failed: Celery makes that a failure later on.
    """
    if state is None and isinstance(sys.exc_info()[1], Exception):
        state = FAILURE
    attempt = getattr(task.request, "once", None) if isinstance(task, QueueOnce) else None
    if isinstance(attempt, Attempt):
        requeued = isinstance(retval, Reject) and bool(retval.requeue)
        attempt.end(state, requeued=requeued)
