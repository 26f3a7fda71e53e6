"""What the worker's main process does for a guarded message: Celery's Request, extended."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore
from celery.worker.request import Request

from onceguard.observe.events import Event, emit
from onceguard.rules import header as headers
from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.messages import new_message_id
from onceguard.rules.outcomes import Outcome
from onceguard.store.bound import guard_of
from onceguard.worker.attempt import claim_life_after
from onceguard.worker.identity import headerless, message_of, options_of
from onceguard.worker.renewal import Running
from onceguard.worker.running import keeper_of, lingering, watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.store.bound import Guard
    from onceguard.store.contract import Store

logger = logging.getLogger("onceguard")

# A child gets SIGTERM at its hard time limit and SIGKILL a tenth of a second later.
_KILLED_WITHIN = 2.0


class GuardedRequest(Request):  # type: ignore[misc]
    """
    A delivered message of a guarded task.

    Gives each delivery a nonce, and knows the ends that no code in the pool
    process hears of: a child that died, a message revoked or expired before its
    start, a hard time limit. A fault in here leaves Celery's own handling as it is.
    """

    once: Running | None = None
    _once_guard: Guard
    _once_process: str = "alive"
    _once_settled = False
    _once_revoking = False
    _once_repeated = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._once_received = time.monotonic()
        try:
            self._identify()
        except Exception as error:  # noqa: BLE001 - the pool process will say it as FAILURE
            logger.warning("%s[%s] cannot be guarded: %s", self.name, self.id, error)

    def _identify(self) -> None:
        task, wire = self._task, self._request_dict.get(headers.NAME)
        self._once_guard = guard = guard_of(self._app)
        if not guard.settings.enabled or headers.switched_off(wire):
            return
        header = headers.load(wire)
        once = options_of(task, header)
        if once is None:
            return
        if header is None:
            retries = self._request_dict.get("retries") or 0
            nesting = self._request_dict.get("replaced_task_nesting") or 0
            header = headerless(task, once, self.id, retries, nesting, self._args, self._kwargs)
        nonce = new_message_id()
        self._request_dict[headers.NAME] = replace(
            header, nonce=nonce, content_type=self._content_type or ""
        ).dump()
        if header.delay:
            self._bound_eta(header.delay)
        self._once_repeated = bool(
            header.generation or header.parent_id or self._delivery_info["redelivered"]
        )
        self.once = Running(
            message=message_of(header, self.id, once),
            nonce=nonce,
            once=once,
            completed_for=once.completed_for or guard.completed_for,
            task_name=task.name,
        )
        watch(self._app, once.lease_ttl)

    def _bound_eta(self, delay: float) -> None:
        """Wait no longer than a copy was put off: another host's clock made its ETA."""
        eta = self.eta
        if eta is not None:
            self._eta = min(eta, datetime.now(eta.tzinfo) + timedelta(seconds=delay))

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """As Celery's; the renewal thread learns of the run's lease soon."""
        super().on_accepted(pid, time_accepted)
        if self.once is not None:
            keeper_of(self._app).accepted()

    def revoked(self) -> bool:
        """
        As Celery's; a message revoked or expired before its start is settled.

        After its state is stored and before its acknowledgement, for which Celery
        calls `acknowledge` in here.
        """
        self._once_revoking = True
        try:
            return bool(super().revoked())
        finally:
            self._once_revoking = False

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """
        As Celery's, after working out what became of the process.

        A task that raises MemoryError fails like any other: Celery would end
        the whole worker, and then the next one that the message comes to.
        """
        exc = _unwrapped(exc_info)
        if isinstance(exc, MemoryError) and self.once is not None:
            exc_info = _survivable(exc)
        elif isinstance(exc, (WorkerLostError, SystemExit, KeyboardInterrupt)):
            self._once_process = "dead"
        elif isinstance(exc, TimeLimitExceeded):
            self._once_process = "dying"
        elif isinstance(exc, Ignore):  # put off, perhaps
            self._once_repeated = True
        elif isinstance(exc, Terminated):  # killed on purpose, and reaped
            self._once_process = "dead"
            self._once_settle(requeue=self._already_cancelled)
        try:
            return super().on_failure(
                exc_info, send_failed_event=send_failed_event, return_ok=return_ok
            )
        finally:
            self._once_settle(requeue=not self.acknowledged)
            self._once_over()

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """As Celery's; at a hard limit the process has yet to be killed."""
        if not soft and self._once_process == "alive":
            self._once_process = "dying"
        super().on_timeout(soft, timeout)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """As Celery's; the lease is renewed until the process is gone."""
        super().terminate(pool, signal=signal)
        self._once_lingers()

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        """As Celery's; the lease is renewed until the process is gone."""
        super().cancel(pool, signal=signal, **options)
        self._once_lingers()

    def _once_lingers(self) -> None:
        """Celery counts the request as ended here; its process may clean up for long."""
        if self.time_start and self.once is not None:
            lingering[self.once.nonce] = self.once

    def _once_over(self) -> None:
        if self.once is not None:
            lingering.pop(self.once.nonce, None)

    def acknowledge(self) -> None:
        """As Celery's; before it, what a dead process held is freed: the message is over."""
        if not self.acknowledged:
            self._once_settle(requeue=False)
            if self._once_revoking:
                self._once_drop()
        else:
            self._once_over()
        super().acknowledge()
        if self.once is not None and self._unaskable():
            keeper_of(self._app).forget(self.once.message)

    def reject(self, requeue: bool = False) -> None:
        """As Celery's; before it, a dead process's lease becomes its message's claim."""
        if not self.acknowledged:
            self._once_settle(requeue=requeue)
        super().reject(requeue=requeue)

    def _once_settle(self, *, requeue: bool) -> None:
        """
        Act once on what became of the process, knowing what becomes of the message.

        A child past its hard time limit is still alive here: its lease is only
        shortened, and left alone if the message is to run again.
        """
        if self._once_settled or self._once_process == "alive":
            return
        self._once_settled = True
        if self._once_process == "dead":
            if requeue:
                self._once_abandon()
            else:
                self._once_finish()
        elif not requeue:
            self._once_shorten()

    def _once_abandon(self) -> None:
        once = self.once
        if once is None:
            return
        life = claim_life_after(once.once)
        if self._asked(
            lambda store: store.abandon(once.message, nonce=once.nonce, unique_for=life)
        ):
            detail = "its process died; its message is delivered again"
            emit(self._event(Outcome.ABANDONED, detail))

    def _once_drop(self) -> None:
        once = self.once
        if once is None:
            return

        def drop(store: Store) -> bool:
            return store.drop(once.message, completed_for=once.completed_for)

        keeper = keeper_of(self._app)
        if keeper.away or self._asked(drop) is None:
            keeper.run_errand(drop)

    def _once_finish(self) -> None:
        once = self.once
        if once is not None:
            self._asked(
                lambda store: store.finish(
                    once.message, nonce=once.nonce, completed_for=once.completed_for
                )
            )

    def _once_shorten(self) -> None:
        once = self.once
        if once is not None:
            self._asked(
                lambda store: store.shorten(
                    once.message,
                    nonce=once.nonce,
                    lease_ttl=_KILLED_WITHIN,
                    completed_for=once.completed_for,
                )
            )

    def _asked(self, ask: Callable[[Store], Any]) -> Any:
        """Ask the store at once: rare, and what follows needs it done."""
        try:
            return ask(self._once_guard.store)
        except StoreUnavailable as error:
            emit(self._event(Outcome.STORE_UNAVAILABLE, f"the lease ends by itself: {error}"))
            return None

    def _event(self, outcome: Outcome, detail: str) -> Event:
        key = self.once.message.key if self.once else ""
        return Event(
            outcome=outcome, key=key, task=self._task.name, task_id=self.id, detail=detail
        )

    def _unaskable(self) -> bool:
        """
        Whether no copy of this acknowledged message can come any more.

        It was not redelivered or put off, it is no retry (which a parent that runs
        twice publishes twice), it was not out for longer than the
        visibility timeout, and the connection that it came by still stands:
        forgetting any other was seen to run it again. Nor if the task says for
        how long it wants to be remembered.
        """
        visibility = self._once_guard.visibility_timeout
        age = time.monotonic() - self._once_received
        return (
            not self._once_repeated
            and self.once is not None
            and self.once.once.completed_for is None
            and (visibility is None or age < visibility)
            and _open(getattr(self._message, "channel", None))
        )


def _open(channel: Any) -> bool:
    if channel is None:
        return False
    closed = getattr(channel, "closed", None)  # kombu's virtual transports
    return not closed if closed is not None else bool(getattr(channel, "is_open", False))


def _unwrapped(exc_info: Any) -> Any:
    exc: Any = exc_info.exception
    return exc.exc if isinstance(exc, ExceptionWithTraceback) else exc


class TaskOutOfMemory(Exception):  # noqa: N818 - as MemoryError
    """A task raised MemoryError; its own failure is stored as that."""


def _survivable(error: BaseException) -> Any:
    try:
        raise TaskOutOfMemory(str(error)) from error  # noqa: TRY301 - the traceback is wanted
    except TaskOutOfMemory:
        return ExceptionInfo()
