"""Put the guard around a task: its call, its request, and the signals of its runs."""

from __future__ import annotations

import functools
import logging
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from celery import Task, signals
from celery._state import _task_stack, get_current_worker_task
from celery.exceptions import Reject
from celery.states import FAILURE

from onceguard.rules import header as headers
from onceguard.rules.lives import claim_life
from onceguard.rules.messages import replacement_message_id, retry_message_id
from onceguard.store.bound import guard_of, where
from onceguard.store.contract import Message, Successor
from onceguard.worker.attempt import Attempt, Unguarded, claim_life_after

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("onceguard")

REQUEST = "onceguard.worker.request:GuardedRequest"


def connect() -> None:
    """Connect the signals by which runs begin and end; again does nothing."""
    signals.task_prerun.connect(_begin, weak=False, dispatch_uid="onceguard")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid="onceguard")


def guard_call(cls: Any, guarded: Any) -> None:
    """
    Put the guard around a ``__call__`` that a task class defines itself.

    Frameworks document a ``__call__`` that enters a context and then calls
    ``self.run``, which would leave the guard out.

    Args:
        cls: The task's class.
        guarded: The ``__call__`` that its base class has, and that needs nothing.
    """
    own = cls.__call__
    if own is guarded or getattr(own, "once_guarded", False):
        return

    @functools.wraps(own)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        return enter(self, functools.partial(own, self), args, kwargs, entered=False)

    __call__.once_guarded = True  # type: ignore[attr-defined]
    cls.__call__ = __call__


def _free_discarded(sender: Any = None, message: Any = None, **_: Any) -> None:
    """
    Free the claim of a message whose task this worker does not know.

    Celery discards it, so that it would never start and its key never be free. A
    receiver of ``task_unknown``.
    """
    header = headers.load((getattr(message, "headers", None) or {}).get(headers.NAME))
    if header is None or sender is None:
        return
    from onceguard.worker.running import keeper_of  # noqa: PLC0415 - as in enter

    guard = guard_of(sender.app)
    call = Message(
        key=header.key,
        message_id=header.message_id,
        task_id=message.headers.get("id") or "",
        own_lease=False,
        where=where(),
        waits=header.waits,
    )
    keeper_of(sender.app).run_errand(
        lambda store: store.drop(call, completed_for=guard.completed_for)
    )


def guard_plain_tasks(app: Any) -> None:
    """
    Guard the tasks of an app that have another base class, where beat says so.

    A beat entry may say ``once`` for any task; its messages have our header.
    Without it everything goes on as before.
    """
    signals.before_task_publish.connect(_restamp, weak=False, dispatch_uid="onceguard")
    signals.after_task_publish.connect(_note_successor, weak=False, dispatch_uid="onceguard")
    signals.task_unknown.connect(_free_discarded, weak=False, dispatch_uid="onceguard")
    connect()
    for task in app.tasks.values():
        if not hasattr(task, "once_options"):
            try:
                _guard_plain(task)
            except Exception:
                logger.exception("%s cannot be guarded where a beat entry says once", task.name)


def _guard_plain(task: Any) -> None:
    cls = type(task)
    if cls.__call__ is Task.__call__:
        cls.__call__ = _call_plain
    else:
        guard_call(cls, _call_plain)
    task.Request = _guarded_request(task.Request)


def _call_plain(self: Any, *args: Any, **kwargs: Any) -> Any:
    return enter(self, self.run, args, kwargs, entered=True)


def _guarded_request(given: Any) -> Any:
    from celery.utils.imports import symbol_by_name  # noqa: PLC0415 - publishers need none

    from onceguard.worker.request import GuardedRequest  # noqa: PLC0415 - as above

    own = symbol_by_name(given)
    if issubclass(GuardedRequest, own):
        return GuardedRequest
    return (
        own if issubclass(own, GuardedRequest) else type("Guarded", (GuardedRequest, own), {})
    )


