"""
What the model remembers: one key, its store, its broker, its processes.

Everything is a tuple of small values, so a state is its own hash key. Names that
only tell equal things apart (delivery nonces, fencing tokens, the order of broker
entries) are renumbered by `canonical`: states that differ in such names only are
one state, and the search visits them once. That is the model's symmetry reduction.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final, NamedTuple

# Messages. FIRST and SECOND are equal calls; RETRY is FIRST's retry, with the same
# task id. STRAY_RETRY is what that retry would be if its id did not follow from
# its parent's (rule 4); the protocol itself never publishes it.
FIRST, SECOND, RETRY, STRAY_RETRY = range(4)
NAMES: Final = ("first", "second", "retry", "stray retry")
MESSAGES: Final = (FIRST, SECOND, RETRY, STRAY_RETRY)
TASK_ID: Final = (0, 1, 0, 0)
PARENT: Final = (None, None, FIRST, FIRST)
CALLS: Final = (FIRST, SECOND)

# Where a broker entry is. GONE: acked, but a delivery of it is still under way.
QUEUED, UNACKED, GONE = range(3)

# Where a publisher is.
IDLE, CLAIMED, OVERRIDING, SENT_OVER, GIVING_UP, FINISHED = range(6)

# Where a delivery is, in a worker's main process or its pool process.
(
    GOT,  # received by the main process
    READY,  # start answered "acquired"
    BODY,  # the task function runs
    ENDED,  # it returned or raised
    STORED,  # its result is stored, callbacks are sent
    ASKED,  # it asked for a retry
    RETRIED,  # the retry is published
    SKIP,  # start answered "conflict", and the call is to be skipped
    SKIPPED,  # its None is stored
    GIVE_UP,  # start answered "rejected"
    GIVEN_UP,  # FAILURE is stored and told
    REVOKED,  # told as revoked or expired, before start
    PUT_OFF,  # a copy is to be published
    PUT_OFF_BLIND,  # so too, because the store did not answer
    COPIED,  # the copy is published
    TO_ACK,  # nothing left but the ack
    DEAD_CHILD,  # the pool process died, the main process has seen it
    ABANDONED,  # and has told the store
    EARLY_DONE,  # mutations only: recorded before the result is stored
    EARLY_FAILURE,
    EARLY_REVOKED,
    LATE,  # mutation only: acked before it is recorded
    FORGET,  # acked, and the record is to be forgotten
) = range(23)
RUNNING: Final = frozenset({READY, BODY, ENDED, STORED, ASKED, RETRIED})
IN_MAIN: Final = frozenset({GOT, REVOKED, DEAD_CHILD, ABANDONED, EARLY_REVOKED, FORGET})

# What became of a message, as its caller or an operator can see it.
ACCEPTED, DONE, ASKED_RETRY, TOLD_SKIP, TOLD_FAILURE, TOLD_REVOKED, TOLD_REPLACED = (
    1 << bit for bit in range(7)
)

# Faults.
REDELIVERY, DEATH, LOST_REPLY, STORE_DOWN, STALL, WIPE, REVOKE, CLAIM_END = FAULTS = range(8)

CLAIM, LEASE = range(2)
OPEN, COMPLETED, REPLACED = range(3)


class Hold(NamedTuple):
    """The lock's value: a claim (nonce and token 0) or a lease."""

    kind: int
    mid: int
    nonce: int
    token: int


class Record(NamedTuple):
    """A message's record; `nonce` is that of its last start."""

    state: int
    attempts: int
    generation: int
    nonce: int


class Store(NamedTuple):
    """The Redis keys of one task key. `lapsed`: the index lists a lease that is gone."""

    lock: Hold | None
    runs: tuple[Hold | None, ...]
    records: tuple[Record | None, ...]
    past: int
    lapsed: bool
    counter: int


class Delivery(NamedTuple):
    """One arrival of a message at a worker. `stalled`: outlived its lease."""

    pc: int
    nonce: int
    token: int = 0
    stalled: bool = False
    orphan: bool = False


class Entry(NamedTuple):
    """One entry of the broker, with the deliveries that carry its delivery tag."""

    mid: int
    generation: int
    place: int
    redelivered: bool
    deliveries: tuple[Delivery, ...]


class Ghost(NamedTuple):
    """What really happened to a message; no process can see it."""

    told: int = 0
    begun: int = 0
    ended: bool = False
    recorded: bool = False
    cut: str = ""
    stalled: bool = False


class State(NamedTuple):
    """
    Everything at one instant.

    `faults` are still to come, `exposed`: a hold ended by itself or was given up,
    `wiped`: the store lost its data.
    """

    store: Store
    entries: tuple[Entry, ...]
    publishers: tuple[int, ...]
    ghosts: tuple[Ghost, ...]
    faults: int
    exposed: bool
    wiped: bool


def live(state: State) -> list[Delivery]:
    """All deliveries that still exist, as processes."""
    return [d for entry in state.entries for d in entry.deliveries]


