"""Publish a call under a claim of its key, or refuse it as a duplicate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from celery._state import get_current_worker_task
from celery.result import AsyncResult
from celery.utils import uuid

from onceguard.observe.events import Event, emit
from onceguard.publish.canvas import is_member
from onceguard.rules import header as headers
from onceguard.rules.errors import AlreadyQueued, StoreUnavailable
from onceguard.rules.lives import claim_life
from onceguard.rules.messages import (
    new_message_id,
    replacement_message_id,
    retry_message_id,
)
from onceguard.rules.options import Once, OnConflict, OnStoreUnavailable, Scope
from onceguard.rules.outcomes import Outcome
from onceguard.store.bound import guard_of, where
from onceguard.store.contract import Message, Successor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onceguard.rules.holder import Holder
    from onceguard.store.bound import Guard
    from onceguard.store.contract import Held


class DuplicateResult(AsyncResult):  # type: ignore[misc]
    """
    The result of the call that a duplicate was refused for.

    ``get()`` waits for that run. Attributes:
        duplicate: Always True.
        holder: Who had the key when the duplicate was refused.
    """

    duplicate = True
    holder: Holder


@dataclass(slots=True, kw_only=True)
class Call:
    """A call about to be published: the message, and how to send it."""

    task: Any
    send: Callable[..., Any]
    args: Any
    kwargs: Any
    options: dict[str, Any]
    once: Once
    message: Message
    header: headers.Header

    def publish(self) -> Any:
        """Hand the message with its header to Celery."""
        mine = {headers.NAME: self.header.dump()}
        given = self.options.pop("headers", None)
        merged = {**given, **mine} if given else mine
        task_id = self.message.task_id
        return self.send(
            self.args, self.kwargs, task_id=task_id, headers=merged, **self.options
        )

    def event(self, outcome: Outcome, holder: Holder | None, detail: str = "") -> Event:
        """Say what was decided about this call."""
        return Event(
            outcome=outcome,
            key=self.message.key,
            task=self.task.name,
            task_id=self.message.task_id,
            holder=holder,
            detail=detail,
        )


def publish(
    task: Any, send: Callable[..., Any], args: Any, kwargs: Any, options: dict[str, Any]
) -> Any:
    """
    Publish a call of a guarded task, if no equal call is queued or running.

    Args:
        task: The task, which knows its options and how to compute a key.
        send: Celery's own ``apply_async`` of the task.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        options: All other arguments of ``apply_async``, with ``once`` for this
            call among them.

    Returns:
        What *send* returns; a DuplicateResult if the call was refused quietly.

    Raises:
        AlreadyQueued: An equal call has the key. Nothing was sent.
        StoreUnavailable: The lock server did not answer. Nothing was sent.
        KeyNotComputable: An argument cannot be part of a key. Nothing was sent.
    """
    override = options.pop("once", None)
    guard = guard_of(task.app)
    decided = isinstance(override, headers.Header)  # by beat, which has claimed the key
    if decided:
        options["headers"] = {**(options.get("headers") or {}), headers.NAME: override.dump()}
    eager = task.app.conf.task_always_eager and not guard.in_memory
    if decided or not guard.settings.enabled or eager:
        return send(args, kwargs, **options)
    once = task.once_options if override is None else task.once_with(override)
    if once is None or (override is None and _off(options)):
        options["headers"] = {**(options.get("headers") or {}), headers.NAME: {"off": True}}
        return send(args, kwargs, **options)
    attempt = current()
    running = attempt.message if attempt is not None else None
    if running is not None and options.get("task_id") == running.task_id:
        call = _next_call(task, send, args, kwargs, options, once, attempt)
        return _publish_next(call, attempt)
    before = headers.load((options.get("headers") or {}).get(headers.NAME))
    if before is not None and options.get("retries"):
        options["headers"][headers.NAME] = _retry_header(before, options["retries"]).dump()
        return send(args, kwargs, **options)
    if options.get("serializer", task.serializer) != "pickle":
        args, kwargs = _dumped(task, args, kwargs)
    call = _call(task, send, args, kwargs, options, once, message_id=new_message_id())
    if override is not None and override is not True:
        call.header = _with_overrides(call.header, once)
    if once.scope is Scope.WHILE_EXECUTING:
        return call.publish()
    return _publish_claimed(guard, call)


def _retry_header(before: headers.Header, retries: int) -> headers.Header:
    """Identify the retry that Celery's worker publishes for a run whose process died."""
    return headers.Header(
        message_id=retry_message_id(before.message_id, retries),
        key=before.key,
        parent_id=before.message_id,
        overrides=before.overrides,
    )


