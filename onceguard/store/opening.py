"""Opening the store that fits an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onceguard.rules.address import Address, read_address, read_masters
from onceguard.store.cluster import Cluster
from onceguard.store.memory import Memory
from onceguard.store.redis import RedisStore
from onceguard.store.server import OneServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onceguard.store.replicas import Replicas
    from onceguard.store.server import Server


def open_store(
    address: Address | str | Sequence[str],
    *,
    prefix: str,
    socket_timeout: float,
    options: Mapping[str, Any] | None = None,
    replicas: Replicas | None = None,
) -> RedisStore:
    """
    Open a store.

    Args:
        address: Where the lock server is, or its URL, as Celery's users write it; a
            list of those of independent masters.
        prefix: Keeps the keys of apps apart that must not share locks.
        socket_timeout: Longest wait for a connection and for a reply, in seconds.
        options: What belongs to the URL, as in ``once_transport_options``.
        replicas: Who are asked to confirm each write; None: nobody.

    Returns:
        A store; nothing is sent before its first use. Safe to share between
        threads and greenlets, and to inherit through a fork.
    """
    if isinstance(address, str):
        address = read_address(address, options)
    elif not isinstance(address, Address):
        address = read_masters(address, options)
    server: Server
    if address.masters:
        from onceguard.store.masters import Masters  # noqa: PLC0415 - it brings pottery

        server = Masters(address, socket_timeout=socket_timeout)
    elif address.memory:
        server = Memory(address)
    elif address.cluster:
        server = Cluster(address, socket_timeout=socket_timeout, replicas=replicas)
    else:
        server = OneServer(address, socket_timeout=socket_timeout, replicas=replicas)
    return RedisStore(server, prefix=prefix)
