"""Connections to the lock server, wherever it is, and the words that go over them."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onceguard.store.dial import dialler
from onceguard.store.sentinel import Sentinels

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.rules.address import Address


class Connections:
    """
    Connections to one server, each used by one caller at a time.

    redis-py's connections without its client and pool, which cost about as much
    for each command as the command itself. Safe between threads and greenlets; a
    forked child starts with none of its parent's.

    Args:
        address: Where the server is, or the sentinels that know.
        socket_timeout: For connecting and for a reply, in seconds.
    """

    def __init__(self, address: Address, *, socket_timeout: float) -> None:
        self._make = _maker(address, socket_timeout)
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    def command(
        self,
        packed: bytes,
        undo: Callable[[], bytes] | None = None,
        replies: int = 1,
    ) -> Any:
        """
        Send one command and wait for its reply; no retries.

        Args:
            packed: The command as `pack_command` makes it, or several.
            undo: Packs a command that takes it back, sent if the reply does not
                come in time. A hung server carries out what it has received when it
                wakes up, both in this order.
            replies: How many commands these are. Of several it returns a list, in
                which errors stand as what they are.

        Raises:
            redis.exceptions.RedisError: As redis-py has it.
        """
        connection = self._take()
        sent = False
        try:
            connection.send_packed_command((packed,), check_health=False)
            sent = True
            if replies == 1:
                reply = connection.read_response(disconnect_on_error=False)
            else:
                reply = [_reply(connection) for _ in range(replies)]
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException as error:
            if sent and undo and not isinstance(error, RedisConnectionError):
                _take_back(connection, undo)
            connection.disconnect()  # its reply must not become the next command's
            raise
        self._idle.append(connection)
        return reply

    def ask(self, packed: bytes) -> Asked:
        """
        Send a command and read its reply later.

        Raises:
            redis.exceptions.RedisError: It could not be sent.
        """
        connection = self._take()
        try:
            connection.send_packed_command((packed,), check_health=False)
        except BaseException:
            connection.disconnect()
            raise
        return Asked(connection, self._idle)

    def _take(self) -> Any:
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().disconnect()


class Asked:
    """
    A command that was sent, and whose reply is still to come.

    Args:
        connection: Over which it went.
        idle: Where that belongs afterwards.
    """

    def __init__(self, connection: Any, idle: deque[Any]) -> None:
        self._connection = connection
        self._idle = idle

    def reply(self, *, timeout: float) -> Any:
        """
        Read the reply.

        Raises:
            redis.exceptions.TimeoutError: It did not begin to come in time; `drop` it
                then.
            redis.exceptions.RedisError: The connection broke, or the server refused.
        """
        if not self._connection.can_read(max(0.0, timeout)):
            raise RedisTimeoutError("Timeout reading from socket")
        try:
            reply = self._connection.read_response(disconnect_on_error=False)
        except ResponseError:
            self._idle.append(self._connection)
            raise
        except BaseException:
            self._connection.disconnect()
            raise
        self._idle.append(self._connection)
        return reply

    def drop(self, undo: Callable[[], bytes] | None = None) -> None:
        """Wait no longer; what was sent may be carried out yet, and *undo* after it."""
        if undo is not None:
            _take_back(self._connection, undo)
        self._connection.disconnect()


def _maker(address: Address, socket_timeout: float) -> Callable[[], Any]:
    if address.master_name is not None:
        return Sentinels(address, socket_timeout=socket_timeout).connect
    return dialler(address.client, socket_timeout=socket_timeout)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error


def _take_back(connection: Any, undo: Callable[[], bytes]) -> None:
    """Send *undo* after a command that may be carried out yet, and wait for nothing."""
    with suppress(Exception):
        connection.send_packed_command((undo(),), check_health=False)


def pack(*words: str | int | bytes) -> bytes:
    """Write words as Redis takes them: bulk strings."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])


def pack_command(*words: str | int | bytes) -> bytes:
    """Write a command as Redis takes it: an array of bulk strings."""
    return b"*%d\r\n%b" % (len(words), pack(*words))
