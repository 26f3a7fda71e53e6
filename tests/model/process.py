"""What all parts of a delivery share: a call of the store, and how it may fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.moves import FAULT, At, Spend, Step, witnessed
from tests.model.state import COMPLETED, FIRST, LOST_REPLY, RETRY, STORE_DOWN, State, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.rules import Setup
    from tests.model.scripts import Scripts


class Process:
    """A process that calls the store."""

    def __init__(self, setup: Setup, scripts: Scripts) -> None:
        self._rules, self._bounds, self._scripts = setup.rules, setup.bounds, scripts
        self._spend = Spend(setup.bounds.kinds)

    def _called(self, at: At, text: str, pc: int, store: Store) -> Iterator[Step]:
        """A call: applied; applied, with its reply lost; not applied, and given up."""
        yield at.step(text, at.to(pc, store))
        if store == at.state.store:
            return
        if lost := self._spend(at.state, LOST_REPLY):
            same = at._replace(state=lost).to(at.delivery.pc, store)
            yield at.step(f"{text}, reply lost", same, kind=FAULT)
        if down := self._spend(at.state, STORE_DOWN):
            after = at._replace(state=down).to(pc)
            yield at.step(f"{text}: store down, not applied", after, kind=FAULT)


def recorded(state: State, mid: int) -> State:
    """The state in which this message's completion was recorded."""
    return witnessed(state, mid, state.ghosts[mid]._replace(recorded=True))


def is_completed(store: Store, mid: int) -> bool:
    """Whether the store has this message as completed."""
    record = store.records[mid]
    return record is not None and record.state == COMPLETED


def parent_recorded(state: State, mid: int, store: Store) -> State:
    """The state in which a retry's start recorded its parent, if it did."""
    if mid == RETRY and is_completed(store, FIRST):
        return recorded(state, FIRST)
    return state