def _dumped(task: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Dump pydantic models as the task says (Celery 5.7), for the worker sees no models."""
    dump = getattr(task, "_dump_pydantic_arguments", None)
    return dump(args, kwargs) if dump is not None else (args, kwargs)


def _off(options: Mapping[str, Any]) -> bool:
    """Whether this is a retry of a call for which guarding was switched off."""
    return headers.switched_off((options.get("headers") or {}).get(headers.NAME))


def current() -> Any:
    """
    Return the attempt that runs in this thread or greenlet: its ``self.request.once``.

    None outside a guarded task.
    """
    running = get_current_worker_task()
    attempt = getattr(running.request, "once", None) if running is not None else None
    return attempt if hasattr(attempt, "fencing_token") else None


def _call(  # noqa: PLR0913 - the parts of a call
    task: Any,
    send: Callable[..., Any],
    args: Any,
    kwargs: Any,
    options: dict[str, Any],
    once: Once,
    *,
    message_id: str,
) -> Call:
    key = task.once_key(args, kwargs, once)
    message = Message(
        key=key,
        message_id=message_id,
        task_id=options.pop("task_id", None) or uuid(),
        own_lease=once.scope is Scope.UNTIL_EXECUTING,
        where=where(),
    )
    header = headers.Header(message_id=message_id, key=key)
    return Call(
        task=task, send=send, args=args, kwargs=kwargs, options=options, once=once,
        message=message, header=header,
    )  # fmt: skip


def _with_overrides(header: headers.Header, once: Once) -> headers.Header:
    return headers.Header(
        message_id=header.message_id, key=header.key, overrides=once.to_header()
    )


def _publish_claimed(guard: Guard, call: Call) -> Any:
    member = is_member(call.options)
    try:
        held = guard.store.claim(call.message, unique_for=_claim_life(call))
    except StoreUnavailable as error:
        if not member and call.once.on_store_unavailable is OnStoreUnavailable.FAIL:
            emit(call.event(Outcome.STORE_UNAVAILABLE, None, f"not published: {error}"))
            raise
        emit(call.event(Outcome.STORE_UNAVAILABLE, None, f"published unclaimed: {error}"))
        return call.publish()
    if held is not None:
        return call.publish() if member else _refuse(call, held)
    try:
        result = call.publish()
    except BaseException:
        _unclaim(guard, call)
        raise
    if call.task.app.conf.task_always_eager:  # it has run: nobody else ends the claim
        _unclaim(guard, call)
    return result


def _unclaim(guard: Guard, call: Call) -> None:
    try:
        guard.store.unclaim(call.message)
    except StoreUnavailable as error:
        detail = f"the claim of a call that was not sent ends after unique_for: {error}"
        emit(call.event(Outcome.STORE_UNAVAILABLE, None, detail))


def _refuse(call: Call, held: Held) -> DuplicateResult:
    emit(call.event(Outcome.DUPLICATE, held.holder, f"{held.time_left:.0f} s left"))
    if call.once.on_conflict is OnConflict.RAISE:
        raise AlreadyQueued(key=call.message.key, holder=held.holder, countdown=held.time_left)
    task = call.task
    result = DuplicateResult(held.holder.task_id, backend=task.backend, app=task.app)
    result.holder = held.holder
    return result


def _next_call(  # noqa: PLR0913 - as _call
    task: Any,
    send: Callable[..., Any],
    args: Any,
    kwargs: Any,
    options: dict[str, Any],
    once: Once,
    attempt: Any,
) -> Call:
    """Make the retry or the replacement of the running task: the same task goes on."""
    parent, retried = attempt.message.message_id, task.name == attempt.task_name
    once = attempt.options if retried else once
    nesting = options.get("replaced_task_nesting") or 0
    if nesting > attempt.nesting:
        message_id = replacement_message_id(parent, nesting)
    else:
        message_id = retry_message_id(parent, options.get("retries") or 0)
    call = _call(task, send, args, kwargs, options, once, message_id=message_id)
    same_key = call.message.key == attempt.message.key
    call.header = headers.Header(
        message_id=message_id,
        key=call.message.key,
        parent_id=parent if same_key else None,
        overrides=attempt.header.overrides if retried else {},
        scheduled_at=attempt.header.scheduled_at,
    )
    return call


def _publish_next(call: Call, attempt: Any) -> Any:
    """
    Publish without asking: the key passes on when the running attempt ends.

    No claim is made for a retry with other arguments, which has another key:
    it must be published, whoever has that key, and is decided at its start.
    """
    result = call.publish()
    if call.header.parent_id and call.once.scope is not Scope.WHILE_EXECUTING:
        attempt.successor = Successor(
            message_id=call.message.message_id, unique_for=_claim_life(call)
        )
    return result


def _claim_life(call: Call) -> float:
    expires = getattr(call.task, "expires", None)
    return claim_life(call.once.unique_for, call.options, expires, datetime.now(timezone.utc))
