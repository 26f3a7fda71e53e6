"""One test's own key, messages and entries, and a store that is asked about them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from onceguard.rules.messages import retry_message_id
from onceguard.rules.ticks import interval_slot
from onceguard.store.contract import Answer, Held, Lease, Message, Renewed, Started, Successor
from onceguard.store.tick_contract import Tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from onceguard.store.contract import Store

SCOPES = pytest.mark.parametrize("own_lease", [False, True], ids=["key", "message"])
"""Whether a run holds its key, or only its own message (scope ``until_executing``)."""

_POLL = 0.02
_PATIENCE = 30.0


@dataclass(frozen=True)
class Case:
    """
    What one test asks of a store.

    Its key, messages and entries are its own, so that tests may share a store with one
    another and with anyone else. A message or tick that is asked for twice under one name
    is the same. Methods that are named as the store's fill in the durations that a test
    does not care about.

    Attributes:
        store: The store that is asked.
        other: Another store with the same data, as another process has it.
        short: A life that is waited for, in seconds.
        long: A life that no test outlives.
        slack: How many seconds any two clocks and answers may be apart.
    """

    store: Store
    other: Store
    short: float
    long: float
    slack: float
    mark: str = field(default_factory=lambda: uuid4().hex)

    @property
    def key(self) -> str:
        """What all messages are about that were not given another key."""
        return f"contract({self.mark})"

    @property
    def elsewhere(self) -> Case:
        """The same test, as the other store sees it."""
        return replace(self, store=self.other, other=self.store)

    @property
    def brief(self) -> float:
        """A life that may have ended before anyone looks."""
        return self.short / 10

    def message(
        self, name: str, *, key: str = "", task_id: str = "", own_lease: bool = False
    ) -> Message:
        """
        Make a published call.

        Args:
            name: Makes its message id, and its task id unless that is given.
            key: Another key than the test's.
            task_id: Of another message, to be of the same task.
            own_lease: As `Message` has it.
        """
        message_id = f"{self.mark}{name}"
        return Message(
            key=key or self.key,
            message_id=message_id,
            task_id=task_id or f"task-of-{message_id}",
            own_lease=own_lease,
            where="host:1",
        )

    @staticmethod
    def retry_of(parent: Message) -> Message:
        """Make the first retry of a message: of the same key and task."""
        return replace(parent, message_id=retry_message_id(parent.message_id, 1))

    def claim(self, message: Message, *, unique_for: float = 0.0) -> Held | None:
        """Claim, for a long life unless told otherwise."""
        return self.store.claim(message, unique_for=unique_for or self.long)

    def start(  # noqa: PLR0913 - as the store's
        self,
        message: Message,
        nonce: str,
        *,
        parent: Message | None = None,
        max_deliveries: int = 5,
        lease_ttl: float = 0.0,
        start_by: float | None = None,
    ) -> Started:
        """Ask to start, for a long lease unless told otherwise."""
        return self.store.start(
            message,
            nonce=nonce,
            parent_id=parent.message_id if parent else None,
            max_deliveries=max_deliveries,
            lease_ttl=lease_ttl or self.long,
            completed_for=self.long,
            start_by=start_by,
        )

    def start_late(self, message: Message, nonce: str) -> Started:
        """Ask to start after it would have been in time."""
        return self.start(message, nonce, start_by=self.now() - 30 - self.slack)

    def run(self, message: Message, nonce: str, *, parent: Message | None = None) -> str:
        """Start, which must succeed, and return the lease's record."""
        return record_of(self.start(message, nonce, parent=parent))

    def lapse(self, message: Message, nonce: str) -> str:
        """Start, let the lease end by itself, and return the record that it had."""
        record = record_of(self.start(message, nonce, lease_ttl=self.brief))
        self.eventually(lambda: self.runs(message) is None, "the lease had ended by itself")
        return record

    def renew(
        self, message: Message, nonce: str, seen: str, *, lease_ttl: float = 0.0
    ) -> tuple[Renewed, str]:
        """Renew one lease."""
        lease = self.lease(message, nonce, seen, lease_ttl=lease_ttl)
        (answer,) = self.store.renew([lease])
        return answer

    def lease(
        self,
        message: Message,
        nonce: str,
        seen: str,
        *,
        lease_ttl: float = 0.0,
        unseen: bool = False,
    ) -> Lease:
        """Make a lease to renew."""
        return Lease(
            message=message,
            nonce=nonce,
            lease_ttl=lease_ttl or self.long,
            completed_for=self.long,
            seen=seen,
            unseen=unseen,
        )

    def finish(self, message: Message, nonce: str, *, retry: Message | None = None) -> bool:
        """End a run, with its retry if it has one."""
        successor = None
        if retry:
            successor = Successor(message_id=retry.message_id, unique_for=self.long)
        return self.store.finish(
            message, nonce=nonce, completed_for=self.long, successor=successor
        )

    def skip(self, message: Message, nonce: str) -> bool:
        """End a delivery that was not run."""
        return self.store.finish(message, nonce=nonce, completed_for=self.long, skipped=True)

    def abandon(self, message: Message, nonce: str, *, unique_for: float | None = None) -> bool:
        """Give up a dead process's lease; its message keeps a claim unless told otherwise."""
        life = self.long if unique_for is None else unique_for
        return self.store.abandon(message, nonce=nonce, unique_for=life)

    def shorten(self, message: Message, nonce: str, *, lease_ttl: float) -> bool:
        """Let a lease end soon, its message being settled."""
        return self.store.shorten(
            message, nonce=nonce, lease_ttl=lease_ttl, completed_for=self.long
        )

    def put_off(self, message: Message, generation: int, *, unique_for: float = 0.0) -> int:
        """Record that a copy is under way."""
        return self.store.put_off(
            message,
            generation=generation,
            completed_for=self.long,
            unique_for=unique_for or self.long,
        )

    def drop(self, message: Message) -> bool:
        """Settle a message that will never start."""
        return self.store.drop(message, completed_for=self.long)

    def runs(self, message: Message) -> str | None:
        """Tell by its nonce which delivery holds the lease of this message's key."""
        held = self.store.holder(message)
        return held.holder.nonce if held and held.holder.state == "lease" else None

    def has(self, message: Message) -> str:
        """
        Tell who has a message's key: ``"claim <message id>"``, ``"lease <message id>"``, or "".

        Asks as another publisher would, and takes its claim back if it gets one.
        """
        asking = replace(message, message_id=f"{self.mark}{uuid4().hex}", own_lease=False)
        held = self.store.claim(asking, unique_for=self.long)
        if held:
            return f"{held.holder.state} {held.holder.message_id}"
        self.store.unclaim(asking)
        return ""

    def now(self) -> float:
        """Read the store's clock: an interval's first tick is due when it is asked for."""
        entry = uuid4().hex[:24]
        asking = Tick(
            entry=entry,
            slot=interval_slot(60.0),
            claims_slot=True,
            remember_for=self.long,
            grace=None,
            message=self.message(uuid4().hex),
            claim_for=0.0,
            mine=f"{entry[:10]}~",
            actions=(),
        )
        return self.store.tick(asking).due_at

    def let_pass(self, seconds: float) -> None:
        """Wait for so long, by the store's clock."""
        until = self.now() + seconds
        self.eventually(lambda: self.now() > until, "so much time has passed")

    def is_about(self, time_left: float, life: float) -> bool:
        """Whether so much is left of a *long* life that began in this test."""
        return life - _PATIENCE - self.slack < time_left <= life + self.slack

    def eventually(self, probe: Callable[[], object], what: str) -> None:
        """Wait for what must come true by itself; a loaded machine is given its time."""
        deadline = time.monotonic() + self.short + self.slack + _PATIENCE
        while not probe():
            assert time.monotonic() < deadline, f"Waited in vain until {what}."
            time.sleep(_POLL)


def record_of(started: Started) -> str:
    """Read the record of the lease that a start must have acquired."""
    assert started.answer is Answer.ACQUIRED, started
    assert started.held is not None, started
    return started.held.holder.record()


def who(held: Held | None) -> tuple[str, str]:
    """Say whom an answer names: state and message id."""
    assert held is not None, "The answer names nobody."
    return held.holder.state, held.holder.message_id
