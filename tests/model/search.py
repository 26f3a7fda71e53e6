"""Visit every state, breadth first: a counterexample is then a shortest one."""

from __future__ import annotations

import gc
from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

from tests.model import invariants
from tests.model.moves import OWN, Step
from tests.model.protocol import Protocol
from tests.model.state import State, canonical

if TYPE_CHECKING:
    from tests.model.rules import Setup


@dataclass
class Finding:
    """What was broken, and the shortest way there."""

    broken: str
    trace: list[str]

    def __str__(self) -> str:
        lines = "\n".join(f"  {number:2} {line}" for number, line in enumerate(self.trace, 1))
        return f"{self.broken}, after {len(self.trace)} steps:\n{lines}"


@dataclass
class Result:
    """What a search saw. `windows`: each with the shortest way into it."""

    states: int = 0
    seconds: float = 0.0
    finding: Finding | None = None
    windows: dict[str, list[str]] = field(default_factory=dict)


class Search:
    """One exhaustive search."""

    def __init__(self, setup: Setup, *, ends: bool = True) -> None:
        """
        Prepare a search.

        Args:
            setup: Rules and bounds.
            ends: Also check that from every state, without further faults and
                without a claim that ends by itself, everything can come to an end.
        """
        self._protocol = Protocol(setup)
        self._bounds = setup.bounds
        self._ends = ends
        first = canonical(self._protocol.initial())
        self._number: dict[State, int] = {first: 0}
        self._states = [first]
        self._parents = array("l", [-1])
        self._sources = array("l")
        self._targets = array("l")
        self._over: list[int] = []
        self._result = Result()

    def run(self) -> Result:
        """Visit everything, or stop at the first thing that is broken."""
        began = perf_counter()
        gc.disable()  # millions of tuples that live to the end: nothing to collect
        self._result.finding = self._visit() or (self._stuck() if self._ends else None)
        gc.enable()
        self._result.states = len(self._states)
        self._result.seconds = perf_counter() - began
        return self._result

    def _visit(self) -> Finding | None:
        here = 0
        while here < len(self._states):
            state = self._states[here]
            if invariants.over(state):
                self._over.append(here)
                if note := invariants.at_the_end(state):
                    return Finding(note[1:], self._trace(here))
            for step in self._protocol.steps(state):
                if finding := self._take(here, step):
                    return finding
            here += 1
        return None

    def _take(self, here: int, step: Step) -> Finding | None:
        state = canonical(step.state)
        if step.note.startswith("~") and step.note not in self._result.windows:
            self._result.windows[step.note] = [*self._trace(here), step.line()]
        there = self._number.get(state)
        if there is None:
            there = self._number[state] = len(self._states)
            self._states.append(state)
            self._parents.append(here)
            broken = invariants.always(state, self._bounds)
            if broken:
                step = step._replace(note=broken)
        if step.note.startswith("!"):
            return Finding(step.note[1:], [*self._trace(here), step.line()])
        if self._ends and step.kind == OWN:
            self._sources.append(here)
            self._targets.append(there)
        return None

    def _stuck(self) -> Finding | None:
        ending = self._can_end()
        for number, can in enumerate(ending):
            if not can:
                return Finding("the end can't be reached any more", self._trace(number))
        return None

    def _can_end(self) -> bytearray:
        before: list[list[int]] = [[] for _ in self._states]
        for source, target in zip(self._sources, self._targets, strict=True):
            before[target].append(source)
        ending, waiting = bytearray(len(self._states)), list(self._over)
        for number in waiting:
            ending[number] = 1
        while waiting:
            for source in before[waiting.pop()]:
                if not ending[source]:
                    ending[source] = 1
                    waiting.append(source)
        return ending

    def _trace(self, number: int) -> list[str]:
        path = []
        while number >= 0:
            path.append(number)
            number = self._parents[number]
        path.reverse()
        return [self._line(self._states[a], self._states[b]) for a, b in pairwise(path)]

    def _line(self, state: State, following: State) -> str:
        for step in self._protocol.steps(state):
            if canonical(step.state) == following:
                return step.line()
        raise AssertionError("a trace leads through states that do not follow each other")
