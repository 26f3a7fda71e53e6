"""Ask sentinels where the master is, and connect to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onceguard.store.dial import dialler

if TYPE_CHECKING:
    from onceguard.rules.address import Address, Place

_LEAST_SHARE = 0.02


class NoMasterError(RedisError):
    """No sentinel named a master that lets us in; asking again at once is no use."""


class Sentinels:
    """
    The sentinels of one master.

    *socket_timeout* is for all of them together: each is given an equal share of
    what those before it left. Whoever answered last is asked first the next time.

    Args:
        address: Where they are, whom they watch, and how to be let in at both.
        socket_timeout: Seconds for the sentinels, and again for the master.
    """

    def __init__(self, address: Address, *, socket_timeout: float) -> None:
        self._name = address.master_name
        self._others = address.min_other_sentinels
        self._timeout = socket_timeout
        self._places = address.places
        self._dial = dialler(address.login, socket_timeout=socket_timeout)
        self._dial_sentinel = dialler(address.sentinel_login, socket_timeout=socket_timeout)

    def connect(self) -> Any:
        """
        Connect to the master.

        Returns:
            One of redis-py's connections, connected.

        Raises:
            NoMasterError: No sentinel answered in time and named one that lets us in.
            redis.exceptions.TimeoutError: The master does not answer.
        """
        deadline = time.monotonic() + self._timeout
        places, heard = self._places, []
        tried: dict[Place, str] = {}
        for turn, place in enumerate(places):
            share = (deadline - time.monotonic()) / (len(places) - turn)
            try:
                master = self._ask(place, max(_LEAST_SHARE, share))
            except RedisError as error:
                heard.append(f"{_shown(place)}: {error}")
                continue
            if master not in tried:
                try:
                    connection = self._connect(master)
                except RedisTimeoutError:
                    raise
                except RedisError as error:
                    tried[master] = str(error)
                else:
                    self._places = (place, *places[:turn], *places[turn + 1 :])
                    return connection
            heard.append(f"{_shown(place)} names {_shown(master)}: {tried[master]}")
        raise NoMasterError(
            f"no sentinel leads to the master {self._name!r}: {'; '.join(heard)}"
        )

    def _ask(self, place: Place, timeout: float) -> Place:
        """Ask one sentinel for the master's address."""
        connection = self._dial_sentinel(
            host=place[0],
            port=place[1],
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
        )
        try:
            named = _reply(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            if named is None:
                raise NoMasterError("it watches no master of that name")
            if self._others:
                self._check_others(_reply(connection, "SENTINEL", "MASTER", self._name))
        finally:
            connection.disconnect()
        return _text(named[0]), int(named[1])

    def _check_others(self, state: Any) -> None:
        if not isinstance(state, dict):  # RESP 2
            state = dict(zip(state[::2], state[1::2], strict=True))
        others = {_text(name): value for name, value in state.items()}["num-other-sentinels"]
        if int(others) < self._others:
            raise NoMasterError(f"it knows {int(others)} other sentinels, not {self._others}")

    def _connect(self, master: Place) -> Any:
        connection = self._dial(host=master[0], port=master[1])
        try:
            connection.connect()
            _check_role(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection


def _check_role(connection: Any) -> None:
    """Refuse a replica, of which a sentinel has not heard yet that it is one."""
    try:
        role = _text(_reply(connection, "ROLE")[0])
    except ResponseError:  # not allowed to ask: the first write will tell
        return
    if role != "master":
        raise NoMasterError("it is a replica")


def _reply(connection: Any, *words: Any) -> Any:
    connection.send_command(*words)
    return connection.read_response()


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


def _shown(place: Place) -> str:
    return f"{place[0]}:{place[1]}"
