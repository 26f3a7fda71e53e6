"""The settings and the store of an app, made when they are first needed."""

from __future__ import annotations

import os
import socket
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from onceguard.rules import settings as rules
from onceguard.rules.lock_server import backend_of, broker_of, choose
from onceguard.rules.urls import MEMORY, scheme, split_urls
from onceguard.store.opening import open_store
from onceguard.store.replicas import Replicas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onceguard.rules.address import Address
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
        self._broker, self._backend = broker_of(conf), backend_of(conf)
        transport = conf.get("broker_transport_options") or {}
        visibility = float(transport.get("visibility_timeout", _DEFAULT_VISIBILITY))
        self.visibility_timeout = visibility if self.redis_broker else None
        self.completed_for = max(_LEAST_MEMORY, 2 * (self.visibility_timeout or 0))
        self._store: Store | None = None

    @property
    def in_memory(self) -> bool:
        """Whether keys are held in this process only, so that eager calls can be guarded."""
        return isinstance(self.settings.url, str) and scheme(self.settings.url) == MEMORY

    @cached_property
    def address(self) -> Address:
        """
        Where the lock server is.

        Raises:
            InvalidSettings: Nowhere, or it can't be read.
        """
        return choose(self.settings, self._broker, self._backend)

    @cached_property
    def _replicas(self) -> Replicas | None:
        wanted = self.settings.wait_replicas
        if not wanted:
            return None
        return Replicas(
            wanted, server=self.address.shown, socket_timeout=self.settings.socket_timeout
        )

    @property
    def redis_broker(self) -> bool:
        """Whether messages come from a Redis broker, with its shared acknowledgement."""
        schemes = map(scheme, split_urls(self._broker.url))
        return any(each.startswith(("redis", "unix", "sentinel")) for each in schemes)

    @property
    def store(self) -> Store:
        """The store that the threads of a process share."""
        if self._store is None:
            self._store = self.new_store()
        return self._store

    def new_store(self) -> Store:
        """Make a store with connections of its own, for a thread that must not share."""
        return open_store(
            self.address,
            prefix=self.settings.prefix,
            socket_timeout=self.settings.socket_timeout,
            replicas=self._replicas,
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
