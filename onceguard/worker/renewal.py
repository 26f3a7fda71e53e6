"""
Renew the leases of everything that runs in a worker, from one thread.

The thread lives in the worker's main process, where a child that is busy in
native code, stopped or forking cannot hold it up. One call for each partition
renews all leases of all children. The same thread runs the worker's errands to
the store, so that the main process never waits for them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onceguard.observe.events import Event, emit
from onceguard.rules.errors import StoreUnavailable
from onceguard.rules.outcomes import Outcome
from onceguard.store.contract import Lease, Renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from onceguard.rules.options import Once
    from onceguard.store.contract import Message, Store

logger = logging.getLogger("onceguard")

_TICKS_PER_LEASE = 3
_LONGEST_TICK = 10.0
_AFTER_FAILURE = 0.5
_AFTER_ACCEPTED = 0.3
_FORGOTTEN_AT_ONCE = 500
# A publisher that lost the broker's reply sends its message again: a copy that
# nothing marks as one. It is recognised for this long after the first one's ack.
_LINGER = 120.0

_io = threading.Lock()
os.register_at_fork(before=_io.acquire, after_in_parent=_io.release, after_in_child=_io.release)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A delivery that a pool process has accepted."""

    message: Message
    nonce: str
    once: Once
    completed_for: float
    task_name: str


@dataclass(slots=True)
class _Seen:
    """
    What is known of a running delivery's lease.

    Attributes:
        record: As the last renewal answered it, '' before the first.
        since: Begin of the last good renewal, or when the delivery was first seen.
        lost: Whether that was reported.
    """

    record: str
    since: float
    lost: bool = False


class Renewals:
    """
    Decides what to renew and what an answer means; no thread, no clock.

    Args:
        store: A store that no other thread uses.
        running: Names the deliveries that run now.
        ended: Told of each that has no lease any more, because it is over or lost it.

    Attributes:
        lost: Events of lost leases, to be sent by whoever drives this.
    """

    def __init__(
        self,
        store: Store,
        running: Callable[[], Iterable[Running]],
        ended: Callable[[Running], object],
    ) -> None:
        self._store = store
        self._running = running
        self._ended = ended
        self.lost: deque[Event] = deque()
        self._seen: dict[str, _Seen] = {}

    def step(self, now: float) -> bool:
        """
        Renew everything once.

        Args:
            now: Monotonic time before the call, in seconds.

        Returns:
            Whether there was anything to renew.

        Raises:
            StoreUnavailable: Nothing may have been renewed. A lease that the
                store has not confirmed for its whole life is reported as lost.
        """
        running = list(self._running())
        nonces = {each.nonce for each in running}
        self._seen = {nonce: seen for nonce, seen in self._seen.items() if nonce in nonces}
        if not running:
            return False
        for each in running:
            self._seen.setdefault(each.nonce, _Seen("", now))
        try:
            answers = self._store.renew([self._lease(each, now) for each in running])
        except StoreUnavailable as error:
            self._untrusted(running, now, str(error))
            raise
        for each, (answer, record) in zip(running, answers, strict=True):
            self._answered(each, answer, record, now)
        return True

    def _lease(self, each: Running, now: float) -> Lease:
        seen = self._seen[each.nonce]
        return Lease(
            message=each.message,
            nonce=each.nonce,
            lease_ttl=each.once.lease_ttl,
            completed_for=each.completed_for,
            seen=seen.record,
            unseen=not seen.record and now - seen.since > each.once.lease_ttl,
        )

    def _answered(self, each: Running, answer: Renewed, record: str, now: float) -> None:
        seen = self._seen[each.nonce]
        if answer in {Renewed.RENEWED, Renewed.RETAKEN, Renewed.SUPERSEDED}:
            if answer is Renewed.RETAKEN or seen.lost:
                taken_up = "the lease had ended and was taken up again"
                logger.warning("%s", _event(each, Outcome.RENEWED, taken_up))
            self._seen[each.nonce] = _Seen(record, now)
            emit(_event(each, Outcome.RENEWED))
        elif answer is Renewed.LOST:
            self._lose(each, seen, f"now held by: {record}" if record else "its lease ended")
            self._ended(each)
        elif answer is Renewed.ENDED:
            self._ended(each)

    def _untrusted(self, running: Iterable[Running], now: float, reason: str) -> None:
        for each in running:
            seen = self._seen[each.nonce]
            if now - seen.since > each.once.lease_ttl:
                self._lose(each, seen, reason)

    def _lose(self, each: Running, seen: _Seen, why: str) -> None:
        if not seen.lost:
            seen.lost = True
            why = f"another run may begin: {why}"
            self.lost.append(_event(each, Outcome.LEASE_LOST, why))


