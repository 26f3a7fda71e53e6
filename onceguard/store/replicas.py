"""Ask replicas to confirm each write, which makes it less likely that a failover loses it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from onceguard.store.connect import pack_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.store.connect import Connections

    Command = Callable[[bytes, Callable[[], bytes] | None], Any]

logger = logging.getLogger("onceguard")

_PAUSE = 5.0


class Replicas:
    """
    The replicas that must have a write before its caller goes on, if they can.

    Too few of them are said once, and waited for only now and then until there
    are enough again: a replica that is away must not slow everything down.

    Args:
        wanted: How many.
        server: The lock server, as it may be shown.
        socket_timeout: Of the store, in seconds; half of it is for the replicas.
    """

    def __init__(self, wanted: int, *, server: str, socket_timeout: float) -> None:
        self._wanted = wanted
        self._server = server
        self._limit = max(1, int(socket_timeout * 1000 / 2))
        self._wait = pack_command("WAIT", wanted, self._limit)
        self._not_before = 0.0
        self._too_few = False

    def following(self, connections: Connections) -> Command:
        """Return a `Connections.command` that sends ``WAIT`` along."""

        def command(packed: bytes, undo: Callable[[], bytes] | None = None) -> Any:
            if time.monotonic() < self._not_before:
                return connections.command(packed, undo)
            reply, confirmed = connections.command(packed + self._wait, undo, 2)
            if isinstance(reply, ResponseError):
                raise reply
            self._heard(confirmed)
            return reply

        return command

    def _heard(self, confirmed: int | ResponseError) -> None:
        enough = isinstance(confirmed, int) and confirmed >= self._wanted
        if not enough:
            self._not_before = time.monotonic() + _PAUSE
        if enough != self._too_few:
            return
        self._too_few = not enough
        if enough:
            logger.warning("the replicas of %s confirm writes again", self._server)
        else:
            said = confirmed if isinstance(confirmed, int) else f"none ({confirmed})"
            logger.warning(_TOO_FEW, self._server, self._limit, said, self._wanted, _PAUSE)


_TOO_FEW = (
    "of the replicas of %s within %d ms %s confirmed a write, not %d (once_wait_replicas): a "
    "failover now may lose locks. They are asked again every %.0f s."
)
