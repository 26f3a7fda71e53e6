"""Ticks of beat as the store's tests make them, with what a test does not care about."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from onceguard.rules.choices import OverlapPolicy
from onceguard.rules.messages import partition
from onceguard.rules.overlap import Predecessor, decisions
from onceguard.rules.ticks import Slot, instant_slot, interval_slot
from onceguard.store.tick_contract import Tick, Ticked, Verdict
from tests.store.rig import COMPLETED_FOR, KEY, UNIQUE_FOR, Rig, call

if TYPE_CHECKING:
    from onceguard.store.contract import Message

ENTRY = "000000000400000000000000"
"""An entry in the partition of `KEY`: its scripts are legal on a Cluster as they are."""

OTHER = "000000000b00000000000000"
ELSEWHERE = "000000000100000000000000"
BASE = time.time() // 60 * 60
CLAIM_FOR = 20.0
REMEMBER_FOR = 7200.0
SUPERSEDED_FOR = 9000.0


def mine(entry: str = ENTRY) -> str:
    """How message ids of an entry's ticks begin."""
    return f"{entry[:10]}~"


def tick(  # noqa: PLR0913 - what a tick is made of
    number: int,
    *,
    policy: OverlapPolicy | str | None = OverlapPolicy.SKIP,
    slot: Slot | None = None,
    claims_slot: bool = True,
    entry: str = ENTRY,
    key: str = KEY,
    grace: float | None = None,
    claim_for: float = CLAIM_FOR,
    remember_for: float = REMEMBER_FOR,
    own_lease: bool = False,
) -> Tick:
    """
    A tick of an entry, known by its number; equal calls make equal ticks.

    Unless a slot is given, each number has its own. Without a policy the key is not
    looked at.
    """
    return Tick(
        entry=entry,
        slot=at(BASE + number) if slot is None else slot,
        claims_slot=claims_slot,
        remember_for=remember_for,
        grace=grace,
        message=call(f"{mine(entry)}{number}", key=key, own_lease=own_lease),
        claim_for=claim_for if policy else 0.0,
        mine=mine(entry),
        actions=decisions(OverlapPolicy(policy)) if policy else (),
    )


def at(instant: float, period: float = 60.0) -> Slot:
    """The slot of a crontab at that instant."""
    return instant_slot(instant, instant + period)


def interval(seconds: float) -> Slot:
    """The slot of a plain interval."""
    return interval_slot(seconds)


def sent(rig: Rig, tick: Tick, answer: Ticked, *, unique_for: float = UNIQUE_FOR) -> bool:
    """Say that a tick's message has been sent."""
    return rig.store.sent(tick, answer, unique_for=unique_for, superseded_for=SUPERSEDED_FOR)


def tick_and_send(rig: Rig, tick: Tick) -> Ticked:
    """Claim a tick that is to be sent, and send it."""
    answer = rig.store.tick(tick)
    assert answer.verdict.sends, answer
    sent(rig, tick, answer)
    return answer


def supersede(rig: Rig, message: Message) -> None:
    """Send a tick in the place of this message, whatever became of it."""
    other = tick(99, key=message.key, policy=None)
    answer = rig.store.tick(other)
    instead = replace(answer, verdict=Verdict.CANCEL, superseded=(message.message_id,))
    sent(rig, other, instead)
    rig.store.drop(other.message, completed_for=COMPLETED_FOR)


def waits(tick: Tick) -> Message:
    """A tick's message as the worker knows it that is to wait for a run's end."""
    return replace(tick.message, waits=True)


def waiting(rig: Rig, message: Message) -> str:
    """Whose claim stands beside the key's lock: ``"claim m1"``, or nothing."""
    record = str(rig.raw.get(rig.names(message).next(message)) or "")
    return " ".join(record.split(" ")[:2])


def state_name(rig: Rig, entry: str = ENTRY) -> str:
    """The Redis key of what is remembered of an entry."""
    return rig.store._names[partition(entry)].tick(entry)


def remember(rig: Rig, *, slot: float, claimed: float, skips: int = 0) -> None:
    """Let the entry's last tick be one of another beat, at these unix seconds."""
    state = f"{round(slot * 1000)} {round(claimed * 1000)} {skips} {mine()}0"
    rig.raw.set(state_name(rig), f"{state} []", px=60_000)


def everything(rig: Rig) -> dict[str, str]:
    """All that Redis holds, without times to live; the index by its names."""
    found = {}
    for key in map(str, rig.raw.scan_iter(count=1000)):
        index = key.endswith(":index")
        found[key] = str(rig.raw.zrange(key, 0, -1) if index else rig.raw.get(key))
    return found


QUEUED, RUNS, WAITS, NEW = (f"{mine()}{number}" for number in range(1, 5))
"""Message ids of what `arrange` sends, and of the tick that comes next."""


def arrange(rig: Rig, predecessor: Predecessor) -> None:
    """Let earlier ticks of the entry be queued (1), run (2) and wait (3)."""
    if predecessor is Predecessor.QUEUED:
        tick_and_send(rig, tick(1))
    elif predecessor is not Predecessor.NONE:
        tick_and_send(rig, tick(2))
        rig.run(tick(2).message, "n2")
        if predecessor is Predecessor.RUNNING_AND_BUFFERED:
            tick_and_send(rig, tick(3, policy="buffer_one"))


def new(policy: OverlapPolicy | str) -> Tick:
    """The tick that comes next."""
    return tick(4, policy=policy)
