"""What can be said in ``once=``: parsed once, at declaration, never a dict below."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict

from onceguard.rules import checks
from onceguard.rules.checks import either
from onceguard.rules.choices import (
    OnConflict,
    OnRunConflict,
    OnStoreUnavailable,
    OverlapPolicy,
    Scope,
)
from onceguard.rules.errors import InvalidOptions
from onceguard.rules.option_rules import (
    BEAT_ONLY,
    LEASE_TTL,
    UNIQUE_FOR,
    checked,
    misplaced,
)
from onceguard.rules.template import parse_template

if TYPE_CHECKING:
    from collections.abc import Collection

    from typing_extensions import Unpack

__all__ = [
    "DEFAULTS",
    "OnConflict",
    "OnRunConflict",
    "OnStoreUnavailable",
    "Once",
    "OnceOptions",
    "OverlapPolicy",
    "Scope",
    "check_defaults",
    "check_signature",
    "override",
    "parse",
]

Seconds = float | timedelta


class OnceOptions(TypedDict, total=False):
    """What `Once` and the dict form take; the last three are celery-once's spellings."""

    keys: Collection[str] | None
    key: str | Callable[..., str] | None
    scope: Scope | str
    on_conflict: OnConflict | str
    on_run_conflict: OnRunConflict | str
    limit: int
    unique_for: Seconds
    lease_ttl: Seconds
    lock_at_least_for: Seconds
    lock_at_most_for: Seconds | None
    completed_for: Seconds | None
    max_deliveries: int
    on_store_unavailable: OnStoreUnavailable | str
    overlap_policy: OverlapPolicy | str
    misfire_grace_time: Seconds | None
    jitter: Seconds
    graceful: bool
    unlock_before_run: bool
    timeout: Seconds


@dataclass(frozen=True, slots=True, init=False)
class Once:
    """
    Options of a guarded task, checked.

    ``Once(lease_ttl=5)`` takes the names of `OnceOptions`. Durations are
    seconds or timedeltas there and seconds here.

    Attributes:
        keys: Names of the bound arguments that identify a call; None: all.
        key: Instead, a template or a function of the bound arguments.
        scope: From when to when the key is held.
        on_conflict: At publish.
        on_run_conflict: At start.
        limit: Holders at a time; 1 until more exists.
        unique_for: Longest life of a claim.
        lease_ttl: Life of a running attempt's hold without renewal.
        lock_at_least_for: 0 until it exists.
        lock_at_most_for: None until it exists.
        completed_for: Memory of finished messages; None: twice the broker's
            visibility timeout, at least an hour, which the worker knows.
        max_deliveries: Starts of one message before it is given up.
        on_store_unavailable: Without the lock server.
        overlap_policy: Of a beat entry: when the tick before has not ended.
        misfire_grace_time: Of a beat entry: how late a tick may be sent and
            its run may start; None: however late.
        jitter: Of a beat entry: each tick is delayed by up to so much, at random.
        given: The names that the innermost declaration gave itself, as
            opposed to those from defaults or from the task.

    Raises:
        InvalidOptions: With everything that is wrong.
    """

    keys: tuple[str, ...] | None = None
    key: str | Callable[..., str] | None = None
    scope: Scope = Scope.UNTIL_EXECUTED
    on_conflict: OnConflict = OnConflict.RAISE
    on_run_conflict: OnRunConflict = OnRunConflict.SKIP
    limit: int = 1
    unique_for: float = UNIQUE_FOR
    lease_ttl: float = LEASE_TTL
    lock_at_least_for: float = 0.0
    lock_at_most_for: float | None = None
    completed_for: float | None = None
    max_deliveries: int = 5
    on_store_unavailable: OnStoreUnavailable = OnStoreUnavailable.FAIL
    overlap_policy: OverlapPolicy = OverlapPolicy.SKIP
    misfire_grace_time: float | None = None
    jitter: float = 0.0
    given: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    # Written by hand because a generated one can't tell a default from a value
    # that was given, and fails on an unknown name without a suggestion.
    def __init__(self, **options: Unpack[OnceOptions]) -> None:
        _fill(self, DEFAULTS, checked(options, "Once(...)"))

    def to_header(self) -> dict[str, Any]:
        """
        Return what was `given`, fit for JSON and for `override` in the worker.

        Without `key` and `keys`, for the publisher has computed the key already,
        and without what is beat's.
        """
        return {
            name: value.value if isinstance(value := getattr(self, name), Enum) else value
            for name in sorted(self.given - {"key", "keys"} - BEAT_ONLY)
        }


