"""Who a delivered message is: the same in the main process and in the pool process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onceguard.rules import header as headers
from onceguard.rules.messages import headerless_message_id
from onceguard.rules.options import Scope, parse
from onceguard.store.bound import guard_of, where
from onceguard.store.contract import Message

if TYPE_CHECKING:
    from onceguard.rules.options import Once


def options_of(task: Any, header: headers.Header | None) -> Once | None:
    """
    Return the options of the task with those of this call; None if it is unguarded.

    A task without our base class is guarded where a beat entry says so: its
    message has our header.
    """
    if not hasattr(task, "once_options"):
        return _of_plain_task(task, header)
    once: Once | None = task.once_options
    if header is not None and (header.overrides or once is None):
        once = task.once_with(header.overrides)
    return once


def _of_plain_task(task: Any, header: headers.Header | None) -> Once | None:
    if header is None:
        return None
    defaults = guard_of(task.app).settings.defaults
    return parse(header.overrides, owner=f"a call of {task.name}", defaults=defaults)


def headerless(  # noqa: PLR0913 - what Celery knows of a message
    task: Any, once: Once, task_id: str, retries: int, nesting: int, args: Any, kwargs: Any
) -> headers.Header:
    """Identify a message that was published without our header, by name alone."""
    return headers.Header(
        message_id=headerless_message_id(task_id, retries, nesting),
        key=task.once_key(args, kwargs, once),
    )


def message_of(header: headers.Header, task_id: str, once: Once) -> Message:
    """Name what the store knows the message by, as running in this process."""
    return Message(
        key=header.key,
        message_id=header.message_id,
        task_id=task_id,
        own_lease=once.scope is Scope.UNTIL_EXECUTING,
        where=where(),
        waits=header.waits,
    )
