"""
The protocol of DESIGN section 6 as a machine that takes every step it can.

Two equal calls of one task (the first may ask for one retry) are published, run by
workers, and disturbed by an environment: redelivery at any time, on Redis with the
delivery tag that both deliveries share; deaths of publishers, pool processes and
workers before and after every step; replies that are lost; holders that stall past
their lease and go on later; a store that is down or loses everything.

What is abstracted, and why it is safe to: one key (keys never touch each other); no
clock (a lease of a dead holder may end at any time, one of a live holder by a fault);
no countdowns (a message arrives at any time, or late); every delivery has a process
pair of its own (a worker with two of them dies as two deaths).

The parts: state (what is remembered), scripts (the store's Lua), publishers and
deliveries (the processes), environment (the world), invariants (what must hold),
search (visits everything), rules (switches for mutations, and bounds).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.deliveries import Deliveries
from tests.model.environment import Environment
from tests.model.moves import At, Step
from tests.model.publishers import Publishers
from tests.model.scripts import Scripts
from tests.model.state import FINISHED, IDLE, MESSAGES, Ghost, State, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.rules import Setup


class Protocol:
    """All steps from any state, under one setup."""

    def __init__(self, setup: Setup) -> None:
        self.bounds = setup.bounds
        scripts = Scripts(setup.rules, setup.bounds.scope, setup.bounds.max_deliveries)
        self._publishers = Publishers(setup, scripts)
        self._deliveries = Deliveries(setup, scripts)
        self._environment = Environment(setup)

    def initial(self) -> State:
        """Nothing is published, the store is empty."""
        none = (None,) * len(MESSAGES)
        store = Store(None, none, none, past=0, lapsed=False, counter=0)
        ghosts = (Ghost(),) * len(MESSAGES)
        publishers = (IDLE, IDLE if self.bounds.calls == 2 else FINISHED)
        start = State(store, (), publishers, ghosts, 0, exposed=False, wiped=False)
        return start._replace(faults=self.bounds.faults)

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that can happen next."""
        yield from self._publishers.steps(state)
        for index, entry in enumerate(state.entries):
            for position, delivery in enumerate(entry.deliveries):
                at = At(state, index, position, entry, delivery)
                yield from self._deliveries.steps(at)
                yield from self._environment.deaths(at)
        yield from self._environment.steps(state)