DEFAULTS: Mapping[str, Any] = {f.name: f.default for f in fields(Once) if f.name != "given"}
"""Every option's value where nobody says anything."""


def parse(
    value: object,
    *,
    owner: str,
    defaults: Mapping[str, Any] | None = None,
    beat: bool = False,
) -> Once:
    """
    Turn what was written as ``once=`` into options.

    Args:
        value: True, a mapping or a `Once`. False and None are the caller's:
            they mean that nothing is guarded.
        owner: Who declared it, for the error: a task's name.
        defaults: Options where *value* says nothing, from `check_defaults`.
        beat: Whether a beat entry declared it, which has more options.

    Raises:
        InvalidOptions: With everything that is wrong.
    """
    given = _given(value, owner, beat=beat)
    once = object.__new__(Once)
    _fill(once, {**DEFAULTS, **(defaults or {})}, given)
    return once


def override(base: Once, value: object, owner: str, *, beat: bool = False) -> Once:
    """
    Lay what one call or beat entry says over its task's options.

    Raises:
        InvalidOptions: With everything that is wrong in *value*.
    """
    given = _given(value, owner, beat=beat)
    once = object.__new__(Once)
    _fill(once, {name: getattr(base, name) for name in DEFAULTS}, given)
    return once


def check_defaults(options: object, owner: str) -> dict[str, Any]:
    """
    Check options that are meant for all tasks, and only convert those given.

    Raises:
        InvalidOptions: Also for `key` and `keys`, which belong to one task.
    """
    if not isinstance(options, Mapping):
        raise InvalidOptions(owner, [f"it must be a dict of options, got {options!r}."])
    problems = [
        f"{name} belongs to a task and can't be a default. Give it to the task."
        for name in ("keys", "key")
        if name in options
    ]
    rest = {name: value for name, value in options.items() if name not in {"keys", "key"}}
    return checked(rest, owner, problems)


def check_signature(once: Once, signature: inspect.Signature, owner: str) -> None:
    """
    Refuse names that the task does not take, when it is declared.

    Args:
        once: The task's options.
        signature: How the task is called, without ``self``.
        owner: The task's name.

    Raises:
        InvalidOptions: With everything that is wrong.
    """
    parameters = signature.parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return  # any name may come
    problems = [
        f"{where} names {name!r}, which is not an argument of the task; it takes "
        f"{either(parameters) if parameters else 'none'}."
        f"{checks.suggestion(name, parameters)}"
        for where, name in _names(once)
        if name not in parameters
    ]
    if problems:
        raise InvalidOptions(owner, problems)


def _names(once: Once) -> list[tuple[str, str]]:
    if once.keys is not None:
        return [("keys", name) for name in once.keys]
    if isinstance(once.key, str):
        return [(f"key={once.key!r}", name) for name in parse_template(once.key).fields]
    if once.key is not None:
        return [("the function of key", name) for name in required_names(once.key)]
    return []


def required_names(function: Callable[..., Any]) -> list[str]:
    """Return the arguments that *function* can't be called without by keyword."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins don't tell
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}
    ]


def _given(value: object, owner: str, *, beat: bool) -> dict[str, Any]:
    if value is True:
        return {}
    if isinstance(value, Once):
        if not beat and (problems := misplaced(value.given)):
            raise InvalidOptions(owner, problems)
        return {name: getattr(value, name) for name in value.given}
    if isinstance(value, Mapping):
        return checked(value, owner, beat=beat)
    raise InvalidOptions(
        owner, [f"once must be True, False, a dict of options or Once(...), got {value!r}."]
    )


def _fill(once: Once, base: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    values = {**base, **given}
    if given.get("key") is not None:
        values["keys"] = None
    elif given.get("keys") is not None:
        values["key"] = None
    for name, value in values.items():
        object.__setattr__(once, name, value)
    object.__setattr__(once, "given", frozenset(given))
