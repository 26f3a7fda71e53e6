"""The once_* settings of an app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onceguard.rules import checks
from onceguard.rules.address import check_options
from onceguard.rules.checks import ProblemError, collect, either
from onceguard.rules.choices import OnBeatStoreUnavailable
from onceguard.rules.errors import InvalidOptions, InvalidSettings
from onceguard.rules.options import check_defaults
from onceguard.rules.urls import MEMORY, SCHEMES, SEVERAL, redact, scheme, split_urls

OWNER = "the Celery configuration"

LONGEST_PREFIX = 64
SOCKET_TIMEOUT = 1.0

Get = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What celeryconfig says about onceguard, checked.

    Attributes:
        url: The lock server; None: see `lock_server.choose`. A tuple: independent
            masters.
        transport_options: How to be let in there; None: as the broker or the result
            backend is, where the URL is theirs.
        prefix: First part of every Redis key, so that projects can share a server.
        defaults: Options for all tasks, converted; only those that were given.
        socket_timeout: Seconds to wait for the lock server.
        wait_replicas: How many of its replicas are asked to confirm each write.
        keep_visible: Whether workers keep their running messages from being
            redelivered by the Redis broker.
        beat_ticks: Whether each tick is sent once, however many beats run.
        beat_on_store_unavailable: What beat does with a tick without the lock server.
        enabled: False switches everything off, for tests.
        history: Decisions kept for each key.
    """

    url: str | tuple[str, ...] | None = field(default=None, repr=False)
    transport_options: Mapping[str, Any] | None = field(default=None, repr=False)
    prefix: str = "once"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    socket_timeout: float = SOCKET_TIMEOUT
    wait_replicas: int = 0
    keep_visible: bool = True
    beat_ticks: bool = True
    beat_on_store_unavailable: OnBeatStoreUnavailable = OnBeatStoreUnavailable.SEND
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


def _url(value: Any) -> str | tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        return _one_url(value)
    urls = tuple(_one_url(each) for each in value)
    if not urls:
        raise ProblemError("once_url must not be an empty list. Give the URL of a Redis.")
    if len(urls) == 1 or all(scheme(url) in SEVERAL for url in urls):
        return _one_url(";".join(urls))
    return urls


def _one_url(value: Any) -> str:
    if not isinstance(value, str):
        raise ProblemError(f"once_url must be a string, got {type(value).__name__}.")
    if scheme(value) not in (*SCHEMES, MEMORY):
        starts = either(f"{name}://" for name in (*SCHEMES, MEMORY))
        raise ProblemError(f"once_url must start with {starts}, got {redact(value)!r}.")
    schemes = [scheme(url) for url in split_urls(value)]
    if len(schemes) > 1 and (len(set(schemes)) > 1 or schemes[0] not in SEVERAL):
        raise ProblemError(
            "once_url must be one URL, or those of several sentinels or nodes of one Cluster, "
            f"got {redact(value)!r}. Write independent masters as a list."
        )
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
    "transport_options": lambda value: check_options("once_transport_options", value),
    "socket_timeout": _socket_timeout,
    "wait_replicas": lambda value: checks.whole("once_wait_replicas", value, least=0),
    "keep_visible": lambda value: checks.switch("once_keep_visible", value),
    "beat_ticks": lambda value: checks.switch("once_beat_ticks", value),
    "beat_on_store_unavailable": lambda value: checks.choice(
        "once_beat_on_store_unavailable", value, OnBeatStoreUnavailable
    ),
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
