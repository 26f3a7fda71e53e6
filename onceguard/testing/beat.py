"""Ticks of one test's own schedule entry, and a store that is asked about them."""

from __future__ import annotations

from dataclasses import replace
from math import floor
from typing import TYPE_CHECKING
from uuid import uuid4

from onceguard.rules.choices import OverlapPolicy
from onceguard.rules.messages import partition
from onceguard.rules.overlap import Predecessor, decisions
from onceguard.rules.ticks import Slot, instant_slot, interval_slot
from onceguard.store.tick_contract import LastTick, Tick, Ticked

if TYPE_CHECKING:
    from onceguard.store.contract import Message
    from onceguard.testing.case import Case

_MINUTE = 60.0


class Beat:
    """
    What one test asks of a store as beat does.

    Args:
        case: The test's store, key and messages.
        apart: The entry is in another partition than the key.
        entry: Its identity; a new one unless given.
        base: The instant from which its firings count.
    """

    def __init__(
        self, case: Case, *, apart: bool = False, entry: str = "", base: float | None = None
    ) -> None:
        self.case = case
        self.apart = apart
        self.entry = entry or _new_entry(case.key, apart=apart)
        self.base = floor(case.now()) if base is None else base

    @property
    def elsewhere(self) -> Beat:
        """The same entry, as another beat sees it, through the other store."""
        return Beat(self.case.elsewhere, apart=self.apart, entry=self.entry, base=self.base)

    @property
    def beside(self) -> Beat:
        """Another entry that sends calls with the same key."""
        return Beat(self.case, apart=self.apart, base=self.base)

    @property
    def mine(self) -> str:
        """How message ids of this entry's ticks begin."""
        return f"{self.entry[:10]}~"

    def tick(  # noqa: PLR0913 - what a tick is made of
        self,
        number: int,
        policy: OverlapPolicy | str | None = OverlapPolicy.SKIP,
        *,
        slot: Slot | None = None,
        claims_slot: bool = True,
        grace: float | None = None,
        claim_for: float | None = None,
        remember_for: float | None = None,
        own_lease: bool = False,
        overdue: float | None = None,
    ) -> Tick:
        """
        Make a tick of the entry, known by its number; each has its own slot unless given.

        Without a policy the key is not looked at.
        """
        message_id = f"{self.mine}{number}"
        message = self.case.message(str(number), own_lease=own_lease)
        life = self.case.long if claim_for is None else claim_for
        return Tick(
            entry=self.entry,
            slot=self.at(self.base + number) if slot is None else slot,
            claims_slot=claims_slot,
            remember_for=self.case.long if remember_for is None else remember_for,
            grace=grace,
            message=replace(message, message_id=message_id, task_id=f"task-of-{message_id}"),
            claim_for=life if policy else 0.0,
            mine=self.mine,
            actions=decisions(OverlapPolicy(policy)) if policy else (),
            overdue=overdue,
        )

    @staticmethod
    def at(instant: float, period: float = _MINUTE) -> Slot:
        """Make the slot of a crontab at that instant."""
        return instant_slot(instant, instant + period)

    @staticmethod
    def interval(seconds: float = _MINUTE) -> Slot:
        """Make the slot of a plain interval."""
        return interval_slot(seconds)

    def ask(self, tick: Tick) -> Ticked:
        """Claim a tick."""
        return self.case.store.tick(tick)

    def sent(self, tick: Tick, answer: Ticked, *, unique_for: float | None = None) -> bool:
        """Say that a tick's message has been sent."""
        life = self.case.long if unique_for is None else unique_for
        return self.case.store.sent(
            tick, answer, unique_for=life, superseded_for=self.case.long
        )

    def unsend(self, tick: Tick, answer: Ticked) -> bool:
        """Take back a tick that could not be sent."""
        return self.case.store.unsend(tick, answer)

    def send(self, tick: Tick, *, unique_for: float | None = None) -> Ticked:
        """Claim a tick that is to be sent, and send it."""
        answer = self.ask(tick)
        assert answer.verdict.sends, answer
        self.sent(tick, answer, unique_for=unique_for)
        return answer

    def last(self) -> LastTick | None:
        """Read the entry's last tick."""
        (found,) = self.case.store.last_ticks([self.entry])
        return found

    def waiting(self) -> str:
        """
        Tell which message waits for the end of a run, by its id, or "".

        Asks as a tick of an entry to which everything belongs, and takes it back.
        """
        asking = replace(self.beside.tick(1, "keep_latest"), mine="")
        answer = self.ask(asking)
        self.unsend(asking, answer)
        return answer.superseded[0] if answer.waits and answer.superseded else ""

    def arrange(self, predecessor: Predecessor) -> None:
        """Let earlier ticks of the entry be queued (1), or run (2) and wait (3)."""
        if predecessor is Predecessor.QUEUED:
            self.send(self.tick(1))
        elif predecessor is not Predecessor.NONE:
            self.send(self.tick(2))
            self.case.run(self.tick(2).message, "n2")
            if predecessor is Predecessor.RUNNING_AND_BUFFERED:
                self.send(self.tick(3, OverlapPolicy.BUFFER_ONE))

    @property
    def queued(self) -> Message:
        """The message that is queued, as arranged."""
        return self.tick(1).message

    @property
    def running(self) -> Message:
        """The message that runs, as arranged; its delivery is n2."""
        return self.tick(2).message

    @property
    def buffered(self) -> Message:
        """The message that waits, as arranged, as its worker knows it."""
        return self.as_waiting(self.tick(3))

    def new(self, policy: OverlapPolicy | str) -> Tick:
        """Make the tick that comes after those that were arranged."""
        return self.tick(4, policy)

    @staticmethod
    def as_waiting(tick: Tick) -> Message:
        """Give a tick's message as the worker knows it that is to wait for a run's end."""
        return replace(tick.message, waits=True)


def _new_entry(key: str, *, apart: bool) -> str:
    while True:
        entry = uuid4().hex[:24]
        if (partition(entry) != partition(key)) == apart:
            return entry
