"""The worker's side: which step a delivery takes next, by where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.arrivals import Arrivals
from tests.model.ends import Ends
from tests.model.runs import Runs
from tests.model.state import (
    ABANDONED,
    ASKED,
    BODY,
    COPIED,
    DEAD_CHILD,
    EARLY_DONE,
    EARLY_FAILURE,
    EARLY_REVOKED,
    ENDED,
    FORGET,
    GIVE_UP,
    GIVEN_UP,
    GOT,
    LATE,
    PUT_OFF,
    PUT_OFF_BLIND,
    READY,
    RETRIED,
    REVOKED,
    RUNNING,
    SKIP,
    SKIPPED,
    STORED,
    TO_ACK,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.model.moves import At, Step
    from tests.model.rules import Setup
    from tests.model.scripts import Scripts


class Deliveries:
    """Every step that a delivery can take of its own accord."""

    def __init__(self, setup: Setup, scripts: Scripts) -> None:
        arrivals, ends = Arrivals(setup, scripts), Ends(setup, scripts)
        self._runs = runs = Runs(setup, scripts)
        self._by_pc: dict[int, Callable[[At], Iterator[Step]]] = {
            GOT: arrivals.received,
            PUT_OFF: arrivals.publish_copy,
            PUT_OFF_BLIND: arrivals.publish_copy,
            COPIED: arrivals.raise_generation,
            REVOKED: arrivals.drop,
            READY: runs.begin,
            BODY: runs.end,
            ENDED: runs.outcome,
            SKIP: runs.outcome,
            GIVE_UP: runs.outcome,
            ASKED: runs.publish_retry,
            STORED: runs.finish,
            RETRIED: runs.finish,
            SKIPPED: runs.finish,
            GIVEN_UP: runs.finish,
            LATE: runs.finish,
            EARLY_DONE: runs.tell_late,
            EARLY_FAILURE: runs.tell_late,
            EARLY_REVOKED: runs.tell_late,
            TO_ACK: ends.ack,
            FORGET: ends.forget,
            DEAD_CHILD: ends.abandon,
            ABANDONED: ends.requeue,
        }

    def steps(self, at: At) -> Iterator[Step]:
        """The next steps of one delivery."""
        yield from self._by_pc[at.delivery.pc](at)
        if at.delivery.pc in RUNNING and not at.delivery.orphan:
            yield from self._runs.renew(at)
