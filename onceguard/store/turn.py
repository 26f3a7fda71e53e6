"""Take turns at a key among independent masters, with pottery's Redlock."""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from hashlib import sha1
from typing import TYPE_CHECKING, Any, ClassVar

import redis
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onceguard.rules.errors import InvalidSettings
from onceguard.rules.settings import OWNER
from onceguard.store.dial import make_client

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onceguard.store.ballot import Voter

_LIFE = 2.0
_LONGEST = 0.5
_PATIENCE = 2.5
_RETRY = 0.05


class Turns:
    """
    Turns at keys: who has one acts while nobody else does.

    It only keeps contenders from outvoting one another for ever. A turn that is late,
    lost or had by two does no harm: the masters heed the last who looked (look.lua).

    Args:
        voters: The masters.
        timeout: Of one master, in seconds; above 0.5 s it is that.
    """

    def __init__(self, voters: Sequence[Voter], *, timeout: float) -> None:
        self._redlock, self._ended = _pottery()
        self._masters = frozenset(_Master.of(each, min(timeout, _LONGEST)) for each in voters)

    def take(self, key: str) -> Turn:
        """Wait for a turn, for some seconds at most; without it, the call goes on."""
        turn = self._redlock(
            key=key, masters=self._masters, auto_release_time=_LIFE, num_extensions=0
        )
        until = time.monotonic() + _PATIENCE
        try:
            while not turn.acquire(blocking=False):
                if time.monotonic() > until or self._too_few():
                    return Turn(None)
                time.sleep(random.uniform(0, _RETRY))  # noqa: S311 - spreads contenders
        except self._ended:  # also: no threads any more, for the process ends
            return Turn(None)
        return Turn(turn, self._ended)

    def close(self) -> None:
        """Close the connections of this process."""
        for master in self._masters:
            master.close()

    def _too_few(self) -> bool:
        away = sum(master.away for master in self._masters)
        return 2 * (len(self._masters) - away) <= len(self._masters)


class Turn:
    """A turn, or that there was none to be had: a context that gives it back."""

    def __init__(self, redlock: Any, ended: tuple[type[BaseException], ...] = ()) -> None:
        self._redlock = redlock
        self._ended = ended

    def __enter__(self) -> None:
        """Nothing: it is taken already."""

    def __exit__(self, *_: object) -> None:
        if self._redlock is None:
            return
        try:
            self._redlock.release()
        except self._ended:
            return  # by itself, or the masters forgot it, or the process ends


class _Master(redis.Redis):
    """A client whose failures are votes not given, for pottery logs them with passwords."""

    voter: Voter
    away = False
    _sources: ClassVar[dict[str, str]] = {}

    @classmethod
    def of(cls, voter: Voter, timeout: float) -> _Master:
        made = make_client(cls, voter.address.client, socket_timeout=timeout)
        made.voter = voter
        return made

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "SCRIPT LOAD":  # pottery asks one master, for all, for ever
            digest = sha1(str(args[1]).encode(), usedforsecurity=False).hexdigest()
            self._sources[digest] = args[1]
            return digest
        if self.voter.rests:
            self.away = True
            return None
        try:
            reply = self._execute(args, options)
        except NoScriptError:
            raise  # pottery loads it
        except RedisError as error:
            self.away = True
            if isinstance(error, RedisTimeoutError):
                self.voter.rest()
            return None
        self.away = False
        return reply

    def _execute(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except NoScriptError:
            if args[1] not in self._sources:
                raise
            words = ("EVAL", self._sources[args[1]], *args[2:])
            return super().execute_command(*words, **options)  # type: ignore[no-untyped-call]


def _pottery() -> tuple[Any, tuple[type[Exception], ...]]:
    """
    Import pottery, which reads ``$REDIS_URL`` and replaces ``json.dumps``.

    Returns:
        Its Redlock, and what that raises where it is not held or has no threads.
    """
    dumps, theirs = json.dumps, "pottery" in sys.modules
    log = logging.getLogger("pottery")
    if not theirs and log.level == logging.NOTSET:
        log.setLevel(logging.WARNING)  # at INFO it says that it replaced json.dumps
    try:
        from pottery import PrimitiveError, Redlock  # noqa: PLC0415 - for several masters
    except ValueError as error:
        problem = (
            "once_url is a list, which needs pottery, and pottery can't be imported: it reads "
            "the environment's REDIS_URL, which is no Redis URL. Unset or mend it."
        )
        raise InvalidSettings(OWNER, [problem]) from error
    finally:
        if not theirs:
            json.dumps = dumps
    return Redlock, (PrimitiveError, RuntimeError)
