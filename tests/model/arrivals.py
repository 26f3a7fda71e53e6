"""A message arrives: what it asks the store, and how it is put off or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model import invariants, scripts
from tests.model.moves import FAULT, At, Step, published, told
from tests.model.process import Process, parent_recorded, recorded
from tests.model.scripts import Caller
from tests.model.state import (
    COPIED,
    EARLY_REVOKED,
    GIVE_UP,
    GONE,
    GOT,
    LOST_REPLY,
    PUT_OFF,
    PUT_OFF_BLIND,
    READY,
    REVOKE,
    REVOKED,
    SKIP,
    STORE_DOWN,
    TO_ACK,
    TOLD_REPLACED,
    TOLD_REVOKED,
    UNACKED,
    Store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Arrivals(Process):
    """A delivery that does not run, or not yet."""

    def received(self, at: At) -> Iterator[Step]:
        """In the main process: it is started, or found revoked."""
        yield from self._start(at)
        if at.entry.generation < self._bounds.generations and (
            down := self._spend(at.state, STORE_DOWN)
        ):
            blind = at._replace(state=down).to(PUT_OFF_BLIND)
            yield at.step("start: store down, is put off", blind, kind=FAULT)
        if revoked := self._spend(at.state, REVOKE):
            yield from self._revoked(at._replace(state=revoked))

    def publish_copy(self, at: At) -> Iterator[Step]:
        """Put off, first step: the same message again, one generation on."""
        mid, blind = at.entry.mid, at.delivery.pc == PUT_OFF_BLIND
        if not self._rules.copy_before_ack and at.entry.place == UNACKED:
            yield at.step("acks before its copy", at.replaced((at.delivery,), GONE))
            return
        after = published(at.to(TO_ACK if blind else COPIED), mid, at.entry.generation + 1)
        yield at.step("publishes its copy", after)
        if lost := self._spend(at.state, LOST_REPLY):
            after = published(lost, mid, at.entry.generation + 1)
            yield at.step("publishes its copy, reply lost", after, kind=FAULT)

    def raise_generation(self, at: At) -> Iterator[Step]:
        """Put off, second step: older deliveries need not come back."""
        store = self._scripts.raise_generation(
            at.state.store, at.entry.mid, at.entry.generation + 1
        )
        yield from self._called(at, "raises the generation", TO_ACK, store)

    def drop(self, at: At) -> Iterator[Step]:
        """Told as revoked: recorded, its claim freed."""
        mid = at.entry.mid
        store = self._scripts.drop(at.state.store, mid)
        note = invariants.freed_foreign(at.state.store, store, mid, at.delivery.nonce)
        yield at.step("drop", recorded(at.to(TO_ACK, store), mid), note)

    def _revoked(self, at: At) -> Iterator[Step]:
        mid = at.entry.mid
        if self._rules.drop_told_first:
            after = told(at.to(REVOKED), mid, TOLD_REVOKED)
            yield at.step("told as revoked", after, kind=FAULT)
        else:
            after = at.to(EARLY_REVOKED, self._scripts.drop(at.state.store, mid))
            yield at.step("revoked: drop", recorded(after, mid), kind=FAULT)

    def _start(self, at: At) -> Iterator[Step]:
        mid, before = at.entry.mid, at.state.store
        caller = Caller(mid, at.delivery.nonce)
        answer, token, store = self._scripts.start(before, caller)
        if answer == scripts.ACQUIRED:
            yield from self._acquired(at, store, token)
        elif answer == scripts.ALREADY_COMPLETED:
            yield at.step("start: already completed", at.to(TO_ACK))
        elif answer == scripts.DUPLICATE:
            yield from self._duplicate(at)
        elif answer == scripts.REJECTED:
            yield at.step("start: rejected", at.to(GIVE_UP))
        elif answer == scripts.SUPERSEDED:
            freed = self._scripts.unclaim(before, mid)
            after = told(at.to(TO_ACK, freed), mid, TOLD_REPLACED)
            yield at.step("start: superseded", after)
        else:
            yield from self._conflict(at)

    def _acquired(self, at: At, store: Store, token: int) -> Iterator[Step]:
        mid, new = at.entry.mid, store != at.state.store
        note = invariants.started(at) if new else ""
        after = parent_recorded(at.to(READY, store, token=token), mid, store)
        yield at.step("start: acquired", after, note)
        if new and (lost := self._spend(at.state, LOST_REPLY)):
            after = parent_recorded(at._replace(state=lost).to(GOT, store), mid, store)
            yield at.step("start: acquired, reply lost", after, kind=FAULT)

    def _duplicate(self, at: At) -> Iterator[Step]:
        record = at.state.store.records[at.entry.mid]
        newest, own = record.generation if record else 0, at.entry.generation
        older = {
            "generations": own < newest,
            "marked": own != newest,
            "unordered": False,
        }[self._rules.copies]
        if older:
            yield at.step("start: duplicate, a newer copy is under way", at.to(TO_ACK))
        else:
            yield from self._put_off(at, "start: duplicate, is put off")

    def _conflict(self, at: At) -> Iterator[Step]:
        mid, store = at.entry.mid, at.state.store
        waits = self._scripts.waits(store, mid, at.entry.generation)
        if self._bounds.reschedule or waits:
            yield from self._put_off(at, "start: conflict, waits")
        else:
            note = invariants.skip(at, self._scripts.lease(store, mid))
            yield at.step("start: conflict, skips", at.to(SKIP), note)

    def _put_off(self, at: At, text: str) -> Iterator[Step]:
        if at.entry.generation < self._bounds.generations:
            lease = self._scripts.lease(at.state.store, at.entry.mid)
            yield at.step(text, at.to(PUT_OFF), invariants.refused(lease))
