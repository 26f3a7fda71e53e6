"""Messages, what the broker keeps of them, and their deliveries: the data of `world.py`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from onceguard.store.contract import Message, Started

T = TypeVar("T")

Hold = tuple[str, ...]
"""Who has a key: ``("claim", message id)`` or ``("lease", message id, nonce)``."""


@dataclass(eq=False)
class Sent:
    """A message, and what became of it."""

    message: Message
    parent: "Sent | None" = None
    retries: int = 0
    accepted: bool = False
    bodies: int = 0
    completed: bool = False
    superseded: bool = False
    outcomes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Entry:
    """One message at the broker; all its deliveries share one acknowledgement (FACTS)."""

    sent: Sent
    generation: int = 0
    queued: int = 1
    unacked: bool = False


@dataclass(eq=False)
class Delivery:
    """One arrival at a worker: a body that runs, or steps that are still to be taken."""

    entry: Entry
    worker: int
    nonce: str
    body: bool = False
    stalled: bool = False
    dying: bool = False
    record: str = ""
    starts_then: int = 0
    steps: list[str] = field(default_factory=list)
    outcome: str = ""
    retry: Sent | None = None

    @property
    def sent(self) -> Sent:
        """The message that it is a delivery of."""
        return self.entry.sent

    @property
    def message(self) -> Message:
        """That message as the store knows it."""
        return self.entry.sent.message

    @property
    def lease(self) -> Hold:
        """The hold that its run has."""
        return ("lease", self.message.message_id, self.nonce)


def ask_once_or_twice(ask: Callable[[], T], *, twice: bool) -> T:
    """Ask, and once more as if the first reply had been lost."""
    first = ask()
    if twice:
        again = ask()
        if not isinstance(first, Started) or not isinstance(again, Started):
            return again
        assert (again.answer, again.starts) == (first.answer, first.starts)
    return first
