"""The words that options choose from."""

from __future__ import annotations

from enum import Enum


class Scope(str, Enum):
    """From when to when a key is held."""

    UNTIL_EXECUTING = "until_executing"  # publish to start
    UNTIL_EXECUTED = "until_executed"  # publish to end
    WHILE_EXECUTING = "while_executing"  # start to end
    __str__ = str.__str__


class OnConflict(str, Enum):
    """What a publish does when an equal call is queued or running."""

    RAISE = "raise"
    SKIP = "skip"
    __str__ = str.__str__


class OnRunConflict(str, Enum):
    """What a start does when another call runs."""

    SKIP = "skip"
    RESCHEDULE = "reschedule"
    __str__ = str.__str__


class OnStoreUnavailable(str, Enum):
    """What a publish or start does without the lock server."""

    FAIL = "fail"
    RUN = "run"
    __str__ = str.__str__


class OverlapPolicy(str, Enum):
    """What a tick of beat does when the one before is still queued or running."""

    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    KEEP_LATEST = "keep_latest"
    CANCEL_OTHER = "cancel_other"
    ALLOW_ALL = "allow_all"
    __str__ = str.__str__


class OnBeatStoreUnavailable(str, Enum):
    """What beat does with a tick without the lock server."""

    SEND = "send"
    SKIP = "skip"
    __str__ = str.__str__
