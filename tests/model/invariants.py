"""
What must never happen, what may happen twice, and what must hold at the end.

A note starts with "!" for a violation and with "~" for a window: a second run that
the protocol can't prevent. test_protocol.py holds the complete list of windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.model.state import (
    ACCEPTED,
    ASKED,
    ASKED_RETRY,
    BODY,
    CALLS,
    CLAIM,
    CLAIM_END,
    COMPLETED,
    COPIED,
    DONE,
    ENDED,
    FINISHED,
    FIRST,
    GIVEN_UP,
    GONE,
    GOT,
    LEASE,
    LOST_REPLY,
    MESSAGES,
    OPEN,
    READY,
    REDELIVERY,
    RETRIED,
    RETRY,
    REVOKED,
    RUNNING,
    SECOND,
    SKIPPED,
    STORE_DOWN,
    STORED,
    STRAY_RETRY,
    TASK_ID,
    TO_ACK,
    TOLD_FAILURE,
    TOLD_REPLACED,
    TOLD_REVOKED,
    TOLD_SKIP,
    Hold,
    State,
    Store,
)

if TYPE_CHECKING:
    from tests.model.moves import At
    from tests.model.rules import Bounds

# What is cut off by a death, or by a store that does not answer, at this point.
CUTS: Final = {
    ENDED: "the body ended, its result was not stored",
    STORED: "the result was stored, its completion not recorded",
    ASKED: "the body asked for a retry, which was not published",
    RETRIED: "the retry was published, the end of its parent not recorded",
    SKIPPED: "the skip was told, but not recorded",
    GIVEN_UP: "FAILURE was told, but not recorded",
    REVOKED: "the revocation was told, but not recorded",
}
# Faults after which every start that was counted still begins its body.
HARMLESS: Final = frozenset({LOST_REPLY, REDELIVERY, CLAIM_END})


def started(at: At) -> str:
    """A start is answered with "acquired": no finished message may get that answer."""
    ghost = at.state.ghosts[at.entry.mid]
    if at.state.wiped:
        return ""
    if ghost.recorded:
        return "!a finished message is started again"
    if at.entry.mid == FIRST and at.state.ghosts[RETRY].begun:
        return "!a parent is started again after its retry began"
    return ""


def begin(at: At) -> str:
    """A body is about to begin: must it not, or is this a known window?"""
    mid, state = at.entry.mid, at.state
    ghost, record = state.ghosts[mid], state.store.records[mid]
    twins = {RETRY: STRAY_RETRY, STRAY_RETRY: RETRY}
    if mid in twins and state.ghosts[twins[mid]].begun:
        return "!one retry runs as two messages"
    finished = ghost.ended or ghost.recorded
    if finished or ghost.told & (TOLD_REVOKED | TOLD_FAILURE | TOLD_SKIP):
        window = _again(at)
        return f"~{window}" if window else "!a finished message runs again"
    if mid == FIRST and state.ghosts[RETRY].begun:
        window = _again(at)
        return f"~{window} (its retry began)" if window else "!a parent after its retry"
    if record is None and not state.wiped:
        return "!a body began that was not counted"
    if record and record.state == OPEN and ghost.begun >= record.attempts:
        return "" if state.wiped else "!a body began that was not counted"
    return ""


def _again(at: At) -> str:
    """Why a message may run again that ended: the windows, "" if there is no reason."""
    ghost = at.state.ghosts[at.entry.mid]
    windows = (
        (at.state.wiped, "the store was emptied"),
        (ghost.cut, ghost.cut),
        (at.delivery.stalled, "a start stalled past its lease before its body began"),
        (ghost.stalled, "a holder stalled past its lease, and another delivery took over"),
        (
            ghost.told & TOLD_SKIP and not ghost.recorded,
            "a skip was told, but not yet recorded when its redelivery started",
        ),
        (
            ghost.told & TOLD_REVOKED,
            "one delivery was revoked while another was starting",
        ),
    )
    return next((window for happened, window in windows if happened), "")


def skip(at: At, lease: Hold | None) -> str:
    """A skip is decided: another task must run, and this one must not have begun."""
    ghosts, mid = at.state.ghosts, at.entry.mid
    if lease is None:
        return refused(lease)
    if TASK_ID[lease.mid] == TASK_ID[mid]:
        return "!a skip overwrites the result of its own task"
    if ghosts[mid].begun or (mid >= RETRY and ghosts[FIRST].begun):
        if at.state.wiped and not at.entry.generation:
            return "~the store was emptied, a task that had begun was skipped"
        return "!a task that had begun is skipped"
    if ghosts[mid].told & (ASKED_RETRY | DONE):
        return "!a skip overwrites an outcome"
    return ""


def recorded(at: At, how: str, store: Store) -> str:
    """A skip is recorded: the message's other delivery must not run."""
    mid = at.entry.mid
    before, after = at.state.store.records[mid], store.records[mid]
    if how != "skipped" or at.state.wiped or before == after:
        return ""
    if after is None or after.state == OPEN:
        return ""
    others = [d for e in at.state.entries if e.mid == mid for d in e.deliveries]
    if any(d.pc in RUNNING for d in others):
        return "!a skip records a message as completed that runs"
    return ""