def canonical(state: State) -> State:
    """The representative of all states that differ only in names, or in what is over."""
    store, entries, publishers, ghosts, faults, exposed, wiped = state
    if any(record is not None and record[0] == COMPLETED for record in store.records):
        store, ghosts = _settled(store, ghosts)
    ordered, nonces = _ordered(entries, store)
    rank = _ranked(store, ordered)
    return State(
        _renamed(store, nonces, rank),
        tuple(
            Entry(e[0], e[1], e[2], e[3], tuple(_delivery(d, nonces, rank) for d in e[4]))
            if e[4]
            else e
            for e in ordered
        ),
        publishers,
        ghosts,
        faults,
        exposed and IDLE in publishers,
        wiped,
    )


def _settled(store: Store, ghosts: tuple[Ghost, ...]) -> tuple[Store, tuple[Ghost, ...]]:
    """Forget of finished messages what nothing asks for any more."""
    records, settled = list(store.records), list(ghosts)
    for mid, record in enumerate(records):
        if record is not None and record.state == COMPLETED:
            records[mid] = Record(COMPLETED, 0, min(record.generation, 1), 0)
            told, begun, ended, recorded, cut, stalled = ghosts[mid]
            if recorded:
                ended, cut = True, ""
            settled[mid] = Ghost(told, min(begun, 1), ended, recorded, cut, stalled)
    lock, runs, _, past, lapsed, counter = store
    return Store(lock, runs, tuple(records), past, lapsed, counter), tuple(settled)


def _ordered(entries: tuple[Entry, ...], store: Store) -> tuple[list[Entry], dict[int, int]]:
    """Broker entries and deliveries in an order that does not depend on names."""
    keyed = []
    for entry in entries:
        mid, generation, place, redelivered, deliveries = entry
        if deliveries:
            signed, ordered = _signed(deliveries, store, mid)
            same = Entry(mid, generation, place, redelivered, ordered)
            keyed.append(((mid, generation, place, redelivered, signed), same))
        elif place != GONE:
            keyed.append(((mid, generation, place, redelivered, ()), entry))
    if len(keyed) > 1:
        keyed.sort(key=_first)
    numbered: dict[int, int] = {}
    for _, (_, _, _, _, deliveries) in keyed:
        for d in deliveries:
            numbered[d[1]] = len(numbered) + 1
    return [entry for _, entry in keyed], numbered


_first = itemgetter(0)


def _signed(
    deliveries: tuple[Delivery, ...], store: Store, mid: int
) -> tuple[tuple[object, ...], tuple[Delivery, ...]]:
    lock, record = store.lock, store.records[mid]
    holders = [run[2] if run else 0 for run in store.runs] if any(store.runs) else []
    nonces = (lock[2] if lock else 0, record[3] if record else 0, *holders)
    signed = [
        ((pc, token, stalled, orphan, *(nonce == other for other in nonces)), d)
        for d in deliveries
        for pc, nonce, token, stalled, orphan in (d,)
    ]
    if len(signed) > 1:
        signed.sort(key=_first)
    return tuple(key for key, _ in signed), tuple(d for _, d in signed)


def _ranked(store: Store, entries: list[Entry]) -> dict[int, int]:
    """Fencing tokens by their order; none, if no delivery can compare its own."""
    tokens = {d[2] for entry in entries for d in entry[4]}
    tokens.discard(0)
    if not tokens:
        return {}
    tokens.update((store.past, store.counter))
    tokens.update(hold[3] for hold in (store.lock, *store.runs) if hold)
    tokens.discard(0)
    return {token: number for number, token in enumerate(sorted(tokens), 1)}


def _delivery(d: Delivery, nonces: dict[int, int], rank: dict[int, int]) -> Delivery:
    pc, nonce, token, stalled, orphan = d
    return Delivery(pc, nonces[nonce], rank.get(token, 0), stalled, orphan)


def _renamed(store: Store, nonces: dict[int, int], rank: dict[int, int]) -> Store:
    """The store with the nonces of the dead forgotten, the others renumbered."""
    lock, runs, records, past, lapsed, counter = store
    if lock is not None and lock[0] == LEASE:
        lock = _hold(lock, nonces, rank)
    if any(runs):
        runs = tuple(run and _hold(run, nonces, rank) for run in runs)
    renamed = tuple(
        Record(r[0], r[1], r[2], nonces.get(r[3], 0)) if r is not None and r[3] else r
        for r in records
    )
    past, counter = rank.get(past, 0), rank.get(counter, 0)
    return Store(lock, runs, renamed, past, lapsed and bool(rank), counter)


def _hold(lease: Hold, nonces: dict[int, int], rank: dict[int, int]) -> Hold:
    nonce = nonces.get(lease[2], 0)
    return Hold(LEASE, lease[1], nonce, rank.get(lease[3], 0) if nonce else 0)
