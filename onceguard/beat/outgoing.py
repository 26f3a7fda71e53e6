"""A tick on its way: the entry as it is sent, and the header that it carries."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from celery.beat import BeatLazyFunc

from onceguard.beat.entries import cleaned
from onceguard.rules.header import NAME, Header
from onceguard.rules.lives import delay
from onceguard.rules.options import OnRunConflict, OverlapPolicy, Scope

if TYPE_CHECKING:
    from onceguard.rules.options import Once
    from onceguard.store.message import Message


class Outgoing:
    """
    An entry as it is sent; everything else is the entry's.

    Args:
        entry: The scheduler's entry, which stays as it is.
        task: The task that it sends, None where this process does not know it.

    Attributes:
        task_object: The task.
        args: Positional arguments, each `celery.beat.BeatLazyFunc` evaluated.
        kwargs: Keyword arguments, likewise.
        options: Those of ``apply_async``.
    """

    def __init__(self, entry: Any, task: Any) -> None:
        self._entry = entry
        self.task_object = task
        self.args = [_evaluated(each) for each in entry.args or ()]
        self.kwargs = {name: _evaluated(each) for name, each in (entry.kwargs or {}).items()}
        self.options = cleaned(entry.options or {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    @property
    def of_ours(self) -> bool:
        """Whether the task has our base class, and would claim its key itself."""
        return hasattr(self.task_object, "once_with")

    def switch_off(self) -> None:
        """Send it unguarded."""
        if self.of_ours:
            self.options["once"] = False

    def stamp(self, header: Header) -> None:
        """Give the message its identity; a task of ours is told that beat has decided."""
        if self.of_ours:
            self.options["once"] = header
        else:
            given = self.options.get("headers") or {}
            self.options["headers"] = {**given, NAME: header.dump()}


def _evaluated(argument: Any) -> Any:
    return argument() if isinstance(argument, BeatLazyFunc) else argument


def header_of(
    out: Outgoing, once: Once, message: Message, due_at: float, *, patient: bool
) -> Header:
    """
    Make the header of a tick's message.

    Args:
        out: What is sent.
        once: The entry's options.
        message: What the store knows it by.
        due_at: When the tick was due, unix seconds.
        patient: Whether it is to wait for a call that runs, not to be skipped.
    """
    overrides = once.to_header()
    if once.overlap_policy is OverlapPolicy.ALLOW_ALL and message.own_lease:
        overrides["scope"] = Scope.UNTIL_EXECUTING.value
    if patient:
        overrides["on_run_conflict"] = OnRunConflict.RESCHEDULE.value
    start_by = None
    if once.misfire_grace_time is not None:
        wanted = delay(out.options, datetime.now(timezone.utc))
        start_by = due_at + wanted + once.misfire_grace_time
    return Header(
        message_id=message.message_id,
        key=message.key,
        overrides=overrides,
        scheduled_at=due_at,
        start_by=start_by,
        waits=message.waits,
    )
