"""The world around the protocol: the broker, the clock, deaths, stalls, lost data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.invariants import CUTS
from tests.model.moves import FAULT, OWN, At, Spend, Step, redelivered, witnessed
from tests.model.state import (
    ABANDONED,
    CLAIM,
    CLAIM_END,
    DEAD_CHILD,
    DEATH,
    EARLY_REVOKED,
    FORGET,
    GOT,
    IN_MAIN,
    LEASE,
    MESSAGES,
    QUEUED,
    REDELIVERY,
    RUNNING,
    STALL,
    UNACKED,
    WIPE,
    Delivery,
    Entry,
    Hold,
    State,
    live,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.rules import Setup


class Environment:
    """Every step that nobody of the protocol decides."""

    def __init__(self, setup: Setup) -> None:
        self._bounds = setup.bounds
        self._spend = Spend(setup.bounds.kinds)
        self._tracks = setup.rules.forget != "none"

    def steps(self, state: State) -> Iterator[Step]:
        """What the broker, the clock and the store's server may do now."""
        for index, entry in enumerate(state.entries):
            if entry.place == QUEUED:
                yield from self._deliver(state, index, entry)
            elif entry.place == UNACKED:
                yield from self._redeliver(state, index, entry)
        yield from self._lapse(state)
        store = state.store
        if (store.lock or any(store.records)) and (wiped := self._spend(state, WIPE)):
            yield Step("the store is emptied", -1, 0, FAULT, _emptied(wiped))

    def deaths(self, at: At) -> Iterator[Step]:
        """How the processes of one delivery may die."""
        pc, orphan = at.delivery.pc, at.delivery.orphan
        if orphan:
            yield at.step("orphan ends", _cut(at.gone(at.entry.place), at))
            return
        dying = self._spend(at.state, DEATH)
        if not dying or pc == FORGET:
            return
        dead = at._replace(state=dying)
        worker = _cut(dead.gone(at.entry.place), at)
        yield at.step("WORKER DIES", worker, kind=FAULT)
        if pc not in IN_MAIN:
            yield at.step("CHILD DIES", _cut(dead.to(DEAD_CHILD), at), kind=FAULT)
            if self._bounds.orphans and pc in RUNNING:
                left = at.delivery._replace(orphan=True)
                alone = dead.replaced((left,), at.entry.place)
                yield at.step("MAIN PROCESS DIES, child goes on", alone, kind=FAULT)

    def _deliver(self, state: State, index: int, entry: Entry) -> Iterator[Step]:
        under_way = len(live(state))
        if under_way >= self._bounds.deliveries:
            return
        arrived = Delivery(GOT, under_way + 1)
        taken = entry._replace(place=UNACKED, deliveries=(*entry.deliveries, arrived))
        entries = (*state.entries[:index], taken, *state.entries[index + 1 :])
        after = state._replace(entries=entries)
        yield Step("received", entry.mid, entry.generation, OWN, after)

    def _redeliver(self, state: State, index: int, entry: Entry) -> Iterator[Step]:
        alive = any(not d.orphan for d in entry.deliveries)
        paid = self._spend(state, REDELIVERY) if alive else state
        if paid is None:
            return
        after = redelivered(paid, index, self._bounds.transport, seen=self._tracks)
        kind = FAULT if alive else OWN
        yield Step("REDELIVERED", entry.mid, entry.generation, kind, after)

    def _lapse(self, state: State) -> Iterator[Step]:
        store = state.store
        claimed = store.lock and store.lock.kind == CLAIM
        if store.lock and claimed and (paid := self._spend(state, CLAIM_END)):
            ended = store._replace(lock=None)
            after = paid._replace(store=ended, exposed=True)
            yield Step("its claim ends by itself", store.lock.mid, 0, FAULT, after)
        for hold in (store.lock, *store.runs):
            if hold and hold.kind == LEASE:
                yield from self._lease_ends(state, hold)

    def _lease_ends(self, state: State, hold: Hold) -> Iterator[Step]:
        alive = hold.nonce and not any(d.orphan for d in live(state) if d.nonce == hold.nonce)
        paid = self._spend(state, STALL) if alive else state
        if paid is None:
            return
        store = state.store
        if store.lock == hold:
            store = store._replace(lock=None, lapsed=True)
        else:
            runs = tuple(None if run == hold else run for run in store.runs)
            store = store._replace(runs=runs)
        after = _stalled(paid, hold.nonce)._replace(store=store, exposed=True)
        if any(d.nonce == hold.nonce for d in live(state)):
            ghost = after.ghosts[hold.mid]._replace(stalled=True)
            after = witnessed(after, hold.mid, ghost)
        text = "STALLS PAST ITS LEASE" if alive else "the lease of the dead ends"
        yield Step(text, hold.mid, 0, FAULT if alive else OWN, after)


def _stalled(state: State, nonce: int) -> State:
    entries = tuple(
        entry._replace(
            deliveries=tuple(
                d._replace(stalled=True) if d.nonce == nonce and d.pc in RUNNING else d
                for d in entry.deliveries
            )
        )
        if entry.deliveries
        else entry
        for entry in state.entries
    )
    return state._replace(entries=entries)


def _emptied(state: State) -> State:
    none = (None,) * len(MESSAGES)
    store = state.store._replace(lock=None, runs=none, records=none, past=0, lapsed=False)
    for hold in (state.store.lock, *state.store.runs):
        if hold and hold.nonce:
            state = _stalled(state, hold.nonce)
    return state._replace(store=store, exposed=True, wiped=True)


def _cut(state: State, at: At) -> State:
    cut = CUTS.get(at.delivery.pc)
    if cut is None or at.delivery.pc in (ABANDONED, EARLY_REVOKED):
        return state
    return witnessed(state, at.entry.mid, state.ghosts[at.entry.mid]._replace(cut=cut))
