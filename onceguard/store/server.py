"""Where scripts run, and running them on one server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from redis.exceptions import (
    ClusterCrossSlotError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.trust import advised
from onceguard.store.connect import Connections

if TYPE_CHECKING:
    from onceguard.rules.address import Address
    from onceguard.store.replicas import Command, Replicas
    from onceguard.store.scripts import Call

_OF_CLUSTERS = (MovedError, ClusterCrossSlotError)
_NO_MASTER = ("READONLY", "MASTERDOWN", "NOREPLICAS")

Undo = Callable[[], "Call"]
"""Makes the call that takes back what another one did."""


class Server(Protocol):
    """
    Where scripts run: one server, a Cluster, or independent masters that vote.

    Safe to share between threads and greenlets, and to inherit through a fork.

    Attributes:
        one_partition: Whether a call may touch the keys of one partition only.
    """

    one_partition: bool

    def run(self, call: Call, undo: Undo | None = None) -> Any:
        """
        Run a script, and again where that is safe: each recognises its own earlier effect.

        Args:
            call: What to run.
            undo: Takes it back, where no answer comes in time and it may be carried
                out yet.

        Returns:
            The script's reply.

        Raises:
            StoreUnavailable: It can't be said whether the script ran.
        """
        ...

    def close(self) -> None:
        """Close the connections of this process."""
        ...


class OneServer:
    """
    A Redis server.

    Args:
        address: Where it is, or the sentinels that know.
        socket_timeout: Longest wait for a connection and for a reply, in
            seconds. No call takes much longer than this, whatever fails; with
            sentinels as much again, for asking them.
        replicas: Who are asked to confirm each write; None: nobody.
    """

    one_partition = False

    def __init__(
        self, address: Address, *, socket_timeout: float, replicas: Replicas | None = None
    ) -> None:
        self._address = address
        self._connections = Connections(address, socket_timeout=socket_timeout)
        self._read: Command = self._connections.command
        self._write = replicas.following(self._connections) if replicas else self._read

    def close(self) -> None:
        """Close the connections of this process."""
        self._connections.close()

    def run(self, call: Call, undo: Undo | None = None) -> Any:
        """
        Run a script, once more where the connection led to a dead or demoted server.

        A time-out is final, so that a hung server costs one time-out; *undo* then
        follows the script, lest the server carry it out when it wakes up.
        """
        try:
            try:
                return self._evaluate(call, undo)
            except (RedisConnectionError, ResponseError) as error:
                if isinstance(error, ResponseError) and not demoted(error):
                    raise
                self._connections.close()  # the others lead to the same server
                return self._evaluate(call, undo)
        except RedisError as error:
            if isinstance(error, RedisTimeoutError):
                self._connections.close()  # each would cost a time-out of its own
            raise_unavailable(self._address, call, error)

    def _evaluate(self, call: Call, undo: Undo | None) -> Any:
        command = self._write if call.script.writes else self._read
        take_back = None if undo is None else lambda: undo().packed_with_source()
        try:
            return command(call.packed(), take_back)
        except NoScriptError:
            return command(call.packed_with_source(), take_back)


def raise_unavailable(address: Address, call: Call, error: RedisError) -> NoReturn:
    """
    Say what a driver's error means, without its passwords.

    Raises:
        StoreUnavailable: Always; the error is its cause unless it shows a password.
    """
    reason = address.hide(str(error))
    cause = error if reason == str(error) else None
    of_cluster = isinstance(error, _OF_CLUSTERS) or reason.startswith(("MOVED", "CROSSSLOT"))
    if of_cluster and not address.cluster:
        reason += " (a node of a Redis Cluster: set once_url='redis+cluster://host:port')"
    raise StoreUnavailable(
        server=address.shown, operation=call.script.name, reason=advised(reason)
    ) from cause


def demoted(error: ResponseError) -> bool:
    """
    Whether the server is not, or not any more, a master that takes writes.

    Redis 6 wraps such an answer to a script in an error of its own.
    """
    if isinstance(error, (ReadOnlyError, MasterDownError)):
        return True
    return any(word in str(error) for word in _NO_MASTER)
