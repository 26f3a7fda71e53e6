"""One start of a task function, and what it holds while it runs."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING

from onceguard.observe.events import Event, emit
from onceguard.rules.errors import LeaseLost, StoreUnavailable, Superseded
from onceguard.rules.options import Scope
from onceguard.rules.outcomes import Outcome
from onceguard.store.contract import Lease, Renewed

if TYPE_CHECKING:
    from onceguard.rules.header import Header
    from onceguard.rules.holder import Holder
    from onceguard.rules.options import Once
    from onceguard.store.contract import Held, Message, Store, Successor


class Phase(Enum):
    """What the end of an attempt has to do."""

    UNASKED = "asked nobody yet; its message is settled unless it was started elsewhere"
    PASSING = "holds nothing, ends nothing"
    HOLDING = "holds the lease"
    SKIPPED = "holds nothing; its message is settled unless it was started elsewhere"
    GIVEN_UP = "holds nothing; its message is settled"


class Unguarded:
    """
    What ``self.request.once`` is where nothing is guarded.

    In a direct call, in eager mode, and where guarding is switched off: nothing
    is held, so nothing can be lost.
    """

    key = ""
    attempt = 1
    fencing_token: int | None = None
    scheduled_time: datetime | None = None
    lost = False
    superseded = False
    message: Message | None = None

    def __init__(self) -> None:
        self.begun = False
        self.entered = False

    def check(self) -> None:
        """Go on."""


class Attempt:
    """
    What ``self.request.once`` is inside a guarded task.

    Attributes:
        key: What must be unique.
        attempt: Which start of this message this is, from 1.
        fencing_token: Grows with each lease of the key. Hand it to whatever
            the task writes to, and let that refuse a lower one than it has
            seen. None where the task runs unguarded.
    """

    def __init__(  # noqa: PLR0913 - what an attempt is made of
        self,
        *,
        message: Message,
        header: Header,
        once: Once,
        store: Store,
        completed_for: float,
        task_name: str,
        retries: int,
        nesting: int,
    ) -> None:
        self.message = message
        self.header = header
        self.nonce = header.nonce
        self.options = once
        self.task_name = task_name
        self.retries = retries
        self.nesting = nesting
        self.completed_for = completed_for
        self.key = message.key
        self.attempt = 0
        self.fencing_token: int | None = None
        self.successor: Successor | None = None
        self.begun = False
        self.entered = False
        self.phase = Phase.UNASKED
        self._store = store
        self._record = ""
        self._trusted_until = 0.0
        self._lost = False
        self._superseded = False

    @property
    def scheduled_time(self) -> datetime | None:
        """When the tick of beat was due that sent this call, in UTC, if one did."""
        at = self.header.scheduled_at
        return None if at is None else datetime.fromtimestamp(at, tz=timezone.utc)

    def acquired(self, held: Held, *, asked_at: float) -> None:
        """Take over the lease that the store granted to a call begun at *asked_at*."""
        self.phase = Phase.HOLDING
        self.attempt = held.holder.attempt
        self.fencing_token = held.holder.fencing_token
        self._record = held.holder.record()
        self._trusted_until = asked_at + self.options.lease_ttl

    @property
    def lost(self) -> bool:
        """
        Whether the lease is gone: another run may be going on.

        Asks the store, and takes the lease up again if nobody ran in between.
        While the store is away, the lease is trusted for as long as it would
        have lasted.
        """
        if self.phase is Phase.HOLDING and not self._lost:
            self._lost = not self._confirmed()
        return self._lost

    @property
    def superseded(self) -> bool:
        """
        Whether a newer tick wants to run instead (``overlap_policy="cancel_other"``).

        Asks the store. The lease is still held: the newer one waits.
        """
        return not self.lost and self._superseded

    def check(self) -> None:
        """
        Go on only while the lease is held, and no newer tick wants to run instead.

        Raises:
            Superseded: A newer tick waits for the end of this run.
            LeaseLost: The lease ended, and another run may be going on. What
                was written since the last check may be in its way.
        """
        if self.lost:
            raise LeaseLost(key=self.key, fencing_token=self.fencing_token or 0)
        if self._superseded:
            raise Superseded(key=self.key, fencing_token=self.fencing_token or 0)

    def _confirmed(self) -> bool:
        asked_at = time.monotonic()
        try:
            answer, record = self._store.renew([self.lease(self._record)])[0]
        except StoreUnavailable:
            return asked_at < self._trusted_until
        if answer in {Renewed.RENEWED, Renewed.RETAKEN, Renewed.SUPERSEDED}:
            self._superseded = answer is Renewed.SUPERSEDED
            self._record = record
            self._trusted_until = asked_at + self.options.lease_ttl
            return True
        return False

    def lease(self, seen: str) -> Lease:
        """Name the lease for a renewal; *seen* is its record as last answered."""
        return Lease(
            message=self.message,
            nonce=self.nonce,
            lease_ttl=self.options.lease_ttl,
            completed_for=self.completed_for,
            seen=seen,
        )

    def end(self, state: str | None, *, requeued: bool) -> None:
        """
        Free what the attempt holds, after its result is stored and before the ack.

        Args:
            state: Celery's state of the result. None means that the process is
                about to end without one: the message will be delivered again.
            requeued: Whether the task gave the message back to the queue.
        """
        if self.phase is Phase.PASSING:
            return
        again = state is None or requeued
        try:
            if again and self.phase is Phase.HOLDING:
                self._abandon()
            elif not again:
                self._finish()
        except StoreUnavailable as error:
            detail = f"not freed, the lease ends within {self.options.lease_ttl:g} s: {error}"
            emit(self.event(Outcome.STORE_UNAVAILABLE, detail=detail))

    def _finish(self) -> None:
        had = self._store.finish(
            self.message,
            nonce=self.nonce,
            completed_for=self.completed_for,
            successor=self.successor,
            skipped=self.phase in {Phase.UNASKED, Phase.SKIPPED},
        )
        if self.phase is Phase.HOLDING:
            detail = "" if had else "its lease had ended before"
            emit(self.event(Outcome.RELEASED, detail=detail))

    def _abandon(self) -> None:
        self._store.abandon(
            self.message, nonce=self.nonce, unique_for=claim_life_after(self.options)
        )
        emit(self.event(Outcome.ABANDONED, detail="its process ends without a result"))

    def event(
        self, outcome: Outcome, *, holder: Holder | None = None, detail: str = ""
    ) -> Event:
        """Say what was decided about this attempt."""
        return Event(
            outcome=outcome,
            key=self.key,
            task=self.task_name,
            task_id=self.message.task_id,
            holder=holder,
            detail=detail,
        )


def claim_life_after(once: Once) -> float:
    """Seconds that a message keeps its claim when its process died; 0 for none."""
    return once.unique_for if once.scope is Scope.UNTIL_EXECUTED else 0.0
