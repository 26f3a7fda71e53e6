"""
The protocol with beats in it, under Hypothesis: as `test_stateful.py`, with ticks.

Claimed by `beats.py` as it goes: no slot is sent twice, no tick supersedes what it must not,
and each is told what the table says for what it finds.
"""

from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from onceguard.rules.choices import OverlapPolicy
from tests.store.beats import Beats
from tests.store.rig import Rig, call
from tests.store.test_stateful import ENOUGH, HOW_PUBLISHED, KEY, MANY, OFTEN, PICK, Protocol

POLICY = st.sampled_from(
    [policy for policy in OverlapPolicy if policy is not OverlapPolicy.ALLOW_ALL]
)


class ProtocolWithBeats(Protocol):
    """Two workers, two keys, an entry for each, any number of beats."""

    world: Beats

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self.world = Beats(rig)

    @precondition(lambda self: self.world.open < 2 * ENOUGH)
    @rule(key=KEY, policy=POLICY, how=HOW_PUBLISHED, older=OFTEN, twice=OFTEN)
    def fire(self, key: str, policy: OverlapPolicy, how: str, older: bool, twice: bool) -> None:
        """G8: whichever beat asks, and however often."""
        self.world.fire(key, policy, how, older=older, twice=twice)

    @precondition(lambda self: any(each.steps for each in self.world.firings))
    @rule(pick=PICK, twice=OFTEN)
    def step(self, pick: int, twice: bool) -> None:
        """A beat goes on; workers may have been faster than it."""
        busy = [each for each in self.world.firings if each.steps]
        self.world.step(busy[pick % len(busy)], twice=twice)

    @precondition(lambda self: self.world.firings)
    @rule(pick=PICK)
    def kill_beat(self, pick: int) -> None:
        """Between any two of its steps."""
        self.world.kill_beat(self.world.firings[pick % len(self.world.firings)])

    @precondition(lambda self: any(self.world.waiting.values()))
    @rule(key=KEY)
    def end_the_wait(self, key: str) -> None:
        """A waiting tick's claim comes to its end."""
        if self.world.waiting[key]:
            self.world.end_the_wait(key)

    @invariant()
    def the_place_beside_each_key_is_whose_it_must_be(self) -> None:
        """G6, for the claims of waiting ticks."""
        for key, hold in self.world.waiting.items():
            message = call("-", key=key)
            record = str(
                self.world.rig.raw.get(self.world.rig.names(message).next(message)) or ""
            )
            assert tuple(record.split(" ")[:2]) == (hold or ("",)), (
                f"{key}: {record}, not {hold}"
            )
            assert not (hold and self.world.sent[hold[1]].completed)

    def teardown(self) -> None:
        """All beats die, and every message that was accepted must come to its end."""
        self.world.firings.clear()
        super().teardown()


@pytest.mark.timeout(600)  # a failure may be shrunk
def test_no_order_of_events_breaks_the_protocol_with_beats(rig: Rig) -> None:
    """Ticks, sends, starts, ends and deaths in any order, against the real scripts."""
    machine = cast("type[ProtocolWithBeats]", lambda: ProtocolWithBeats(rig))
    run_state_machine_as_test(machine, settings=MANY)
