"""Which tick survives when the one before has not ended: one table, one function."""

from __future__ import annotations

from enum import Enum

from onceguard.rules.choices import OverlapPolicy


class Predecessor(str, Enum):
    """What a tick finds at its key, in the order in which the store's script counts."""

    NONE = "none"
    QUEUED = "queued"
    """A call that has not started: sent by an earlier tick or by anyone else."""
    RUNNING = "running"
    RUNNING_AND_BUFFERED = "running_and_buffered"
    """One runs, and an earlier tick waits for its end."""


class Action(str, Enum):
    """What becomes of the new tick, and of what it found."""

    SEND = "send"
    """Sent, and the key claimed for it."""
    SKIP = "skip"
    """Not sent: what was found survives."""
    BUFFER = "buffer"
    """Sent; waits for the end of the running call, which survives too."""
    DROP = "drop"
    """Not sent: the running call and the buffered tick survive."""
    REPLACE = "replace"
    """Sent in the place of the tick that has not started, which is superseded."""
    CANCEL = "cancel"
    """Sent; the running call is told to stop, a buffered tick is superseded."""


_TABLE: dict[OverlapPolicy, tuple[Action, Action, Action, Action]] = {
    OverlapPolicy.SKIP: (Action.SEND, Action.SKIP, Action.SKIP, Action.SKIP),
    OverlapPolicy.BUFFER_ONE: (Action.SEND, Action.SKIP, Action.BUFFER, Action.DROP),
    OverlapPolicy.KEEP_LATEST: (Action.SEND, Action.REPLACE, Action.BUFFER, Action.REPLACE),
    OverlapPolicy.CANCEL_OTHER: (Action.SEND, Action.REPLACE, Action.CANCEL, Action.CANCEL),
    OverlapPolicy.ALLOW_ALL: (Action.SEND, Action.SEND, Action.SEND, Action.SEND),
}


def decide(policy: OverlapPolicy, predecessor: Predecessor) -> Action:
    """
    Decide what a tick does.

    The store's script reads what the predecessor is and acts in the same step,
    so it is given the decisions for all four. Only a tick of the same entry is
    ever superseded by REPLACE: a call that anyone else queued survives, and the
    tick is skipped.

    Names and meaning of the policies are those of Temporal's schedules, as far
    as Celery can do them.
    """
    return decisions(policy)[list(Predecessor).index(predecessor)]


def decisions(policy: OverlapPolicy) -> tuple[Action, Action, Action, Action]:
    """Return what a tick does for each predecessor, in the order of `Predecessor`."""
    return _TABLE[policy]
