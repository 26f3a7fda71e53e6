"""Checks of single values, shared by options and settings."""

from __future__ import annotations

import math
from contextlib import contextmanager
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from enum import Enum

    Choice = TypeVar("Choice", bound=Enum)

LONGEST = 3650 * 86400.0
"""Seconds that anything may last. Redis refuses lives that overflow 64 bits of ms."""


class ProblemError(Exception):
    """What is wrong with one value: its `args` are sentences. Collected, never shown."""


@contextmanager
def collect(problems: list[str]) -> Iterator[None]:
    """Put a problem on the list and go on, so that all are reported together."""
    try:
        yield
    except ProblemError as problem:
        problems.extend(problem.args)


def suggestion(word: object, words: Iterable[str]) -> str:
    """Return ``" Did you mean '…'?"`` if *word* is close to one of *words*, else ``""``."""
    close = get_close_matches(str(word).lower(), list(words), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def either(words: Iterable[str]) -> str:
    """Write ``'a', 'b' or 'c'``."""
    *most, last = [repr(word) for word in words]
    return f"{', '.join(most)} or {last}" if most else last


def default_hint(default: float | None) -> str:
    """Say what happens when the value is left out."""
    return "" if default is None else f" Leave it out to use the default of {default:g} s."


def seconds(name: str, value: Any, *, least: float, default: float | None = None) -> float:
    """
    Turn a number of seconds or a timedelta into seconds.

    Strings are refused rather than guessed at: "30" may be meant as minutes.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    hint = default_hint(default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        shown = f"the {type(value).__name__} {value!r}"
        raise ProblemError(
            f"{name} must be a number of seconds or a timedelta, got {shown}.{hint}"
        )
    if not math.isfinite(value) or value > LONGEST:
        raise ProblemError(f"{name} must be at most {LONGEST:.0f} s, got {value} s.{hint}")
    if value < least:
        raise ProblemError(f"{name} must be at least {least:g} s, got {value:g} s.{hint}")
    return float(value)


def whole(name: str, value: Any, *, least: int) -> int:
    """Accept a whole number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ProblemError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def switch(name: str, value: Any) -> bool:
    """Accept True or False only: Celery hands strings through, and "0" would be true."""
    if not isinstance(value, bool):
        raise ProblemError(f"{name} must be True or False, got {value!r}.")
    return value


def choice(name: str, value: Any, choices: type[Choice], planned: Iterable[str] = ()) -> Choice:
    """Accept a member of *choices* or its text; *planned* texts get a sentence of their own."""
    words = [str(member.value) for member in choices]
    if isinstance(value, str):
        for member in choices:
            if value == member.value:
                return member
        if value in planned:
            raise ProblemError(f"{name}={value!r} does not exist yet. Use {either(words)}.")
    hint = suggestion(value, words)
    raise ProblemError(f"{name} must be {either(words)}, got {value!r}.{hint}")