def _event(each: Running, outcome: Outcome, detail: str = "") -> Event:
    return Event(
        outcome=outcome,
        key=each.message.key,
        task=each.task_name,
        task_id=each.message.task_id,
        detail=detail,
    )


class Keeper:
    """
    The thread that drives renewals, errands and whatever else must not wait.

    Args:
        renewals: What to do at each tick.
        store: A store that no other thread uses.
        keep_visible: Called at each tick, besides.

    Attributes:
        away: Whether the store did not answer the last time.
    """

    def __init__(
        self, renewals: Renewals, store: Store, keep_visible: Callable[[], Any] | None
    ) -> None:
        self._renewals = renewals
        self._store = store
        self._keep_visible = keep_visible
        self._tick = _LONGEST_TICK
        self._due = 0.0
        self.away = False
        self._wake = threading.Event()
        self._errands: deque[Callable[[Store], Any]] = deque()
        self._forgettable: deque[Message] = deque()
        self._thread: threading.Thread | None = None

    def watch(self, seconds: float) -> None:
        """Tick at least three times in so many seconds, from now on."""
        if seconds / _TICKS_PER_LEASE < self._tick or self._thread is None:
            self._tick = min(self._tick, seconds / _TICKS_PER_LEASE)
            self._wake.set()
            self._start()

    def accepted(self) -> None:
        """
        Tick soon: a run has begun, and its lease is not known yet.

        Were the store to lose it before the first renewal, nobody could take it
        up again.
        """
        if self._due - time.monotonic() > _AFTER_ACCEPTED:
            self._due = time.monotonic() + _AFTER_ACCEPTED
            self._wake.set()

    def run_errand(self, errand: Callable[[Store], Any]) -> None:
        """Do something with the store soon, in the thread; again until the store answers."""
        self._errands.append(errand)
        self._wake.set()
        self._start()

    def forget(self, message: Message) -> None:
        """Forget a completed message at the next tick, sooner if there are many."""
        self._forgettable.append(message)
        if len(self._forgettable) == _FORGOTTEN_AT_ONCE:
            self._wake.set()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._drive, name="onceguard-renewal", daemon=True
            )
            self._thread.start()

    def _drive(self) -> None:
        while True:
            self._wake.wait(max(0.0, self._due - time.monotonic()))
            self._wake.clear()
            try:
                with _io:
                    answered = self._act()
                if answered:
                    self._say_if_back()
            except StoreUnavailable as error:
                self._retry_soon()
                self._say_if_away(error)
            except Exception:  # a fault here must not end all renewal
                self._retry_soon()
                logger.exception("renewal failed, it goes on")
            if self._renewals.lost:
                threading.Thread(
                    target=self._report, name="onceguard-report", daemon=True
                ).start()

    def _report(self) -> None:
        """Send what was lost from a thread of its own: receivers are the user's code."""
        with suppress(IndexError):
            while True:
                emit(self._renewals.lost.popleft())

    def _act(self) -> bool:
        """Renew what is due, run errands; did the store answer for what it is needed for?"""
        now = time.monotonic()
        renewed = False
        errands = bool(self._errands)
        if now >= self._due:
            self._due = now + self._tick
            try:
                renewed = self._renewals.step(now)
            finally:
                if self._keep_visible is not None:
                    self._keep_visible()
        self._due = min(self._due, now + self._tick)
        self._serve()
        return renewed or errands

    def _retry_soon(self) -> None:
        self._due = time.monotonic() + min(_AFTER_FAILURE, self._tick)

    def _say_if_away(self, error: StoreUnavailable) -> None:
        if not self.away:
            self.away = True
            logger.warning("leases are not renewed, it is tried again: %s", error)

    def _say_if_back(self) -> None:
        if self.away:
            self.away = False
            logger.warning("the lock server answers again")

    def _serve(self) -> None:
        while self._errands:
            errand = self._errands.popleft()
            try:
                errand(self._store)
            except StoreUnavailable:
                self._errands.appendleft(errand)
                raise
        while self._forgettable:
            batch = [
                self._forgettable.popleft()
                for _ in range(min(len(self._forgettable), _FORGOTTEN_AT_ONCE))
            ]
            self._store.forget(batch, after=_LINGER)
