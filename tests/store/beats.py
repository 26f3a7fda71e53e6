"""Beats in the world of `world.py`: ticks of one entry for each key, and what they send."""

from dataclasses import dataclass, field, replace

from onceguard.rules.choices import OverlapPolicy
from onceguard.rules.overlap import Action, Predecessor, decide
from onceguard.store.tick_contract import Tick, Ticked, Verdict
from tests.store.mail import Hold, Sent, ask_once_or_twice
from tests.store.rig import Rig, call
from tests.store.ticking import BASE, ENTRY, OTHER, at, mine, sent, tick
from tests.store.world import KEYS, World

ENTRIES = dict(zip(KEYS, (ENTRY, OTHER), strict=True))
STEPS = {"sent": ["publish", "sent"], "refused by the broker": ["unsend"], "died": []}


@dataclass(eq=False)
class Firing:
    """A tick that some beat was told to send, and what it has still to do."""

    tick: Tick
    answer: Ticked
    sent: Sent
    slot: int
    before: int
    steps: list[str] = field(default_factory=list)

    @property
    def claim(self) -> Hold:
        """The hold that its message has until it starts."""
        return ("claim", self.tick.message.message_id)


class Beats(World):
    """Any number of beats, each between any two of its steps."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self.firings: list[Firing] = []
        self.slot = dict.fromkeys(KEYS, 0)
        self.tried = dict.fromkeys(KEYS, 0)
        self.published: set[tuple[str, int]] = set()

    def fire(
        self, key: str, policy: OverlapPolicy, how: str, *, older: bool, twice: bool
    ) -> None:
        """Let a beat ask for the next firing, or for one that may have been claimed."""
        self.tried[key] += not older
        slot = max(1, self.tried[key])
        self._number += 1
        due = tick(
            self._number, policy=policy, key=key, entry=ENTRIES[key], slot=at(BASE + slot)
        )
        answer = self.rig.store.tick(due)
        if twice:
            again = self.rig.store.tick(due)
            assert again.verdict is answer.verdict
            assert again == answer or again.verdict is Verdict.TAKEN
        if slot <= self.slot[key]:
            assert answer.verdict is Verdict.TAKEN, f"{answer}: slot {slot} goes twice"
            return
        action, replaced = self._expected(key, policy)
        assert answer.verdict.value == action.value, f"{answer}, not {action}"
        before, self.slot[key] = self.slot[key], slot
        if answer.verdict.sends:
            assert answer.superseded == self._superseded(key, action, replaced)
            message = replace(due.message, waits=answer.waits)
            firing = Firing(due, answer, Sent(message), slot, before, list(STEPS[how]))
            self.sent[message.message_id] = firing.sent
            self.firings.append(firing)
            if replaced is None:
                self._places(firing)[key] = firing.claim

    def _expected(self, key: str, policy: OverlapPolicy) -> tuple[Action, Hold | None]:
        """What a tick is told, and the claim in whose place its own will stand."""
        lock, waiting = self.holds[key], self.waiting[key]
        runs = lock is not None and lock[0] == "lease"
        if runs:
            found = Predecessor.RUNNING_AND_BUFFERED if waiting else Predecessor.RUNNING
        else:
            found = Predecessor.QUEUED if lock or waiting else Predecessor.NONE
        action = decide(policy, found)
        if action not in {Action.REPLACE, Action.CANCEL}:
            return action, None
        replaced = waiting if runs or not lock else lock
        if replaced is not None and not replaced[1].startswith(mine(ENTRIES[key])):
            return Action.DROP if runs else Action.SKIP, None
        return action, replaced

    def _superseded(self, key: str, action: Action, replaced: Hold | None) -> tuple[str, ...]:
        running = [self.holds[key]] if action is Action.CANCEL else []
        return tuple(hold[1] for hold in (*running, replaced) if hold is not None)

    def _places(self, firing: Firing) -> dict[str, Hold | None]:
        return self.waiting if firing.answer.waits else self.holds

    def step(self, firing: Firing, *, twice: bool) -> None:
        """Let a beat go on with a tick."""
        step = firing.steps.pop(0)
        do = {"publish": self._publish, "sent": self._sent, "unsend": self._unsend}[step]
        ask_once_or_twice(lambda: do(firing), twice=twice and step != "publish")
        if not firing.steps:
            self.firings.remove(firing)

    def _publish(self, firing: Firing) -> None:
        tick_of = (firing.tick.message.key, firing.slot)
        assert tick_of not in self.published, f"{tick_of} is sent twice"
        self.published.add(tick_of)
        self.send(firing.sent)

    def _sent(self, firing: Firing) -> None:
        message, places = firing.sent.message, self._places(firing)
        key = message.key
        names = self.rig.names(message)
        place = names.next(message) if firing.answer.waits else names.lock(message)
        there = str(self.rig.raw.get(place) or "")
        settled = firing.sent.bodies or firing.sent.completed or firing.sent.superseded
        if there in {"", firing.answer.replaced} and not settled:
            places[key] = firing.claim
        claimed = sent(self.rig, firing.tick, firing.answer)
        assert claimed == (places[key] == firing.claim)
        for message_id in firing.answer.superseded:
            other = self.sent[message_id]
            cancels = firing.answer.verdict is Verdict.CANCEL
            if not other.completed and (cancels or not other.bodies):
                assert firing.sent.accepted
                other.superseded = True

    def _unsend(self, firing: Firing) -> None:
        key, places = firing.tick.message.key, self._places(firing)
        if places[key] == firing.claim:
            places[key] = None
        last = self.rig.store.unsend(firing.tick, firing.answer)
        if last:
            assert self.slot[key] == firing.slot
            self.slot[key] = firing.before

    def kill_beat(self, firing: Firing) -> None:
        """Let a beat die; what it claimed ends by itself."""
        self.firings.remove(firing)

    def end_the_wait(self, key: str) -> None:
        """End the claim of a waiting tick by itself: its beat died, or it was never put off."""
        message = call("-", key=key)
        assert self.rig.raw.delete(self.rig.names(message).next(message))
        self.waiting[key] = None