def refused(lease: Hold | None) -> str:
    """A start is refused: only by a lease, which its holder or its end takes away."""
    return "" if lease else "!a start is refused, and nobody runs"


def abandoned(at: At, lease: Hold | None, bounds: Bounds) -> str:
    """A dead child's message is requeued: its lease must not be left to its end."""
    own = lease is not None and lease[1:3] == (at.entry.mid, at.delivery.nonce)
    if own and STORE_DOWN not in bounds.kinds:
        return "!the lease of a dead child is left to end by itself"
    return ""


def claim_granted(state: State, mid: int, bounds: Bounds) -> str:
    """No equal call may be queued, unless a hold ended by itself before."""
    if state.exposed:
        return ""
    for other in MESSAGES:
        if other == mid or (other in CALLS and not bounds.guarded[other]):
            continue
        ghost, record = state.ghosts[other], state.store.records[other]
        started = record is not None and record.attempts > 0
        if bounds.scope == "until_executing" and (started or other >= RETRY):
            continue
        if ghost.told == ACCEPTED:
            if other == RETRY and state.ghosts[FIRST].told & DONE:
                return "~a parent ran again after it had published its retry, and succeeded"
            return "!two equal calls are queued"
    return ""


def freed_foreign(before: Store, after: Store, mid: int, nonce: int) -> str:
    """Nobody's end frees another's hold."""
    pairs = [(before.lock, after.lock), *zip(before.runs, after.runs, strict=True)]
    for old, new in pairs:
        if old is None or old == new:
            continue
        if old.mid != mid or (old.kind == LEASE and old.nonce != nonce):
            return "!an end frees another's hold"
    return ""


def taken_up(at: At, store: Store, bounds: Bounds) -> str:
    """A holder takes its lease up again: nobody may have had a newer one."""
    if at.state.ghosts[at.entry.mid].recorded and not at.state.wiped:
        return "!a lease is taken up again for a finished message"
    if bounds.scope == "until_executing":
        return ""
    if at.delivery.token < store.counter and not at.state.wiped:
        return "!an older fencing token takes the key back"
    return ""


def always(state: State, bounds: Bounds) -> str:
    """What must hold in every state."""
    if len(state.entries) > 1 and (note := _overlap(state, bounds)):
        return note
    used = bounds.faults - state.faults
    uncounted = used if bounds.kinds - HARMLESS else 0
    for mid in MESSAGES:
        ghost, record = state.ghosts[mid], state.store.records[mid]
        if record and record.attempts > ghost.begun + uncounted + _ready(state, mid):
            return "!an attempt was counted that never began"
    if len(state.entries) > 1 and _copies(state) > 1 + used:
        return "!more copies of a message than faults explain"
    return ""


def _ready(state: State, mid: int) -> int:
    """Starts whose body is still to begin; a lost reply may not have arrived yet."""
    deliveries = (d for entry in state.entries if entry.mid == mid for d in entry.deliveries)
    return sum(d.pc in (READY, GOT) for d in deliveries)


def _copies(state: State) -> int:
    """How often the most frequent message is under way, a put-off one counted once."""
    counts = [0] * len(MESSAGES)
    for entry in state.entries:
        counts[entry.mid] += entry.place != GONE
        counts[entry.mid] -= sum(d.pc in (COPIED, TO_ACK) for d in entry.deliveries)
    return max(counts)


def _overlap(state: State, bounds: Bounds) -> str:
    bodies = [
        (entry.mid, d.stalled)
        for entry in state.entries
        for d in entry.deliveries
        if d.pc == BODY
    ]
    if len(bodies) < 2:
        return ""
    if bounds.scope == "until_executing" and len({mid for mid, _ in bodies}) > 1:
        return ""
    if sum(not stalled for _, stalled in bodies) > 1:
        return "!two bodies at once, and nobody stalled"
    return ""


def over(state: State) -> bool:
    """Nothing is under way: no publisher, no message, no delivery."""
    return not state.entries and all(at == FINISHED for at in state.publishers)


def at_the_end(state: State) -> str:
    """What must hold when everything is over."""
    ghosts, lock = state.ghosts, state.store.lock
    if any(ghost.told == ACCEPTED for ghost in ghosts):
        return "!an accepted message is lost"
    if any(g.told == ACCEPTED | TOLD_SKIP for g in ghosts):
        ran = DONE | TOLD_FAILURE | TOLD_REVOKED | TOLD_REPLACED
        if not any(ghost.told & ran for ghost in ghosts):
            return "!a call was skipped in favour of none"
    replaced = ghosts[FIRST].told in (TOLD_REPLACED, ACCEPTED | TOLD_REPLACED)
    if replaced and not ghosts[SECOND].told & ACCEPTED:
        return "!a call was replaced by one that was never sent"
    if lock and lock.kind == CLAIM:
        record = state.store.records[lock.mid]
        if record and record.state == COMPLETED:
            return "!a claim is left behind for a message that is finished"
    return ""