def enter(task: Any, body: Callable[..., Any], args: Any, kwargs: Any, *, entered: bool) -> Any:
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
    task: Any, body: Callable[..., Any], args: Any, kwargs: Any, *, entered: bool
) -> Any:
    """Do what ``Task.__call__`` does, with a ``once`` in the request."""
    _task_stack.push(task)
    task.push_request(args=args, kwargs=kwargs, once=_unguarded(entered=entered))
    try:
        return body(*args, **kwargs)
    finally:
        task.pop_request()
        _task_stack.pop()


def _guards(task: Any) -> bool:
    """Whether a run of this task may be guarded: by its base class, or by its message."""
    return hasattr(task, "once_options") or hasattr(task.request, headers.NAME)


def _begin(task: Any = None, **_: Any) -> None:
    """Make the attempt before anything of the task's own can fail, such as before_start."""
    if task is None or task.request.is_eager or not _guards(task):
        return
    from onceguard.worker.delivery import arrive  # noqa: PLC0415 - as in enter

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
    attempt = getattr(task.request, "once", None) if task is not None else None
    if isinstance(attempt, Attempt):
        requeued = isinstance(retval, Reject) and bool(retval.requeue)
        attempt.end(state, requeued=requeued)


def _restamp(headers: Any = None, sender: Any = None, **_: Any) -> None:
    """
    Keep the running message's header out of other messages.

    Celery copies it into the retry of a plain task, and a task that hands on its own
    headers into any other. The retry gets an identity of its own; with its parent's
    it would be taken for a message that is already completed.
    """
    attempt = _running_attempt()
    if attempt is not None and isinstance(headers, dict):
        _restamp_published(headers, attempt, sender)


def _running_attempt() -> Attempt | None:
    running = get_current_worker_task()
    attempt = getattr(running.request, "once", None) if running is not None else None
    return attempt if isinstance(attempt, Attempt) else None


def _restamp_published(published: dict[str, Any], attempt: Attempt, task_name: Any) -> None:
    header = headers.load(published.get(headers.NAME))
    copied = header is not None and header.message_id == attempt.message.message_id
    if header is not None and not copied:
        return  # made for this message
    message_id = _continues(published, attempt) if task_name == attempt.task_name else None
    if message_id is not None:
        published[headers.NAME] = replace(
            attempt.header,
            message_id=message_id,
            parent_id=attempt.message.message_id,
            generation=0,
            delay=0.0,
            start_by=None,
            waits=False,
            nonce="",
            content_type="",
        ).dump()
    elif copied and published.get("id") != attempt.message.task_id:
        del published[headers.NAME]


def _continues(published: dict[str, Any], attempt: Attempt) -> str | None:
    """Name the message by which the running task goes on; None if this is another's."""
    parent = attempt.message.message_id
    if published.get("id") != attempt.message.task_id:
        return None
    retries, nesting = (
        published.get("retries") or 0,
        published.get("replaced_task_nesting") or 0,
    )
    if nesting > attempt.nesting:
        return replacement_message_id(parent, nesting)
    return retry_message_id(parent, retries) if retries > attempt.retries else None


def _note_successor(headers: Any = None, **_: Any) -> None:
    """Let the end of a plain task's run claim the key for its retry, which is published."""
    attempt = _running_attempt()
    if attempt is None or attempt.successor is not None or not isinstance(headers, dict):
        return
    _succeed(headers, attempt)


def _succeed(published: dict[str, Any], attempt: Attempt) -> None:
    header = headers.load(published.get(headers.NAME))
    if header is None or header.parent_id != attempt.message.message_id:
        return
    if published.get("id") == attempt.message.task_id and claim_life_after(attempt.options):
        due = {"eta": published.get("eta"), "expires": published.get("expires")}
        life = claim_life(attempt.options.unique_for, due, None, datetime.now(timezone.utc))
        attempt.successor = Successor(message_id=header.message_id, unique_for=life)
