"""From a URL, as Celery's users write it, to a Redis client with known limits."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CERTIFICATES = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}


class Connections:
    """
    Connections to one server, each used by one caller at a time.

    redis-py's connections without its client and pool, which cost about as much
    for each command as the command itself. Safe between threads and greenlets; a
    forked child starts with none of its parent's.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+socket://`` or ``unix://``.
        socket_timeout: For connecting and for a reply, in seconds.
    """

    def __init__(self, url: str, *, socket_timeout: float) -> None:
        pool = _client(url, socket_timeout=socket_timeout).connection_pool
        # Not pool.make_connection(), which counts: after 100 it makes no more.
        self._make = partial(pool.connection_class, **pool.connection_kwargs)
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    def command(self, packed: bytes, undo: Callable[[], bytes] | None = None) -> Any:
        """
        Send one command and wait for its reply; no retries.

        Args:
            packed: The command as `pack` makes it.
            undo: Packs a command that takes it back, sent if the reply does not
                come in time. A hung server carries out what it has received when it
                wakes up, both in this order.

        Raises:
            redis.exceptions.RedisError: As redis-py has it.
        """
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._make()
        sent = False
        try:
            connection.send_packed_command((packed,), check_health=False)
            sent = True
            reply = connection.read_response(disconnect_on_error=False)
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

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().disconnect()


def _take_back(connection: Any, undo: Callable[[], bytes]) -> None:
    """Send *undo* after a command that may be carried out yet, and wait for nothing."""
    with suppress(Exception):
        connection.send_packed_command((undo(),), check_health=False)


def pack(*words: str | int | bytes) -> bytes:
    """Write words as Redis takes them: an array of bulk strings."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])


def _client(url: str, *, socket_timeout: float) -> redis.Redis:
    """
    Make a client; nothing is sent before its first command.

    redis-py's defaults for timeouts and retries differ by version and by
    constructor, so all of them are given: no retries (the store repeats what
    is safe to repeat), *socket_timeout* seconds for connecting and for a reply.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+socket://`` or ``unix://``.
        socket_timeout: In seconds.
    """
    limits: dict[str, Any] = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        "decode_responses": False,
    }
    scheme = urlsplit(url).scheme
    if scheme in {"redis+socket", "unix", "socket"}:
        del limits["socket_connect_timeout"]
        return redis.Redis(**_unix_socket(url), **limits)
    client = redis.Redis.from_url(_plain(url), **limits)
    client.connection_pool.connection_kwargs.update(limits)  # over what the URL says
    return client


def _unix_socket(url: str) -> Mapping[str, Any]:
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    database = query.get("virtual_host") or query.get("db") or "0"
    return {
        "unix_socket_path": unquote(parts.path),
        "db": int(database.strip("/") or 0),
        "username": unquote(parts.username) if parts.username else query.get("username"),
        "password": unquote(parts.password) if parts.password else query.get("password"),
    }


def _plain(url: str) -> str:
    """Celery writes ``ssl_cert_reqs=CERT_NONE`` where redis-py wants ``none``."""
    for celery_word, redis_word in _CERTIFICATES.items():
        url = url.replace(f"ssl_cert_reqs={celery_word}", f"ssl_cert_reqs={redis_word}")
    return url
