"""
The store's scripts as pure functions: what they find, what they answer.

Each reads like its Lua file. `(store, ...) -> (answer, store)`, or the store alone
where the caller has no use for the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from tests.model.state import (
    CLAIM,
    COMPLETED,
    LEASE,
    OPEN,
    PARENT,
    REPLACED,
    RETRY,
    TASK_ID,
    Hold,
    Record,
    Store,
)

if TYPE_CHECKING:
    from tests.model.rules import Rules, Scope

ACQUIRED, ALREADY_COMPLETED, DUPLICATE, REJECTED, SUPERSEDED, CONFLICT = range(6)
NEW: Final = Record(OPEN, 0, 0, 0)


How = Literal["ended", "retried", "skipped"]


class Caller(NamedTuple):
    """Who calls: the message, its delivery's nonce and its fencing token."""

    mid: int
    nonce: int
    token: int = 0


class Scripts:
    """The scripts of one scope, with the rules in force."""

    def __init__(self, rules: Rules, scope: Scope, max_deliveries: int) -> None:
        self._rules = rules
        self._max_deliveries = max_deliveries
        self._per_message = scope == "until_executing"
        self._claims = scope != "while_executing"

    def claim(self, store: Store, mid: int) -> tuple[bool, Store]:
        """Claim the key for a call about to be published."""
        lock = store.lock
        if lock is None:
            lapsed = store.lapsed and self._rules.claim_keeps_index
            return True, store._replace(lock=Hold(CLAIM, mid, 0, 0), lapsed=lapsed)
        own = self._rules.claim_idempotent and lock.mid == mid and lock.kind == CLAIM
        return own, store

    def unclaim(self, store: Store, mid: int) -> Store:
        """Free a claim whose message was not sent."""
        return self._without_claim(store, mid)

    def start(  # noqa: PLR0911  one return for each answer, in their order
        self, store: Store, caller: Caller
    ) -> tuple[int, int, Store]:
        """Ask to run: answer, fencing token, store."""
        rules, (mid, nonce, _) = self._rules, caller
        held = self.lease(store, mid)
        record = store.records[mid] or NEW
        if held and held[1:3] == (mid, nonce) and rules.start_idempotent:
            return ACQUIRED, held.token, store
        if record.state == COMPLETED:
            return ALREADY_COMPLETED, 0, store
        if (held and held.mid == mid) or self._same_task(store, held, mid):
            return DUPLICATE, 0, store
        if record.attempts >= self._max_deliveries:
            return REJECTED, 0, store
        if record.state == REPLACED:
            return SUPERSEDED, 0, store
        if self._refused(store, held, mid):
            return CONFLICT, 0, store
        return self._acquired(store, mid, nonce, record)

    def waits(self, store: Store, mid: int, generation: int) -> bool:
        """Whether a conflict must not end in a skip (rule 3)."""
        rules = self._rules
        record = store.records[mid] or NEW
        return (
            (rules.started_waits and record.attempts > 0)
            or (rules.copy_waits and generation > 0)
            or (rules.retry_waits and mid >= RETRY)
        )

    def lease(self, store: Store, mid: int) -> Hold | None:
        """The live lease that a start of this message would meet."""
        hold = self._place(store, mid)
        return hold if hold and hold.kind == LEASE else None

    def renew(self, store: Store, caller: Caller) -> Store:
        """Take a lease up again that ended by itself, if nobody was there since."""
        mid, nonce, token = caller
        rules, record = self._rules, store.records[mid]
        held = self._place(store, mid)
        if held and (held.kind == LEASE or held.mid == mid):
            return store
        untouched = record is None or (record.state == OPEN and record.nonce == nonce)
        if rules.take_up_checks_message and not untouched:
            return store
        if rules.take_up_checks_key and store.past > token:
            return store
        if record is None:
            store = _with_record(store, mid, Record(OPEN, 1, 0, nonce))
        return self._with_lease(store, Hold(LEASE, mid, nonce, token))._replace(lapsed=False)

    def finish(self, store: Store, caller: Caller, how: How = "ended") -> Store:
        """The run ended: free the lease or hand it to the retry, record completion."""
        rules, mid = self._rules, caller.mid
        held = self.lease(store, mid)
        mine = held is not None and self._mine(held, caller)
        if self._records(store, mid, how, mine=mine):
            store = _recorded(store, mid)
        if mine:
            store = self._freed(store, mid)
        elif rules.finish_ends_claim:
            store = self._without_claim(store, mid)
        hands_over = mine or not rules.retry_claim_needs_lease
        if how != "retried" or not hands_over or not rules.retry_claims:
            return store
        spares = rules.retry_claim_spares_done
        return self._claimed_for(store, RETRY, spares=spares) if self._claims else store

    def _records(self, store: Store, mid: int, how: How, *, mine: bool) -> bool:
        rules, record = self._rules, store.records[mid] or NEW
        if how == "skipped" and rules.skip_spares_started and record.attempts:
            return False
        if how == "retried" and not rules.retry_end_records:
            return False
        return mine or rules.loser_records or how == "skipped"

    def abandon(self, store: Store, caller: Caller) -> Store:
        """The pool process died: its lease becomes a claim of its message."""
        rules, mid = self._rules, caller.mid
        held = self.lease(store, mid)
        if not rules.abandon or held is None or held.mid != mid:
            return store
        if rules.abandon_compares_nonce and held.nonce != caller.nonce:
            return store
        store = self._freed(store, mid)
        claims = self._claims and not self._per_message
        spares = rules.abandon_spares_done
        return self._claimed_for(store, mid, spares=spares) if claims else store

    def raise_generation(self, store: Store, mid: int, generation: int) -> Store:
        """A newer copy is under way."""
        record = store.records[mid] or NEW
        if self._rules.raised_not_set:
            generation = max(generation, record.generation)
        return _with_record(store, mid, record._replace(generation=generation))

    def drop(self, store: Store, mid: int) -> Store:
        """Revoked or expired before start."""
        if self._rules.drop_records:
            store = _recorded(store, mid)
        if not self._rules.drop_compares and store.lock and store.lock.kind == CLAIM:
            return store._replace(lock=None)
        return self._without_claim(store, mid)

    def supersede(self, store: Store, mid: int) -> Store:
        """A newer call replaced this one."""
        record = store.records[mid] or NEW
        if record.state != OPEN:
            return store
        return _with_record(store, mid, record._replace(state=REPLACED))

    def forget(self, store: Store, mid: int) -> Store:
        """Nobody can ask for this completion any more."""
        return _with_record(store, mid, None)

    def _same_task(self, store: Store, held: Hold | None, mid: int) -> bool:
        rules, other = self._rules, held
        if rules.same_task_claim_waits and store.lock and store.lock.kind == CLAIM:
            other = store.lock
        if other is None or not rules.same_task_waits:
            return False
        return other.mid != mid and TASK_ID[other.mid] == TASK_ID[mid]

    def _refused(self, store: Store, held: Hold | None, mid: int) -> bool:
        if self._rules.claim_refuses and store.lock and store.lock.mid != mid:
            return True
        return held is not None

    def _acquired(
        self, store: Store, mid: int, nonce: int, record: Record
    ) -> tuple[int, int, Store]:
        token = store.counter + 1
        if store.lapsed and not self._per_message:
            store = store._replace(past=token)
        store = store._replace(counter=token)
        if self._per_message:
            store = self._without_claim(store, mid)
        else:
            store = store._replace(lapsed=False)
        store = self._with_lease(store, Hold(LEASE, mid, nonce, token))
        started = record._replace(attempts=record.attempts + 1, nonce=nonce)
        store = _with_record(store, mid, started)
        parent = PARENT[mid]
        if parent is not None and self._rules.retry_start_records:
            store = _recorded(store, parent)
        return ACQUIRED, token, store

    def _mine(self, held: Hold, caller: Caller) -> bool:
        if self._rules.finish_compares == "task":
            return TASK_ID[held.mid] == TASK_ID[caller.mid]
        if self._rules.finish_compares == "message":
            return held.mid == caller.mid
        return (held.mid, held.nonce) == (caller.mid, caller.nonce)

    def _claimed_for(self, store: Store, mid: int, *, spares: bool) -> Store:
        record = store.records[mid]
        if store.lock or (spares and record and record.state != OPEN):
            return store
        return store._replace(lock=Hold(CLAIM, mid, 0, 0))

    def _without_claim(self, store: Store, mid: int) -> Store:
        lock = store.lock
        if lock and lock.kind == CLAIM and lock.mid == mid:
            return store._replace(lock=None)
        return store

    def _run(self, mid: int) -> int:
        return TASK_ID[mid] if self._rules.runs_by_task else mid

    def _place(self, store: Store, mid: int) -> Hold | None:
        return store.runs[self._run(mid)] if self._per_message else store.lock

    def _freed(self, store: Store, mid: int) -> Store:
        if self._per_message:
            return _with_run(store, self._run(mid), None)
        return store._replace(lock=None, lapsed=False)

    def _with_lease(self, store: Store, lease: Hold) -> Store:
        if self._per_message:
            return _with_run(store, self._run(lease.mid), lease)
        return store._replace(lock=lease)


def _recorded(store: Store, mid: int) -> Store:
    record = store.records[mid] or NEW
    return _with_record(store, mid, record._replace(state=COMPLETED))


def _with_record(store: Store, mid: int, record: Record | None) -> Store:
    records = (*store.records[:mid], record, *store.records[mid + 1 :])
    return store._replace(records=records)


def _with_run(store: Store, mid: int, run: Hold | None) -> Store:
    return store._replace(runs=(*store.runs[:mid], run, *store.runs[mid + 1 :]))
