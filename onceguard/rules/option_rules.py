"""What each option may be, and celery-once's names for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onceguard.rules import checks
from onceguard.rules.checks import ProblemError, collect, either
from onceguard.rules.choices import (
    OnConflict,
    OnRunConflict,
    OnStoreUnavailable,
    OverlapPolicy,
    Scope,
)
from onceguard.rules.errors import InvalidOptions
from onceguard.rules.template import parse_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from enum import Enum

UNIQUE_FOR = 3600.0
LEASE_TTL = 30.0
_LEAST_GRACE = 0.1


def checked(
    options: Mapping[str, Any],
    owner: str,
    problems: list[str] | None = None,
    *,
    beat: bool = True,
) -> dict[str, Any]:
    """Check and convert the options given, and only those; *beat*: those of entries too."""
    problems = [] if problems is None else problems
    if not beat:
        problems += misplaced(options)
    good: dict[str, Any] = {}
    for name, value in _translated(options, problems).items():
        with collect(problems):
            good[name] = _RULES[name](value)
    if options.get("key") is not None and options.get("keys") is not None:
        problems.append("key and keys exclude each other. Keep the one that makes the key.")
    if problems:
        raise InvalidOptions(owner, problems)
    return good


def misplaced(names: Iterable[str]) -> list[str]:
    """Report options of beat entries that a task or a call was given."""
    return [
        f"{name!r} belongs to beat entries. Write it in the once of the schedule's entry, "
        "or for all entries in once_defaults."
        for name in names
        if name in BEAT_ONLY
    ]


def _translated(options: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Put celery-once's spellings into ours and report unknown names."""
    ours = {name: value for name, value in options.items() if name in _RULES}
    for name, value in options.items():
        if name in _ALIASES:
            _translate(name, value, ours, problems)
        elif name not in _RULES:
            hint = checks.suggestion(name, (*_RULES, *_ALIASES))
            problems.append(f"{name!r} is not an option.{hint}")
    return ours


def _translate(alias: str, value: Any, ours: dict[str, Any], problems: list[str]) -> None:
    name, words = _ALIASES[alias]
    with collect(problems):
        meant = words[checks.switch(alias, value)] if words else value
        if name in ours and not _same(name, ours[name], meant):
            raise ProblemError(
                f"{alias}={value!r} means {name}={meant!r}, but {name}={ours[name]!r} is "
                f"given too. Keep {name}."
            )
        ours.setdefault(name, meant)


def _same(name: str, one: Any, other: Any) -> bool:
    try:
        return bool(_RULES[name](one) == _RULES[name](other))
    except ProblemError:  # reported when the option itself is checked
        return True


def _keys(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        raise ProblemError(
            f"keys must be a list of argument names, got the string {value!r}. "
            f"Write keys=[{value!r}]."
        )
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(
        isinstance(name, str) for name in value
    ):
        raise ProblemError(f"keys must be a list of argument names, got {value!r}.")
    if not value:
        raise ProblemError(
            "keys is empty, so that all calls would be equal. If that is meant, give the "
            "key a name with key='…'; leave keys out to use all arguments."
        )
    twice = sorted({name for name in value if list(value).count(name) > 1})
    if twice:
        raise ProblemError(f"keys names {either(twice)} twice.")
    return tuple(sorted(value)) if isinstance(value, (set, frozenset)) else tuple(value)


def _key(value: Any) -> str | Callable[..., str] | None:
    if isinstance(value, str):
        parse_template(value)
    elif value is not None and not callable(value):
        raise ProblemError(
            "key must be a template such as 'account:{account_id}' or a function, "
            f"got {value!r}."
        )
    return value  # type: ignore[no-any-return]


def _planned(name: str, only: Any) -> Callable[[Any], Any]:
    def rule(value: Any) -> Any:
        if value != only or isinstance(value, bool):
            raise ProblemError(
                f"{name}={value!r} does not exist yet; only {only!r} does. Leave it out."
            )
        return only

    return rule


def _seconds(name: str, default: float | None) -> Callable[[Any], Any]:
    def rule(value: Any) -> float | None:
        if default is None and value is None:
            return None
        return checks.seconds(name, value, least=1, default=default)

    return rule


def _choice(name: str, choices: type[Enum], *planned: str) -> Callable[[Any], Any]:
    return lambda value: checks.choice(name, value, choices, planned)


def _grace(value: Any) -> float | None:
    if value is None:
        return None
    return checks.seconds("misfire_grace_time", value, least=_LEAST_GRACE)


_RULES: dict[str, Callable[[Any], Any]] = {
    "keys": _keys,
    "key": _key,
    "scope": _choice("scope", Scope, "until_and_while_executing", "until_expired"),
    "on_conflict": _choice("on_conflict", OnConflict, "replace", "join"),
    "on_run_conflict": _choice("on_run_conflict", OnRunConflict, "reject", "join"),
    "limit": _planned("limit", 1),
    "unique_for": _seconds("unique_for", UNIQUE_FOR),
    "lease_ttl": _seconds("lease_ttl", LEASE_TTL),
    "lock_at_least_for": _planned("lock_at_least_for", 0.0),
    "lock_at_most_for": _planned("lock_at_most_for", None),
    "completed_for": _seconds("completed_for", None),
    "max_deliveries": lambda value: checks.whole("max_deliveries", value, least=1),
    "on_store_unavailable": _choice("on_store_unavailable", OnStoreUnavailable),
    "overlap_policy": _choice("overlap_policy", OverlapPolicy),
    "misfire_grace_time": _grace,
    "jitter": lambda value: checks.seconds("jitter", value, least=0, default=0.0),
}
_ALIASES: dict[str, tuple[str, dict[bool, str] | None]] = {
    "graceful": ("on_conflict", {True: "skip", False: "raise"}),
    "unlock_before_run": ("scope", {True: "until_executing", False: "until_executed"}),
    "timeout": ("unique_for", None),
}
BEAT_ONLY = frozenset({"overlap_policy", "misfire_grace_time", "jitter"})
