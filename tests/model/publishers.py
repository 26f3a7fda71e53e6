"""The publisher's side: claim, send, and what it does when either fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model import invariants
from tests.model.moves import FAULT, Spend, Step, published, told
from tests.model.state import (
    CALLS,
    CLAIM,
    CLAIMED,
    DEATH,
    FINISHED,
    FIRST,
    GIVING_UP,
    IDLE,
    LOST_REPLY,
    OVERRIDING,
    SECOND,
    SENT_OVER,
    TOLD_REPLACED,
    Hold,
    State,
    Store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.rules import Setup
    from tests.model.scripts import Scripts


class Publishers:
    """Every step that a publisher of one of the two calls can take."""

    def __init__(self, setup: Setup, scripts: Scripts) -> None:
        self._rules, self._bounds, self._scripts = setup.rules, setup.bounds, scripts
        self._spend = Spend(setup.bounds.kinds)

    def steps(self, state: State) -> Iterator[Step]:
        """The next step of each publisher."""
        for mid in CALLS:
            at = state.publishers[mid]
            if at == IDLE:
                yield from self._claim(state, mid)
            elif at == CLAIMED:
                yield from self._send(state, mid, FINISHED)
            elif at == OVERRIDING:
                yield from self._replace(state, mid)
            elif at == SENT_OVER:
                yield from self._supersede(state, mid, FINISHED)
            elif at == GIVING_UP:
                yield from self._unclaim(state, mid)
            if at not in (IDLE, FINISHED) and (dead := self._spend(state, DEATH)):
                yield Step("publisher dies", mid, -1, FAULT, _at(dead, mid, FINISHED))

    def _claim(self, state: State, mid: int) -> Iterator[Step]:
        bounds, lock = self._bounds, state.store.lock
        if bounds.scope == "while_executing" or not bounds.guarded[mid]:
            yield from self._send(state, mid, FINISHED)
            return
        if bounds.replace and mid == SECOND and lock and lock[:2] == (CLAIM, FIRST):
            store = state.store._replace(lock=Hold(CLAIM, mid, 0, 0))
            yield Step("claims over it", mid, -1, 0, _at(state, mid, OVERRIDING, store))
            return
        granted, store = self._scripts.claim(state.store, mid)
        if not granted:
            note = "!refused for its own claim" if lock and lock.mid == mid else ""
            yield Step("refused", mid, -1, 0, _at(state, mid, FINISHED), note)
            return
        note = invariants.claim_granted(state, mid, bounds)
        yield Step("claims the key", mid, -1, 0, _at(state, mid, CLAIMED, store), note)
        if (lost := self._spend(state, LOST_REPLY)) and store != state.store:
            yield Step("claims, reply lost", mid, -1, FAULT, _at(lost, mid, IDLE, store))

    def _send(self, state: State, mid: int, then: int) -> Iterator[Step]:
        sent = published(state, mid)
        yield Step("published", mid, -1, 0, _at(sent, mid, then))
        if lost := self._spend(sent, LOST_REPLY):
            yield Step("published, reply lost", mid, -1, FAULT, lost)
            if then == FINISHED and state.publishers[mid] == CLAIMED:
                text = "published, reply lost, given up"
                yield Step(text, mid, -1, FAULT, _at(lost, mid, GIVING_UP))
        if (lost := self._spend(state, LOST_REPLY)) and state.publishers[mid] == CLAIMED:
            yield Step("publish fails", mid, -1, FAULT, _at(lost, mid, GIVING_UP))

    def _replace(self, state: State, mid: int) -> Iterator[Step]:
        if self._rules.supersede_after_send:
            yield from self._send(state, mid, SENT_OVER)
        else:
            yield from self._supersede(state, mid, CLAIMED)

    def _supersede(self, state: State, mid: int, then: int) -> Iterator[Step]:
        store = self._scripts.supersede(state.store, FIRST)
        after = told(_at(state, mid, then, store), FIRST, TOLD_REPLACED)
        yield Step("supersedes the first call", mid, -1, 0, after)

    def _unclaim(self, state: State, mid: int) -> Iterator[Step]:
        store = self._scripts.unclaim(state.store, mid)
        note = invariants.freed_foreign(state.store, store, mid, 0)
        after = _at(state, mid, FINISHED, store)._replace(exposed=True)
        yield Step("unclaims", mid, -1, 0, after, note)


def _at(state: State, mid: int, where: int, store: Store | None = None) -> State:
    publishers = (*state.publishers[:mid], where, *state.publishers[mid + 1 :])
    return state._replace(publishers=publishers, store=store or state.store)
