"""
The protocol under Hypothesis: real scripts, a real Redis, any order of events.

`world.py` plays the broker and the workers and asserts as it goes; the invariants here
look at Redis after every step.
"""

import os
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.store.rig import Rig, call
from tests.store.world import KEYS, World

MANY = settings(
    max_examples=200,
    stateful_step_count=80,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    report_multiple_bugs=False,
    # Shrinking takes up to five minutes: where somebody will read it, not in CI.
    phases=[Phase.generate] if os.environ.get("CI") == "true" else list(Phase),
    suppress_health_check=list(HealthCheck),
)
ENOUGH = 3
MOST_ROUNDS = 30
PICK = st.integers(0, 7)
KEY = st.sampled_from([KEYS[0], KEYS[0], KEYS[0], KEYS[1]])
OFTEN = st.sampled_from([False, False, True])
HOW_PUBLISHED = st.sampled_from(["sent", "sent", "sent", "refused by the broker", "died"])
VICTIM = st.sampled_from(["child", "child", "worker"])
HOW_ENDED = st.sampled_from(["returned", "retry", "retry", "time limit"])


class Protocol(RuleBasedStateMachine):
    """Two workers, two keys, any number of messages."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.world = World(rig)

    @precondition(lambda self: self.world.open < ENOUGH)
    @rule(key=KEY, how=HOW_PUBLISHED, twice=OFTEN)
    def publish(self, key: str, how: str, twice: bool) -> None:
        """G1: granted exactly if nobody holds the key."""
        self.world.publish(key, how, twice=twice)

    @precondition(lambda self: self.world.refused)
    @rule(pick=PICK, twice=OFTEN)
    def unclaim(self, pick: int, twice: bool) -> None:
        """The broker took its time to refuse; the claim may have passed to others."""
        refused = self.world.refused
        self.world.unclaim(refused[pick % len(refused)], twice=twice)

    @precondition(lambda self: self.world.open < ENOUGH)
    @rule(key=KEY)
    def send_unclaimed(self, key: str) -> None:
        """Canvas members and `send_task` by name come without a claim."""
        self.world.send_unclaimed(key)

    @precondition(lambda self: self.world.queue)
    @rule(pick=PICK, worker=st.integers(0, 1), twice=OFTEN)
    def deliver(self, pick: int, worker: int, twice: bool) -> None:
        """In any order: countdowns, priorities and restores know none."""
        queue = self.world.queue
        self.world.deliver(queue[pick % len(queue)], worker, twice=twice)

    @precondition(lambda self: self.world.redeliverable)
    @rule(pick=PICK)
    def redeliver(self, pick: int) -> None:
        """A visibility timeout, or a connection that blinked (FACTS, Redelivery)."""
        entries = self.world.redeliverable
        self.world.redeliver(entries[pick % len(entries)])

    @precondition(lambda self: len(self.world.queue) > ENOUGH)
    @rule(pick=PICK, twice=OFTEN)
    def drop(self, pick: int, twice: bool) -> None:
        """Revoked or expired; only from a long queue, or little else would be seen."""
        queue = self.world.queue
        self.world.drop(queue[pick % len(queue)], twice=twice)

    @precondition(lambda self: self.world.bodies(stalled=False))
    @rule(pick=PICK, how=HOW_ENDED)
    def end(self, pick: int, how: str) -> None:
        """A run that kept its lease comes to its end."""
        running = self.world.bodies(stalled=False)
        self.world.end(running[pick % len(running)], how)

    @precondition(lambda self: self.world.bodies(stalled=True))
    @rule(pick=PICK, how=HOW_ENDED)
    def end_late(self, pick: int, how: str) -> None:
        """A run that lost its lease comes to its end without having asked."""
        stalled = self.world.bodies(stalled=True)
        self.world.end(stalled[pick % len(stalled)], how)

    @precondition(lambda self: any(each.steps for each in self.world.deliveries))
    @rule(pick=PICK, twice=OFTEN, fails=OFTEN)
    def go_on(self, pick: int, twice: bool, fails: bool) -> None:
        """The next store call or broker call of a delivery; crashes come in between."""
        busy = [each for each in self.world.deliveries if each.steps]
        self.world.go_on(busy[pick % len(busy)], twice=twice, fails=fails)

    @precondition(lambda self: self.world.deliveries)
    @rule(pick=PICK, victim=VICTIM)
    def kill(self, pick: int, victim: str) -> None:
        """Out of memory, in mid-run or in any step; a worker's leases stay until they end."""
        delivery = self.world.deliveries[pick % len(self.world.deliveries)]
        if victim == "child":
            self.world.kill_child(delivery)
        else:
            self.world.kill_worker(delivery.worker)

    @precondition(lambda self: any(map(self.world.may_expire, KEYS)))
    @rule(key=KEY)
    def expire(self, key: str) -> None:
        """A dead worker's lease, a ghost's claim, or the lease of a run that stalls."""
        if self.world.may_expire(key):
            self.world.expire(key)

    @precondition(lambda self: self.world.bodies(stalled=False))
    @rule(pick=PICK)
    def stall(self, pick: int) -> None:
        """A run is stopped for longer than its lease."""
        running = self.world.bodies(stalled=False)
        self.world.expire(running[pick % len(running)].message.key)

    @precondition(lambda self: self.world.bodies(stalled=False))
    @rule(pick=PICK, twice=OFTEN)
    def renew(self, pick: int, twice: bool) -> None:
        """The renewal thread's tick."""
        running = self.world.bodies(stalled=False)
        self.world.renew(running[pick % len(running)], twice=twice)

    @precondition(lambda self: self.world.bodies(stalled=True))
    @rule(pick=PICK, twice=OFTEN)
    def come_back(self, pick: int, twice: bool) -> None:
        """A stalled run asks, and goes on exactly if nobody ran and nothing settled it."""
        stalled = self.world.bodies(stalled=True)
        self.world.renew(stalled[pick % len(stalled)], twice=twice)

    @invariant()
    def every_key_is_held_by_whom_it_must_be(self) -> None:
        """G2, G6: nobody's end frees or takes another's hold."""
        for key, hold in self.world.holds.items():
            record = str(self.world.rig.raw.get(_lock(self.world.rig, key)) or "")
            words = record.split(" ")
            assert words[: len(hold or ())] == list(hold or ()), f"{key}: {record}, not {hold}"
            assert bool(record) == bool(hold), f"{key}: {record}, not {hold}"
            if hold:
                listed = self.world.rig.listed(call("-", key=key))
                name = key if hold[0] == "claim" else f"{key} lease"
                assert name in listed, f"{hold} is not listed"

    @invariant()
    def no_claim_of_a_settled_message_stands(self) -> None:
        """Nobody would free it: the key would be blocked for the whole of unique_for."""
        for hold in self.world.holds.values():
            assert not (hold and hold[0] == "claim" and self.world.sent[hold[1]].completed)

    @invariant()
    def starts_are_counted(self) -> None:
        """G7: exactly the bodies of each message."""
        sent_so_far = list(self.world.sent.values())
        records = self.world.rig.records([sent.message for sent in sent_so_far])
        for sent, record in zip(sent_so_far, records, strict=True):
            if sent.bodies and not sent.completed:
                assert record.split(" ")[:2] == ["open", str(sent.bodies)]
            assert record.startswith("done") == sent.completed

    @invariant()
    def only_counters_stay_for_ever(self) -> None:
        """DESIGN 7."""
        assert all(key.endswith(":fence") for key in self.world.rig.without_ttl())

    def teardown(self) -> None:
        """Let everything come to its end: no accepted message may be lost (G3)."""
        rounds = 0
        while self.world.deliveries or self.world.queue:
            rounds += 1
            assert rounds < MOST_ROUNDS, f"copies do not come to an end: {self.world.queue}"
            self._drain()
        assert self.world.open == 0, "an accepted message was lost"
        assert all(each.body is False for each in self.world.deliveries)

    def _drain(self) -> None:
        for delivery in list(self.world.deliveries):
            if delivery.body and not delivery.dying:
                self.world.end(delivery, "returned")
            while delivery in self.world.deliveries:
                self.world.go_on(delivery)
        for key in KEYS:
            if self.world.may_expire(key):
                self.world.expire(key)
        for entry in self.world.queue:
            while entry.queued:
                self.world.deliver(entry, 0, twice=False)


def _lock(rig: Rig, key: str) -> str:
    return rig.lease_name(call("-", key=key))


@pytest.mark.timeout(600)  # a failure may be shrunk
def test_no_order_of_events_breaks_the_protocol(rig: Rig) -> None:
    """Section 6 of DESIGN was searched as a model; this is the same for the scripts."""
    machine = cast("type[Protocol]", lambda: Protocol(rig))  # called, never looked into
    run_state_machine_as_test(machine, settings=MANY)
