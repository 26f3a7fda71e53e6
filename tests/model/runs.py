"""A message runs: its body, its outcome, its end in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.model import invariants
from tests.model.invariants import CUTS
from tests.model.moves import FAULT, At, Step, published, told, witnessed
from tests.model.process import Process, is_completed, recorded
from tests.model.scripts import Caller, How
from tests.model.state import (
    ASKED,
    ASKED_RETRY,
    BODY,
    DONE,
    EARLY_DONE,
    EARLY_FAILURE,
    EARLY_REVOKED,
    ENDED,
    FIRST,
    GIVE_UP,
    GIVEN_UP,
    LATE,
    LOST_REPLY,
    RETRIED,
    RETRY,
    SKIP,
    SKIPPED,
    STORED,
    STRAY_RETRY,
    TO_ACK,
    TOLD_FAILURE,
    TOLD_REVOKED,
    TOLD_SKIP,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIVES_UP: Final = "stores FAILURE: too many deliveries"
# An outcome is two steps: from where, its text, what is told, where to if it is told
# first (the rule), where to if it is recorded first (the mutation).
_OUTCOMES: Final = {
    ENDED: ("stores its result", DONE, STORED, EARLY_DONE),
    SKIP: ("stores None: skipped", TOLD_SKIP, SKIPPED, EARLY_DONE),
    GIVE_UP: (_GIVES_UP, TOLD_FAILURE, GIVEN_UP, EARLY_FAILURE),
}
_EARLY: Final = {
    EARLY_DONE: ("stores its result", DONE),
    EARLY_FAILURE: (_GIVES_UP, TOLD_FAILURE),
    EARLY_REVOKED: ("told as revoked", TOLD_REVOKED),
}
_HOW: Final[dict[int, How]] = {RETRIED: "retried", SKIP: "skipped", SKIPPED: "skipped"}


class Runs(Process):
    """A delivery that got the key, or is skipped or given up."""

    def begin(self, at: At) -> Iterator[Step]:
        """The task function is entered."""
        mid = at.entry.mid
        ghost = at.state.ghosts[mid]
        begun = witnessed(at.to(BODY), mid, ghost._replace(begun=ghost.begun + 1))
        yield at.step("BODY BEGINS", begun, invariants.begin(at))

    def end(self, at: At) -> Iterator[Step]:
        """The task function is left: for good, or to be retried."""
        mid = at.entry.mid
        ended = at.state.ghosts[mid]._replace(ended=True)
        yield at.step("BODY ENDS", witnessed(at.to(ENDED), mid, ended))
        if self._bounds.retries and mid == FIRST:
            retried = witnessed(at.to(ASKED), mid, ended)
            yield at.step("BODY ENDS, asks for a retry", retried)

    def publish_retry(self, at: At) -> Iterator[Step]:
        """The retry is sent while its parent is still ending."""
        again = at.state.ghosts[FIRST].told & ASKED_RETRY
        stray = again and not self._rules.retry_id_follows
        sent = told(at.state, FIRST, ASKED_RETRY)
        sent = published(sent, STRAY_RETRY if stray else RETRY)
        yield at.step("publishes its retry", at._replace(state=sent).to(RETRIED))
        if lost := self._spend(sent, LOST_REPLY):
            yield at.step("publishes its retry, reply lost", lost, kind=FAULT)

    def outcome(self, at: At) -> Iterator[Step]:
        """The caller is told what became of the message."""
        text, what, told_first, recorded_first = _OUTCOMES[at.delivery.pc]
        gives_up = at.delivery.pc == GIVE_UP
        if self._rules.failure_first if gives_up else self._rules.result_first:
            yield at.step(text, told(at.to(told_first), at.entry.mid, what))
        else:
            yield from self._finished(at, recorded_first)

    def tell_late(self, at: At) -> Iterator[Step]:
        """A mutation: it is told after it was recorded."""
        text, what = _EARLY[at.delivery.pc]
        yield at.step(text, told(at.to(TO_ACK), at.entry.mid, what))

    def finish(self, at: At) -> Iterator[Step]:
        """The store is told: the lease is freed, completion recorded."""
        if at.delivery.pc == STORED and not self._rules.ack_last:
            late = at.delivery._replace(pc=LATE)
            acked = at.replaced((late,), at.after_ack())
            yield at.step("acks before it is recorded", acked)
        else:
            yield from self._finished(at, TO_ACK)

    def renew(self, at: At) -> Iterator[Step]:
        """The main process finds the lease gone, and takes it up again if it may."""
        delivery, before = at.delivery, at.state.store
        caller = Caller(at.entry.mid, delivery.nonce, delivery.token)
        store = self._scripts.renew(before, caller)
        if store is not before:
            held = delivery._replace(stalled=False)
            after = at.replaced((held,), at.entry.place, store)
            note = invariants.taken_up(at, before, self._bounds)
            yield at.step("renew: takes its lease up again", after, note)

    def _finished(self, at: At, then: int) -> Iterator[Step]:
        mid, pc, before = at.entry.mid, at.delivery.pc, at.state.store
        how = _HOW.get(pc, "ended")
        store = self._scripts.finish(before, Caller(mid, at.delivery.nonce), how)
        note = invariants.recorded(at, how, store) or invariants.freed_foreign(
            before, store, mid, at.delivery.nonce
        )
        for step in self._called(at, "finish", then, store):
            state = step.state
            if step.text.endswith("not applied"):
                state = _cut(state, mid, pc)
            elif how != "skipped" or is_completed(store, mid):
                state = recorded(state, mid)
            yield step._replace(state=state, note=note)


def _cut(state: State, mid: int, pc: int) -> State:
    ghost = state.ghosts[mid]
    return witnessed(state, mid, ghost._replace(cut=CUTS.get(pc, "")))
