"""Decide whether a delivered message runs, in the process that would run it."""

from __future__ import annotations

import logging
import os
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Ignore, Reject
from celery.states import STARTED

from onceguard.observe.events import emit
from onceguard.rules import header as headers
from onceguard.rules.errors import StoreUnavailable, TooManyDeliveries
from onceguard.rules.messages import new_message_id
from onceguard.rules.options import OnRunConflict, OnStoreUnavailable
from onceguard.rules.outcomes import Outcome
from onceguard.store.bound import guard_of
from onceguard.store.contract import Answer
from onceguard.worker.attempt import Attempt, Phase, Unguarded
from onceguard.worker.copies import ignores_result, send_again
from onceguard.worker.identity import headerless, message_of, options_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.store.bound import Guard
    from onceguard.store.contract import Started

logger = logging.getLogger("onceguard")

_NUDGE = 0.25
_PAUSE = 2.0


def arrive(task: Any) -> Attempt | Unguarded:
    """
    Make the attempt of the delivered message in the task's request; asks nobody.

    Raises:
        KeyNotComputable: The message came without our header, and an argument
            cannot be part of a key.
        TypeError: It did, and the task cannot be called like this.
        InvalidOptions: Its publisher gave options that this version lacks.
    """
    request = task.request
    wire = getattr(request, headers.NAME, None)
    guard = guard_of(task.app)
    if not guard.settings.enabled or headers.switched_off(wire):
        return Unguarded()
    header = headers.load(wire)
    once = options_of(task, header)
    if once is None:
        return Unguarded()
    retries, nesting = request.retries or 0, request.replaced_task_nesting or 0
    if header is None:
        header = headerless(
            task, once, request.id, retries, nesting, request.args, request.kwargs
        )
    return Attempt(
        message=message_of(header, request.id, once),
        header=header if header.nonce else replace(header, nonce=new_message_id()),
        once=once,
        store=guard.store,
        completed_for=once.completed_for or guard.completed_for,
        task_name=task.name,
        retries=retries,
        nesting=nesting,
    )


def run(task: Any, body: Callable[..., Any], args: Any, kwargs: Any, *, entered: bool) -> Any:
    """
    Run a delivered message of a guarded task, if the store lets it start.

    Args:
        task: The task; its request is the delivered one.
        body: What to run: the task's function, or a ``__call__`` around it.
        args: Positional arguments.
        kwargs: Keyword arguments.
        entered: False if *body* may still come by ``QueueOnce.__call__``.

    Returns:
        What *body* returns; None for a call that is skipped because an equal
        one runs.

    Raises:
        celery.exceptions.Ignore: The delivery is acknowledged and no more: its
            message runs or has run elsewhere, or comes back later.
        TooManyDeliveries: The message was started *max_deliveries* times and
            never came to an end.
    """
    attempt = getattr(task.request, "once", None)
    if not isinstance(attempt, (Attempt, Unguarded)):
        task.request.once = attempt = arrive(task)
    attempt.begun, attempt.entered = True, entered
    if isinstance(attempt, Unguarded):
        return body(*args, **kwargs)
    return _Delivery(task, guard_of(task.app), attempt, body).run(args, kwargs)


