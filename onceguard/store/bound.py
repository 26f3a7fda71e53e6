"""The settings and the store of an app, made when they are first needed."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from onceguard.rules import settings as rules
from onceguard.rules.urls import scheme, split_urls
from onceguard.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onceguard.store.contract import Store

_LEAST_MEMORY = 3600.0
_DEFAULT_VISIBILITY = 3600.0
_made: WeakKeyDictionary[Any, Guard] = WeakKeyDictionary()


class _Conf(Protocol):
    def get(self, key: str, default: Any = None, /) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...


class _App(Protocol):
    conf: Any
    namespace: str | None


class Guard:
    """
    What guards the tasks of one app.

    Attributes:
        settings: Its checked ``once_*`` settings.
        store: Where keys are held.
        visibility_timeout: After how many seconds the broker delivers an
            unacknowledged message again; None if it waits for ever.
        completed_for: How long a finished message is remembered by default,
            in seconds: twice the visibility timeout, at least an hour.
    """

    def __init__(self, app: _App) -> None:
        conf = app.conf
        self.settings = rules.read(conf.get, configured(conf, app.namespace))
        # Attributes, not get(): these also know Celery's environment variables and -b.
        self._broker_url = conf.broker_url or conf.broker_read_url
        self._backend = conf.result_backend
        transport = conf.get("broker_transport_options") or {}
        visibility = float(transport.get("visibility_timeout", _DEFAULT_VISIBILITY))
        self.visibility_timeout = visibility if self.redis_broker else None
        self.completed_for = max(_LEAST_MEMORY, 2 * (self.visibility_timeout or 0))
        self._store: Store | None = None

    @property
    def redis_broker(self) -> bool:
        """Whether messages come from a Redis broker, with its shared acknowledgement."""
        schemes = map(scheme, split_urls(self._broker_url))
        return any(each.startswith(("redis", "unix", "sentinel")) for each in schemes)

    @property
    def store(self) -> Store:
        """The store that the threads of a process share."""
        if self._store is None:
            self._store = self.new_store()
        return self._store

    def new_store(self) -> Store:
        """Make a store with connections of its own, for a thread that must not share."""
        return RedisStore(
            rules.choose_url(self.settings, self._broker_url, self._backend),
            prefix=self.settings.prefix,
            socket_timeout=self.settings.socket_timeout,
        )


def configured(conf: _Conf, namespace: str | None) -> list[str]:
    """Name every setting as Celery looks it up: without the project's namespace."""
    head = f"{namespace}_".lower() if namespace else ""
    return [name[len(head) :] if name.lower().startswith(head) else name for name in conf]


def guard_of(app: _App) -> Guard:
    """
    Return the guard of an app; the same one each time.

    Raises:
        InvalidSettings: A ``once_*`` setting is wrong, or no Redis is configured.
    """
    guard = _made.get(app)
    if guard is None:
        guard = _made.setdefault(app, Guard(app))
    return guard


_place: tuple[int, str] = (0, "")


def where() -> str:
    """Host and process, as records show them: ``host:pid``."""
    global _place  # noqa: PLW0603 - a cache that a fork outdates
    pid = os.getpid()
    if _place[0] != pid:
        _place = pid, f"{socket.gethostname().replace(' ', '_')}:{pid}"
    return _place[1]
