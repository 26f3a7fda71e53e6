"""A delivery ends: its ack, or what the main process does for a dead child."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model import invariants
from tests.model.process import Process
from tests.model.scripts import Caller
from tests.model.state import ABANDONED, COMPLETED, FORGET, GONE, RETRY, UNACKED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.moves import At, Step


class Ends(Process):
    """A delivery that has nothing left to do but to leave."""

    def ack(self, at: At) -> Iterator[Step]:
        """The message is acked; its record is forgotten where the rules say so."""
        forgets = self._rules.forget == "any" or (
            self._rules.forget == "originals" and at.entry.mid < RETRY
        )
        fresh = not at.entry.redelivered and at.entry.place == UNACKED
        record = at.state.store.records[at.entry.mid]
        completed = record and record.state == COMPLETED and not record.generation
        if forgets and fresh and completed and not at.entry.generation:
            forget = at.delivery._replace(pc=FORGET)
            yield at.step("acks", at.replaced((forget,), GONE))
        yield at.step("acks", at.gone(at.after_ack()))

    def forget(self, at: At) -> Iterator[Step]:
        """The main process forgets the completion."""
        store = self._scripts.forget(at.state.store, at.entry.mid)
        yield at.step("its record is forgotten", at.gone(GONE, store))

    def abandon(self, at: At) -> Iterator[Step]:
        """The pool process died: its lease becomes a claim of its message."""
        mid, nonce = at.entry.mid, at.delivery.nonce
        store = self._scripts.abandon(at.state.store, Caller(mid, nonce))
        note = invariants.freed_foreign(at.state.store, store, mid, nonce)
        for step in self._called(at, "abandon", ABANDONED, store):
            yield step._replace(note=note)

    def requeue(self, at: At) -> Iterator[Step]:
        """And then the message is put back into the queue."""
        lease = self._scripts.lease(at.state.store, at.entry.mid)
        note = invariants.abandoned(at, lease, self._bounds)
        marked = at.entry._replace(redelivered=self._rules.forget != "none")
        again = at._replace(entry=marked)
        yield at.step("requeued", again.gone(at.after_requeue()), note)
