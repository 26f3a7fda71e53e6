"""The once_* settings of an app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onceguard.rules import checks
from onceguard.rules.checks import ProblemError, collect, either
from onceguard.rules.errors import InvalidOptions, InvalidSettings
from onceguard.rules.options import check_defaults
from onceguard.rules.urls import SCHEMES, redact, scheme, split_urls

OWNER = "the Celery configuration"

LONGEST_PREFIX = 64
SOCKET_TIMEOUT = 1.0

Get = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What celeryconfig says about onceguard, checked.

    Attributes:
        url: The lock server; None: see `choose_url`. A tuple is reserved for
            independent masters.
        prefix: First part of every Redis key, so that projects can share a server.
        defaults: Options for all tasks, converted; only those that were given.
        socket_timeout: Seconds to wait for the lock server.
        keep_visible: Whether workers keep their running messages from being
            redelivered by the Redis broker.
        beat_ticks: Whether each tick is sent once, however many beats run.
        enabled: False switches everything off, for tests.
        history: Decisions kept for each key.
    """

    url: str | tuple[str, ...] | None = None
    prefix: str = "once"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    socket_timeout: float = SOCKET_TIMEOUT
    keep_visible: bool = True
    beat_ticks: bool = True
    enabled: bool = True
    history: int = 0


def read(get: Get, names: Iterable[str], owner: str = OWNER) -> Settings:
    """
    Read the settings.

    Args:
        get: ``app.conf.get``.
        names: Every configured name, for finding misspelt ones; with Celery's
            namespace taken off, in any case.
        owner: Whose settings these are, for the error.

    Raises:
        InvalidSettings: With everything that is wrong.
    """
    problems = [*_unknown(get, names)]
    old = _celery_once(get, problems)
    values: dict[str, Any] = {}
    for name, rule in _RULES.items():
        value = get(f"once_{name}", None)
        if value is None:
            continue
        with collect(problems):
            values[name] = rule(value)
    if problems:
        raise InvalidSettings(owner, problems)
    values.setdefault("url", old.pop("url", None))
    values["defaults"] = {**old, **values.get("defaults", {})}
    return Settings(**values)


def choose_url(settings: Settings, broker_url: object, result_backend: object) -> str:
    """
    Decide which server holds the locks.

    It is ``once_url``, else the broker's URL if it is Redis, else the result
    backend's. Of several brokers (failover) it is the first on Redis: all
    processes must agree on one.

    Raises:
        InvalidSettings: None of them is a single Redis.
    """
    if isinstance(settings.url, str):
        return settings.url
    candidates = [*split_urls(broker_url), *split_urls(result_backend)]
    for url in candidates:
        if scheme(url) in SCHEMES:
            return url
    found = ", ".join(redact(url) for url in candidates) or "neither is set"
    later = " Sentinel does not work yet." if any(map(_is_sentinel, candidates)) else ""
    raise InvalidSettings(
        OWNER,
        [_NO_REDIS.format(found=found, later=later)],
    )


_NO_REDIS = (
    "no Redis to keep locks on: once_url is not set, and neither broker nor result backend "
    "is Redis ({found}).{later} Set once_url='redis://host:6379/0'."
)


def _is_sentinel(url: str) -> bool:
    return "sentinel" in scheme(url)


def _unknown(get: Get, names: Iterable[str]) -> Iterable[str]:
    """Report once_* names that nobody reads."""
    known = [f"once_{name}" for name in _RULES]
    for name in names:
        lower = name.lower()
        if not lower.startswith("once_"):
            continue
        if lower not in known:
            yield f"{name!r} is not a setting.{checks.suggestion(lower, known)}"
        elif name != lower and get(lower, None) is None and get(name, None) is not None:
            yield (
                f"{name!r} is not read: Celery finds settings in lower case only, unless "
                f"they have its namespace. Write {lower!r}."
            )


def _url(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        raise ProblemError(
            "once_url can't be a list yet: locks on several independent servers do not exist "
            "yet. Give the URL of one Redis."
        )
    if not isinstance(value, str):
        raise ProblemError(f"once_url must be a string, got {type(value).__name__}.")
    if _is_sentinel(value):
        raise ProblemError(
            f"once_url={redact(value)!r}: Sentinel does not work yet. "
            "Give the URL of one Redis."
        )
    if scheme(value) not in SCHEMES:
        starts = either(f"{name}://" for name in SCHEMES)
        raise ProblemError(f"once_url must start with {starts}, got {redact(value)!r}.")
    if len(split_urls(value)) > 1:
        raise ProblemError(f"once_url must be one URL, got {redact(value)!r}.")
    return value


def _prefix(value: Any) -> str:
    if (
        not isinstance(value, str)
        or not (0 < len(value) <= LONGEST_PREFIX)
        or not _plain(value)
    ):
        raise ProblemError(
            f"once_prefix must be 1 to {LONGEST_PREFIX} printable ASCII characters without "
            f"spaces and braces, got {value!r}."
        )
    return value


def _plain(text: str) -> bool:
    return all("!" <= character <= "~" and character not in "{}" for character in text)


def _defaults(value: Any) -> dict[str, Any]:
    try:
        return check_defaults(value, "once_defaults")
    except InvalidOptions as error:
        told = [f"once_defaults: {problem}" for problem in error.problems]
        raise ProblemError(*told) from error


def _socket_timeout(value: Any) -> float:
    return checks.seconds("once_socket_timeout", value, least=0.001, default=SOCKET_TIMEOUT)


_RULES: dict[str, Callable[[Any], Any]] = {
    "url": _url,
    "prefix": _prefix,
    "defaults": _defaults,
    "socket_timeout": _socket_timeout,
    "keep_visible": lambda value: checks.switch("once_keep_visible", value),
    "beat_ticks": lambda value: checks.switch("once_beat_ticks", value),
    "enabled": lambda value: checks.switch("once_enabled", value),
    "history": lambda value: checks.whole("once_history", value, least=0),
}


def _celery_once(get: Get, problems: list[str]) -> dict[str, Any]:
    """Read celery-once's ``ONCE``: the URL, and what stands for our defaults."""
    old = get("ONCE", None) or {}
    inner = old.get("settings", {}) if isinstance(old, Mapping) else None
    if not isinstance(inner, Mapping):
        problems.append(
            f"ONCE must be a dict as celery-once takes it, got {type(old).__name__}."
        )
        return {}
    found: dict[str, Any] = {}
    _old_backend(old, problems)
    _old_blocking(inner, problems)
    with collect(problems):
        if inner.get("url") is not None and get("once_url", None) is None:
            found["url"] = _url(inner["url"])
    with collect(problems):
        if inner.get("default_timeout") is not None:
            found["unique_for"] = checks.seconds(
                "default_timeout of ONCE", inner["default_timeout"], least=1
            )
    return found


def _old_backend(old: Mapping[str, Any], problems: list[str]) -> None:
    backend = old.get("backend")
    if backend is not None and not str(backend).endswith(".Redis"):
        problems.append(
            f"ONCE names the backend {backend!r}, but locks are kept on Redis only. Take ONCE "
            "out and set once_url."
        )


def _old_blocking(inner: Mapping[str, Any], problems: list[str]) -> None:
    # blocking_timeout alone does nothing in celery-once either.
    if inner.get("blocking"):
        problems.append(
            "ONCE settings: blocking makes a publish wait for the lock, which is not offered. "
            "Take it out; with on_conflict='skip' the result of the refused call can be waited "
            "for."
        )
