"""
Keep the messages of a live worker from being delivered again by a Redis broker.

kombu hands a message that is unacknowledged for longer than the visibility
timeout to another worker, however alive the first one is. Nothing in kombu
renews the time stamp that it goes by; this does. It reads attributes of kombu's
that are not documented: where one is missing, it stops and says so once.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from redis import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger("onceguard")


class VisibilityKeeper:
    """
    Re-scores this worker's unacknowledged messages.

    Args:
        channels: Names the broker channels that messages came through.
        socket_timeout: Longest wait for the broker, in seconds.
    """

    def __init__(self, channels: Callable[[], Iterable[Any]], socket_timeout: float) -> None:
        self._channels = channels
        self._timeout = socket_timeout
        self._clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._working = True

    def __call__(self) -> None:
        """Keep the messages of every open channel; never raises."""
        if not self._working:
            return
        try:
            for channel in set(self._channels()):
                self._keep(channel)
        except AttributeError as error:
            self._working = False
            logger.warning(
                "once_keep_visible does not work with this version of kombu (%s); tasks "
                "longer than the visibility timeout are delivered again and put off",
                error,
            )
        except Exception as error:  # noqa: BLE001 - whatever the broker's client raises
            logger.debug("messages not kept visible: %s", error)

    def _keep(self, channel: Any) -> None:
        tags = [] if channel.closed else list(channel.qos._delivered)  # noqa: SLF001 - see above
        if tags:
            scores = dict.fromkeys(tags, time.time())
            self._client(channel).zadd(channel.unacked_index_key, scores, xx=True)

    def _client(self, channel: Any) -> Any:
        """
        Make a client like the channel's own, with limits.

        The channel's belongs to the worker's event loop, and waits for ever.
        """
        client = self._clients.get(channel)
        if client is None:
            own = channel.pool
            limits = {
                "socket_timeout": self._timeout,
                "socket_connect_timeout": self._timeout,
                "max_connections": 1,
            }
            if "path" in own.connection_kwargs:
                del limits["socket_connect_timeout"]
            pool = ConnectionPool(
                connection_class=own.connection_class, **{**own.connection_kwargs, **limits}
            )
            client = self._clients[channel] = channel.Client(connection_pool=pool)
        return client
