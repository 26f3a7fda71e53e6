"""How a state changes: one step, one process of it, and the small tools to move it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.model.state import (
    ACCEPTED,
    GONE,
    NAMES,
    QUEUED,
    RUNNING,
    UNACKED,
    Delivery,
    Entry,
    Ghost,
    State,
    Store,
)

if TYPE_CHECKING:
    from tests.model.rules import Transport

# A step of the protocol's own, or a fault: no promise may rest on one.
OWN, FAULT = range(2)


class Step(NamedTuple):
    """
    One step: what happens, to which message, and the state after it.

    `note` starts with "!" for a violation, with "~" for a known window in which
    something happens twice; it is empty otherwise.
    """

    text: str
    mid: int
    generation: int
    kind: int
    state: State
    note: str = ""

    def line(self) -> str:
        """The step as a line of a trace."""
        copy = f" (copy {self.generation})" if self.generation > 0 else ""
        who = f"{NAMES[self.mid]}{copy}: " if self.mid >= 0 else ""
        mark = f"   <-- {self.note[1:]}" if self.note else ""
        return f"{who}{self.text}{mark}"


class At(NamedTuple):
    """One delivery within a state."""

    state: State
    number: int
    position: int
    entry: Entry
    delivery: Delivery

    def step(self, text: str, state: State, note: str = "", *, kind: int = OWN) -> Step:
        """A step of this delivery."""
        return Step(text, self.entry.mid, self.entry.generation, kind, state, note)

    def to(self, pc: int, store: Store | None = None, *, token: int = 0) -> State:
        """The state with this delivery moved on, and the store changed."""
        d = self.delivery
        if pc in RUNNING:
            moved = Delivery(pc, d.nonce, token or d.token, d.stalled, d.orphan)
        else:
            moved = Delivery(pc, d.nonce, 0, stalled=False, orphan=d.orphan)
        return self.replaced((moved,), self.entry.place, store)

    def gone(self, place: int, store: Store | None = None) -> State:
        """The state without this delivery, its entry put there."""
        return self.replaced((), place, store)

    def replaced(
        self, by: tuple[Delivery, ...], place: int, store: Store | None = None
    ) -> State:
        """The state with other deliveries in this one's place."""
        state, number, position, entry, _ = self
        old = entry.deliveries
        changed = Entry(
            entry.mid,
            entry.generation,
            place,
            entry.redelivered,
            old[:position] + by + old[position + 1 :],
        )
        entries = (*state.entries[:number], changed, *state.entries[number + 1 :])
        return state._replace(entries=entries, store=store or state.store)

    def after_ack(self) -> int:
        """An ack removes the entry, unless it was put back into the queue before."""
        return self.entry.place if self.entry.place == QUEUED else GONE

    def after_requeue(self) -> int:
        """A requeue finds the entry only if nobody acked it."""
        return QUEUED if self.entry.place == UNACKED else self.entry.place


class Spend:
    """The faults that may happen."""

    def __init__(self, kinds: frozenset[int]) -> None:
        self._kinds = kinds

    def __call__(self, state: State, kind: int) -> State | None:
        """The state with one fault less to come, or None if it must not happen."""
        if not state.faults or kind not in self._kinds:
            return None
        return state._replace(faults=state.faults - 1)


def published(state: State, mid: int, generation: int = 0) -> State:
    """The state with a message more in the broker."""
    entry = Entry(mid, generation, QUEUED, redelivered=False, deliveries=())
    return told(state._replace(entries=(*state.entries, entry)), mid, ACCEPTED)


def told(state: State, mid: int, what: int) -> State:
    """The state in which this became visible of a message."""
    ghost = state.ghosts[mid]
    return witnessed(state, mid, ghost._replace(told=ghost.told | what))


def witnessed(state: State, mid: int, ghost: Ghost) -> State:
    """The state with the truth about a message changed."""
    ghosts = (*state.ghosts[:mid], ghost, *state.ghosts[mid + 1 :])
    return state._replace(ghosts=ghosts)


def redelivered(state: State, index: int, transport: Transport, *, seen: bool) -> State:
    """The state in which the broker delivers an entry again."""
    entry = state.entries[index]
    again = entry._replace(place=QUEUED, redelivered=seen)
    others = (*state.entries[:index], *state.entries[index + 1 :])
    if transport == "redis":
        return state._replace(entries=(*others, again))
    void = entry._replace(place=GONE)
    return state._replace(entries=(*others, void, again._replace(deliveries=())))
