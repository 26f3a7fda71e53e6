"""What runs in this worker, and the thread that keeps it: state of the main process."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery.worker import state

from onceguard.store.bound import guard_of
from onceguard.worker.renewal import Keeper, Renewals, Running
from onceguard.worker.visibility import VisibilityKeeper

if TYPE_CHECKING:
    from collections.abc import Iterator

_COPIES = 10

#: Deliveries whose process is being terminated: Celery counts them as ended.
lingering: dict[str, Running] = {}
_keepers: WeakKeyDictionary[Any, Keeper] = WeakKeyDictionary()


def watch(app: Any, lease_ttl: float) -> None:
    """Renew leases of this length in time, and the broker's visibility of messages too."""
    guard = guard_of(app)
    if guard.settings.keep_visible and guard.visibility_timeout:
        lease_ttl = min(lease_ttl, guard.visibility_timeout)
    keeper_of(app).watch(lease_ttl)


def keeper_of(app: Any) -> Keeper:
    """Return the renewal thread of an app's worker; the same one each time."""
    keeper = _keepers.get(app)
    if keeper is None:
        guard = guard_of(app)
        store = guard.new_store()
        visible = None
        if guard.settings.keep_visible and guard.redis_broker:
            visible = VisibilityKeeper(_channels, guard.settings.socket_timeout)
        keeper = _keepers.setdefault(
            app, Keeper(Renewals(store, _running, _ended), store, visible)
        )
    return keeper


def _held(requests: Any) -> list[Any]:
    """Copy one of Celery's sets of requests, which the main thread changes meanwhile."""
    for _ in range(_COPIES):
        with suppress(RuntimeError):  # changed while it was copied
            return [each for each in list(requests) if getattr(each, "once", None) is not None]
    return []


def _running() -> Iterator[Running]:
    active = {each.once.nonce: each.once for each in _held(state.active_requests)}
    return iter({**lingering, **active}.values())


def _ended(running: Running) -> None:
    lingering.pop(running.nonce, None)


def _channels() -> Iterator[Any]:
    for each in _held(list(state.requests.values())):
        channel = getattr(each.message, "channel", None)
        if channel is not None:
            yield channel
