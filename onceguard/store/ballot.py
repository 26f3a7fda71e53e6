"""Ask several masters at once, and wait for all of them together."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from onceguard.rules.trust import advised
from onceguard.store.connect import Connections

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onceguard.rules.address import Address
    from onceguard.store.connect import Asked
    from onceguard.store.scripts import Call

logger = logging.getLogger("onceguard")

_REST = 5.0


class Voter:
    """
    One of the masters.

    Args:
        address: Where it is.
        timeout: Longest wait for a connection, in seconds.
    """

    def __init__(self, address: Address, *, timeout: float) -> None:
        self.address = address
        self.connections = Connections(address, socket_timeout=timeout)
        self._rests_until = 0.0
        self._away = False

    @property
    def rests(self) -> bool:
        """Whether it did not answer lately, so that waiting for it again is too dear."""
        return time.monotonic() < self._rests_until

    def rest(self) -> None:
        """Leave it out for some seconds."""
        self._rests_until = time.monotonic() + _REST

    def answered(self) -> None:
        """Count on it again."""
        self._rests_until = 0.0
        if self._away:
            self._away = False
            logger.warning(
                "the lock server %s, one of several, answers again", self.address.shown
            )

    def missed(self, error: RedisError) -> None:
        """Say, once, that it is away: nobody would notice until too many are."""
        if not self._away:
            self._away = True
            why = advised(self.address.hide(str(error)))
            logger.warning(_MISSED, self.address.shown, why)


_MISSED = (
    "the lock server %s, one of several, does not answer; while a majority does, locks are "
    "kept without it: %s"
)


class Ballot:
    """
    One question to several masters: `hold` it, and `close` it.

    Args:
        questions: For each master the call that it is to carry out.
        timeout: How long to wait for all of them together, in seconds; and as long
            again for those that did not know a script, or whose connection was dead.

    Attributes:
        replies: Of each master that answered.
        errors: What went wrong with the others.
    """

    def __init__(self, questions: Mapping[Voter, Call], *, timeout: float) -> None:
        self.replies: dict[Voter, Any] = {}
        self.errors: dict[Voter, RedisError] = {}
        self._questions = questions
        self._timeout = timeout
        self._unheard: dict[Voter, Asked] = {}

    def hold(self) -> Ballot:
        """Ask, and hear the answers; those that are interrupted stay to be closed."""
        self._ask({voter: call.packed() for voter, call in self._questions.items()})
        again = [voter for voter, error in self.errors.items() if _again(error)]
        for voter in again:
            if isinstance(self.errors[voter], RedisConnectionError):
                voter.connections.close()  # the others lead to the same dead server
        self._ask({voter: self._questions[voter].packed_with_source() for voter in again})
        for voter, error in self.errors.items():
            if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
                voter.missed(error)
        return self

    def add(self, other: Ballot) -> None:
        """Count another ballot's answers, too."""
        self.replies |= other.replies
        self.errors |= other.errors
        self._unheard |= other._unheard

    def close(self, undo: Callable[[], bytes] | None = None) -> None:
        """Wait for nobody any more; who wakes up later carries out *undo*, too."""
        while self._unheard:
            self._unheard.popitem()[1].drop(undo)

    def _ask(self, packed: Mapping[Voter, bytes]) -> None:
        asked: list[Voter] = []
        for voter, words in packed.items():
            self.errors.pop(voter, None)
            try:
                self._unheard[voter] = voter.connections.ask(words)
                asked.append(voter)
            except RedisError as error:
                self._fail(voter, error)
        deadline = time.monotonic() + self._timeout  # connecting may have taken long
        for voter in asked:
            self._hear(voter, deadline)

    def _hear(self, voter: Voter, deadline: float) -> None:
        try:  # a reply that is there is read, however late it is
            reply = self._unheard[voter].reply(timeout=deadline - time.monotonic())
        except RedisTimeoutError as error:
            self._fail(voter, error)  # it stays unheard
            return
        except RedisError as error:
            self._fail(voter, error)
        else:
            self.replies[voter] = reply
            voter.answered()
        del self._unheard[voter]

    def _fail(self, voter: Voter, error: RedisError) -> None:
        self.errors[voter] = error
        if isinstance(error, RedisTimeoutError):
            voter.connections.close()
            voter.rest()


def _again(error: RedisError) -> bool:
    """Whether the master may answer if it is asked over a new connection, with sources."""
    return isinstance(error, (NoScriptError, RedisConnectionError))
