"""
What onceguard raises.

    OnceError
    ├── InvalidOptions     (ValueError)  a task, call or entry is declared wrongly
    ├── InvalidSettings    (ValueError)  the once_* settings are wrong
    ├── KeyNotComputable   (TypeError)   an argument has no canonical text
    ├── AlreadyQueued                    an equal call is queued or running
    ├── LeaseLost                        this run no longer has its key
    │   └── Superseded                   a newer tick told this run to stop
    ├── StoreUnavailable                 the lock server did not answer
    └── TooManyDeliveries                a message killed its process too often

`args` of each are the arguments of its constructor, plain enough for JSON.
Pickle, copy and Celery's result backends build an exception again from its
`args`, so whoever waits for a result gets the same exception with the same
attributes. The sentence is made when it is asked for.
"""

# ruff: noqa: N818 - the names are what users catch, and celery-once's

from __future__ import annotations

from typing import TYPE_CHECKING

from onceguard.rules.holder import Holder

if TYPE_CHECKING:
    from collections.abc import Iterable


class OnceError(Exception):
    """Base of everything that onceguard raises on purpose."""

    def __repr__(self) -> str:
        """Show the sentence: Celery logs a failed task by its exception's repr."""
        return f"{type(self).__name__}({str(self)!r})"


class _Invalid(OnceError, ValueError):
    """
    A declaration with all that is wrong with it.

    Attributes:
        owner: Who declared it, such as a task's name.
        problems: One sentence each, with the way out.
    """

    _what: str

    def __init__(self, owner: str, problems: Iterable[str]) -> None:
        self.owner = owner
        self.problems = tuple(problems)
        super().__init__(owner, self.problems)

    def __str__(self) -> str:
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{self.owner} has invalid {self._what}:{lines}"


class InvalidOptions(_Invalid):
    """The once options of a task, a call or a beat entry; nothing was published."""

    _what = "once options"


class InvalidSettings(_Invalid):
    """The once_* settings of an app."""

    _what = "once_* settings"


class KeyNotComputable(OnceError, TypeError):
    """
    The key of a call can't be made from its arguments; nothing was published.

    Attributes:
        task: Name of the task.
        argument: Name of the argument, or "" if the whole key is at fault.
        value_type: Type of the value that has no canonical text, which may
            be one that the argument holds; "" if no value is at fault.
        reason: What is wrong, without a full stop.
    """

    def __init__(self, task: str, argument: str, value_type: str, reason: str = "") -> None:
        self.task = task
        self.argument = argument
        self.value_type = value_type
        self.reason = reason
        super().__init__(task, argument, value_type, reason)

    def __str__(self) -> str:
        reason = self.reason or (
            f"{self.value_type} has no text that is the same in every process"
        )
        subject = f"argument {self.argument!r}" if self.argument else "this call"
        return (
            f"{self.task}: no key can be made of {subject}: {reason}. "
            'Name the arguments that identify a call with once={"keys": [...]}, or '
            'make the key yourself with once={"key": ...}, a template or a function.'
        )


class AlreadyQueued(OnceError):
    """
    An equal call is queued or running; this one was not published.

    Attributes:
        key: What must be unique.
        holder: The call that has it.
        countdown: Seconds until the key is free at the latest, unless its
            holder starts, renews or ends in the meantime. celery-once's name.
    """

    def __init__(self, key: str, holder: Holder | str, countdown: float) -> None:
        self.key = key
        self.holder = Holder.parse(holder) if isinstance(holder, str) else holder
        self.countdown = float(countdown)
        super().__init__(key, self.holder.record(), self.countdown)

    def __str__(self) -> str:
        return (
            f"{self.key} is already {self.holder}; this call was not published. "
            f"The hold ends in {self.countdown:.1f} s unless it is renewed. "
            'Use once={"on_conflict": "skip"} to get that task\'s result instead of '
            'this error, or once={"keys": [...]} if the two calls are not the same work.'
        )


class LeaseLost(OnceError):
    """
    This run no longer has its key; another run may have begun.

    Attributes:
        key: What this run held.
        fencing_token: Its token. A successor's is higher.
    """

    def __init__(self, key: str, fencing_token: int) -> None:
        self.key = key
        self.fencing_token = fencing_token
        super().__init__(key, fencing_token)

    def __str__(self) -> str:
        return (
            f"the lease of {self.key} with fencing token {self.fencing_token} is lost: "
            "it was not renewed in time, and another run may have begun. Stop without "
            "further side effects; a longer lease_ttl makes this rarer."
        )


class Superseded(LeaseLost):
    """
    A newer tick wants to run, and its entry says overlap_policy="cancel_other".

    This run still has its key; the newer one waits for its end.
    """

    def __str__(self) -> str:
        return (
            f"this run of {self.key} is superseded by a newer tick of its schedule entry, "
            'which says overlap_policy="cancel_other". Stop here: the newer one waits for '
            "the end of this run."
        )


class StoreUnavailable(OnceError):
    """
    The lock server did not answer in time or refused.

    The operation may have been carried out all the same; what it took ends
    by itself.

    Attributes:
        server: Address, without a password.
        operation: What was asked: claim, start, renew, finish, …
        reason: The driver's words.
    """

    def __init__(self, server: str, operation: str, reason: str) -> None:
        self.server = server
        self.operation = operation
        self.reason = reason
        super().__init__(server, operation, reason)

    def __str__(self) -> str:
        reason = self.reason.rstrip(".")
        return (
            f"{self.operation} failed, the lock server {self.server} is unavailable: "
            f'{reason}. Try again, or use once={{"on_store_unavailable": "run"}} '
            "for tasks that may rather run unguarded than not at all."
        )


class TooManyDeliveries(OnceError):
    """
    A message was started max_deliveries times and none of its runs came to an end.

    Attributes:
        key: What the message would have run for.
        attempts: Starts so far.
        max_deliveries: The limit.
    """

    def __init__(self, key: str, attempts: int, max_deliveries: int) -> None:
        self.key = key
        self.attempts = attempts
        self.max_deliveries = max_deliveries
        super().__init__(key, attempts, max_deliveries)

    def __str__(self) -> str:
        return (
            f"{self.key} was started {self.attempts} times and never came to an end "
            f"(max_deliveries is {self.max_deliveries}); it is given up. It probably kills "
            "its process: look for out-of-memory kills and crashes in the worker's log, "
            "then publish it again."
        )