class _Delivery:
    """One delivery of one message, until it runs or is settled otherwise."""

    def __init__(
        self,
        task: Any,
        guard: Guard,
        attempt: Attempt,
        body: Callable[..., Any],
    ) -> None:
        self.task = task
        self.body = body
        self.guard = guard
        self.header = attempt.header
        self.attempt = attempt
        self.once = attempt.options

    def run(self, args: Any, kwargs: Any) -> Any:
        asked_at = time.monotonic()
        try:
            started = self._start()
        except StoreUnavailable as error:
            return self._without_store(error, args, kwargs)
        if started.answer is Answer.ACQUIRED and started.held is not None:
            self.attempt.acquired(started.held, asked_at=asked_at)
            return self._body(args, kwargs)
        if started.answer is Answer.ALREADY_COMPLETED:
            self.attempt.phase = Phase.PASSING
            emit(self.attempt.event(Outcome.ALREADY_COMPLETED))
            raise Ignore
        if started.answer is Answer.REJECTED:
            return self._give_up(started)
        if started.answer is Answer.REPLACED:
            self._settle(Outcome.REPLACED, "a newer tick was sent in its place")
            raise Ignore
        if started.answer is Answer.MISSED:
            self._settle(Outcome.MISSED, "later than misfire_grace_time allows")
            return None
        if started.answer is Answer.DUPLICATE_DELIVERY:
            return self._put_off(started, Outcome.DUPLICATE_DELIVERY)
        return self._overlap(started)

    def _start(self) -> Started:
        return self.guard.store.start(
            self.attempt.message,
            nonce=self.attempt.nonce,
            parent_id=self.header.parent_id,
            max_deliveries=self.once.max_deliveries,
            lease_ttl=self.once.lease_ttl,
            completed_for=self.attempt.completed_for,
            start_by=self.header.start_by,
        )

    def _settle(self, outcome: Outcome, detail: str) -> None:
        """Record that the message will never run, and free its claim."""
        self.attempt.phase = Phase.PASSING
        emit(self.attempt.event(outcome, detail=detail))
        try:
            self.guard.store.drop(
                self.attempt.message, completed_for=self.attempt.completed_for
            )
        except StoreUnavailable as error:
            detail = f"its claim ends after unique_for: {error}"
            emit(self.attempt.event(Outcome.STORE_UNAVAILABLE, detail=detail))

    def _body(self, args: Any, kwargs: Any) -> Any:
        emit(self.attempt.event(Outcome.ACQUIRED))
        self._track_started()
        return self.body(*args, **kwargs)

    def _track_started(self) -> None:
        """Store STARTED, for ``track_started``: not before the run is known to begin."""
        task, request = self.task, self.task.request
        if getattr(task, "once_track_started", False) and not ignores_result(task, request):
            place = {"pid": os.getpid(), "hostname": request.hostname}
            task.backend.store_result(request.id, place, STARTED, request=request)

    def _without_store(self, error: StoreUnavailable, args: Any, kwargs: Any) -> Any:
        if self.once.on_store_unavailable is OnStoreUnavailable.RUN:
            detail = f"runs unguarded: {error}"
            emit(self.attempt.event(Outcome.STORE_UNAVAILABLE, detail=detail))
            self._track_started()
            return self.body(*args, **kwargs)
        delay = min(self.once.lease_ttl, 2.0 ** min(self.header.generation, 16))
        detail = f"put off for {delay:g} s: {error}"
        emit(self.attempt.event(Outcome.STORE_UNAVAILABLE, detail=detail))
        return self._publish_copy(delay)

    def _give_up(self, started: Started) -> Any:
        self.attempt.phase = Phase.GIVEN_UP
        limit = self.once.max_deliveries
        detail = f"started {started.starts} times without an end, max_deliveries is {limit}"
        emit(self.attempt.event(Outcome.REJECTED, detail=detail))
        raise TooManyDeliveries(
            key=self.attempt.key, attempts=started.starts, max_deliveries=limit
        )

    def _overlap(self, started: Started) -> Any:
        """An equal call runs. A message that has waited or run before is never skipped."""
        waits = started.starts or started.generation or self.header.generation
        repeated = self.attempt.retries or self.task.request.delivery_info.get("redelivered")
        if self.once.on_run_conflict is OnRunConflict.SKIP and not (waits or repeated):
            holder = started.held.holder if started.held else None
            emit(self.attempt.event(Outcome.OVERLAP_SKIPPED, holder=holder))
            self.attempt.phase = Phase.SKIPPED
            return None
        return self._put_off(started, Outcome.RESCHEDULED)

    def _put_off(self, started: Started, outcome: Outcome) -> Any:
        """Let the message come back later; a delivery older than its newest copy ends."""
        holder = started.held.holder if started.held else None
        self.attempt.phase = Phase.PASSING
        if self.header.generation < started.generation:
            detail = "a newer copy of the message is under way"
            emit(self.attempt.event(outcome, holder=holder, detail=detail))
            raise Ignore
        delay = self._delay(started)
        detail = f"put off for {delay:.1f} s"
        emit(self.attempt.event(outcome, holder=holder, detail=detail))
        return self._publish_copy(delay, began=started.starts > 0)

    def _delay(self, started: Started) -> float:
        """
        Seconds until the lease in the way would have ended, and a little more.

        Where the same task is in the way (this retry's parent, about to end, or
        this message's own retry, already claimed) it will not be for long: the
        wait begins at a quarter of a second and doubles. A tick that was sent to
        run right after another looks again after a quarter of its wait so far.
        """
        left = self.once.lease_ttl
        if started.held is not None:
            left = min(started.held.time_left, left)
            if started.held.holder.message_id != self.header.message_id and (
                started.held.holder.task_id == self.attempt.message.task_id
            ):
                left = min(left, _NUDGE * 2.0 ** min(self.header.generation, 16))
        if self.header.waits:
            left = min(left, _NUDGE * 1.25 ** min(self.header.generation, 50))
        left += random.uniform(0.05, 0.05 + min(1.0, left / 10))  # noqa: S311 - jitter
        # RabbitMQ's native delayed delivery counts whole seconds, and refuses none.
        return left if self.guard.redis_broker else max(1.0, left)

    def _publish_copy(self, delay: float, *, began: bool = False) -> NoReturn:
        """
        Publish the same message again, record its generation, then let go of this one.

        In this order a crash at any point leaves at least one of the two. A message
        that *began* did so in time: its copy does not expire.
        """
        self.attempt.phase = Phase.PASSING
        generation = self.header.generation + 1
        copy = replace(self.header, generation=generation, delay=round(delay, 3), nonce="")
        try:
            send_again(self.task, copy, expires=not began)
        except Exception as error:  # whatever the broker's client raises
            logger.exception("%s could not be put off, it goes back to the queue", self.task)
            time.sleep(_PAUSE)  # a requeued message comes back at once, again and again
            raise Reject(error, requeue=True) from error
        try:
            self.guard.store.put_off(
                self.attempt.message,
                generation=copy.generation,
                completed_for=self.attempt.completed_for,
                # Long enough for the next look; were the worker to die that keeps the
                # copy, it would not block its entry until the broker brings it back.
                unique_for=min(self.once.unique_for, delay + 2 * self.once.lease_ttl),
            )
        except StoreUnavailable as error:
            logger.debug("%s: generation %d unrecorded: %s", copy, copy.generation, error)
        raise Ignore
