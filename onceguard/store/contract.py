"""
What every store promises: one method for each transition of the protocol.

Each method is one atomic step on the server, timed by the server's clock, and
safe to send again when its reply was lost. Durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from onceguard.store.message import Held, Listed, Message
from onceguard.store.tick_contract import TickStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Answer",
    "Held",
    "Lease",
    "Listed",
    "Message",
    "Renewed",
    "Started",
    "Store",
    "Successor",
]


class Answer(str, Enum):
    """What the store says to a delivery that asks to start."""

    ACQUIRED = "acquired"
    ALREADY_COMPLETED = "already_completed"
    DUPLICATE_DELIVERY = "duplicate_delivery"
    REJECTED = "rejected"
    REPLACED = "replaced"
    MISSED = "missed"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Started:
    """
    The answer to a start.

    Attributes:
        answer: Whether and why (not).
        held: The new lease if acquired, else who is in the way, if anyone is.
        generation: How often the message was put off, as the store knows it.
        starts: How often it was started, this start included.
    """

    answer: Answer
    held: Held | None
    generation: int
    starts: int


class Renewed(str, Enum):
    """What became of a lease that was to be renewed."""

    RENEWED = "renewed"
    RETAKEN = "retaken"
    SUPERSEDED = "superseded"
    ENDED = "ended"
    ABSENT = "absent"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    A lease to renew.

    Attributes:
        message: Whose lease it is.
        nonce: Which delivery of the message holds it.
        lease_ttl: Its new life.
        completed_for: New life of the message's record.
        seen: Its record as the last renewal answered it, '' before the first.
        unseen: Take it up even though it was never seen: its run has gone on for
            so long that it must have had one.
    """

    message: Message
    nonce: str
    lease_ttl: float
    completed_for: float
    seen: str
    unseen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """The claim of a retry, made when the run that published it ends."""

    message_id: str
    unique_for: float


class Store(TickStore, Protocol):
    """
    The port through which everything else takes and frees keys.

    Every method raises StoreUnavailable when the server did not answer in
    time. The step may have been taken all the same; what it took ends by
    itself after the life that was asked for.
    """

    def claim(self, message: Message, *, unique_for: float) -> Held | None:
        """Claim a free key before publishing; None means claimed, by this very message."""
        ...

    def unclaim(self, message: Message) -> None:
        """Free the claim of a message whose publish failed; leave any other alone."""
        ...

    def start(  # noqa: PLR0913 - one argument for each thing the protocol compares
        self,
        message: Message,
        *,
        nonce: str,
        parent_id: str | None,
        max_deliveries: int,
        lease_ttl: float,
        completed_for: float,
        start_by: float | None = None,
    ) -> Started:
        """
        Ask to run a delivered message; in the order of docs/explanation/protocol.md.

        A message that was not started by *start_by*, unix seconds, is missed.

        Only a live lease is in the way, never another message's claim. An
        acquired start records the parent of a retry as completed.
        """
        ...

    def renew(self, leases: Sequence[Lease]) -> list[tuple[Renewed, str]]:
        """
        Renew leases, and take up again what ended while nobody ran in between.

        Returns:
            For each lease what became of it, with its record (renewed,
            retaken) or the record of who has it now (lost).
        """
        ...

    def finish(
        self,
        message: Message,
        *,
        nonce: str,
        completed_for: float,
        successor: Successor | None = None,
        skipped: bool = False,
    ) -> bool:
        """
        Free what the message holds, record it as completed; was its lease still held?

        A message that was *skipped* is left alone if it was started meanwhile, by
        another delivery.
        """
        ...

    def abandon(self, message: Message, *, nonce: str, unique_for: float) -> bool:
        """Turn a dead process's lease into its message's claim; 0 s frees it instead."""
        ...

    def shorten(
        self, message: Message, *, nonce: str, lease_ttl: float, completed_for: float
    ) -> bool:
        """Record a message as completed, let its lease end within *lease_ttl*."""
        ...

    def put_off(
        self,
        message: Message,
        *,
        generation: int,
        completed_for: float,
        unique_for: float,
    ) -> int:
        """
        Record that a copy of this generation is under way; it never goes back.

        The claim of a tick that waits lives for *unique_for* from now on.
        """
        ...

    def drop(self, message: Message, *, completed_for: float) -> bool:
        """Record a message that will never start as completed, free its claim only."""
        ...

    def forget(self, messages: Iterable[Message], *, after: float) -> int:
        """
        Remember completed messages for *after* seconds only; how many.

        A message that was put off is remembered as before: its copy comes back.
        """
        ...

    def holder(self, message: Message) -> Held | None:
        """Who holds the lease of this message's key now."""
        ...

    def holders(self) -> list[Listed]:
        """
        List all claims and leases that are held now, on every node, in no order.

        It costs in proportion to what is held, whatever else the server holds: for each
        partition a call, and one more for each 500 keys. A tick that waits for the end of
        a run is not among them.
        """
        ...
