"""Connections to one server, as redis-py makes them, with known limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onceguard.rules.errors import InvalidSettings
from onceguard.rules.settings import OWNER

if TYPE_CHECKING:
    from collections.abc import Mapping

Client = TypeVar("Client", bound=redis.Redis)
Dial = Callable[..., Any]
"""Makes one of redis-py's connections, with changed arguments if given; sends nothing yet."""


def dialler(login: Mapping[str, Any], *, socket_timeout: float) -> Dial:
    """
    Say how to make connections to a server.

    redis-py's defaults for timeouts and retries differ by version and by
    constructor, so all of them are given: no retries (the store repeats what
    is safe to repeat), *socket_timeout* seconds for connecting and for a reply.

    Args:
        login: Keyword arguments of redis-py's client: the place, and how to be let in.
        socket_timeout: In seconds.

    Raises:
        InvalidSettings: This version of redis-py can't do that.
    """
    pool = make_client(redis.Redis, login, socket_timeout=socket_timeout).connection_pool
    # Not pool.make_connection(), which counts: after 100 it makes no more.
    limits = _limits(socket_timeout)
    make = partial(pool.connection_class, **{**pool.connection_kwargs, **limits})
    if "unix_socket_path" in login:
        return partial(_limited, make, socket_timeout)
    return make


def make_client(
    kind: type[Client], login: Mapping[str, Any], *, socket_timeout: float
) -> Client:
    """
    Make a client of redis-py, with the same limits.

    Raises:
        InvalidSettings: This version of redis-py can't do that.
    """
    login = dict(login)
    try:
        if isinstance(login.get("credential_provider"), str):
            login["credential_provider"] = _provider(login["credential_provider"])
        return kind(**login, **_limits(socket_timeout))
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        said = f"redis-py {redis.__version__} does not take what is said of the lock server"
        raise InvalidSettings(OWNER, [f"{said}: {error}."]) from None


def _limits(socket_timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        "decode_responses": False,
    }


def _limited(make: Dial, socket_timeout: float) -> Any:
    """Make a connection to a unix socket, whose time-out redis-py 5.0 drops."""
    connection = make()
    connection.socket_timeout = socket_timeout
    return connection


def _provider(name: str) -> Any:
    """Make a credential provider that a URL names, ``package.module.Class``, as Celery does."""
    module, _, attribute = name.replace(":", ".").rpartition(".")
    return getattr(import_module(module), attribute)()
