"""What every store promises to beat: each tick of an entry is claimed once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onceguard.rules.overlap import Action
    from onceguard.rules.ticks import Slot
    from onceguard.store.message import Held, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """
    A firing of a schedule entry that is about to be sent.

    Attributes:
        entry: Identity of the entry, the same in all beats of an app and in no
            other app.
        slot: Which firing it is.
        claims_slot: False: any firing is a new one (``once_beat_ticks=False``).
        remember_for: Life of the entry's state, in seconds: until well after
            the next firing.
        grace: How many seconds it may be late; None: any.
        message: What would be sent.
        claim_for: Life of its claim until it is `sent`; 0 claims nothing.
        mine: How the message ids of this entry's ticks begin: only those are
            superseded.
        actions: What to do for each `Predecessor`, in their order; empty: the key
            is not looked at.
        overdue: How many seconds ago an interval's tick fell due by the beat's own
            count, which knows of publishes that failed and of rows that were switched
            off meanwhile; None: an interval after the last one.
    """

    entry: str
    slot: Slot
    claims_slot: bool
    remember_for: float
    grace: float | None
    message: Message
    claim_for: float
    mine: str
    actions: tuple[Action, ...]
    overdue: float | None = None


class Verdict(str, Enum):
    """What the store says to a tick: `Action`, or that there is nothing to do."""

    TAKEN = "taken"
    """Another beat claimed this very firing."""
    MISSED = "missed"
    """It is later than *grace* allows."""
    SEND = "send"
    SKIP = "skip"
    BUFFER = "buffer"
    DROP = "drop"
    REPLACE = "replace"
    CANCEL = "cancel"

    @property
    def sends(self) -> bool:
        """Whether the tick's message is to be sent."""
        return self in {Verdict.SEND, Verdict.BUFFER, Verdict.REPLACE, Verdict.CANCEL}


@dataclass(frozen=True, slots=True, kw_only=True)
class LastTick:
    """
    The last tick of an entry that any beat claimed.

    Attributes:
        slot: Its scheduled instant; of an interval, when it was claimed. Unix seconds.
        age: Seconds since it was claimed, by the server's clock.
        skips: How many ticks in a row were not sent, up to that one.
    """

    slot: float
    age: float
    skips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """
    The answer to a tick.

    Attributes:
        verdict: What to do.
        last: The entry's last tick: this one, or the one that was before if
            the verdict is TAKEN.
        due_at: When it was due, unix seconds.
        late: How many seconds ago that was, by the server's clock.
        holder: Who is in the way, if anyone.
        waits: Whether the message is to wait for the end of the running call.
        superseded: Ids of the messages in whose place it is sent.
        before: The entry's state before, as the store wrote it.
        after: Its state now, likewise.
        replaced: The claim that the tick's will replace when it is sent, likewise, or "".
        beside: What a store that keeps entries and keys apart remembers of the key's
            part of the answer.
    """

    verdict: Verdict
    last: LastTick
    due_at: float
    late: float
    holder: Held | None
    waits: bool
    superseded: tuple[str, ...]
    before: str
    after: str
    replaced: str
    beside: str = ""


class TickStore(Protocol):
    """
    The port through which beat claims ticks.

    As for `Store`: each method is one atomic step, and raises StoreUnavailable.
    """

    def tick(self, tick: Tick) -> Ticked:
        """
        Claim a firing, and the key of its call as *actions* say.

        The firing is this message's from then on, whatever the verdict; other
        beats are told TAKEN. Asked again for the same message, it answers the same.
        """
        ...

    def sent(
        self, tick: Tick, answer: Ticked, *, unique_for: float, superseded_for: float
    ) -> bool:
        """
        Let a sent tick's claim live for *unique_for*, and supersede the messages in its way.

        A claim that ended while the message was being sent is made again, if the key is
        free and the message has not started. Those that are superseded are remembered
        for *superseded_for*; only CANCEL supersedes one that has started.

        Returns:
            Whether the message has its claim.
        """
        ...

    def unsend(self, tick: Tick, answer: Ticked) -> bool:
        """Take back a tick whose message could not be sent."""
        ...

    def last_ticks(
        self, entries: Sequence[str], *, first_seen: Mapping[str, float] | None = None
    ) -> list[LastTick | None]:
        """
        Read the last tick of each entry; None where there is none.

        Of those in *first_seen* it is written down that they were seen now, for so
        many seconds, if they have none: their first tick is due from there.
        """
        ...
