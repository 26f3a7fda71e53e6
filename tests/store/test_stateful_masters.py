"""
Independent masters under Hypothesis: real servers of which a minority misbehaves.

Nobody may notice that: a store over three, or five, masters answers as a store in memory
that is asked the same. The minority is cut off, hung, emptied or restarted at any time,
and brought back; it is always the same one, so that the others know everything. A second
machine lets another master be away at each step; then a store may be more careful than it
needs to be, but what the first page of the README promises must hold.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from onceguard.store.contract import Answer, Held, Message, Renewed, Started
from onceguard.store.memory import forget
from onceguard.store.opening import open_store
from tests.harness.masters import Masters
from tests.store.rig import PREFIX, Rig, call
from tests.store.test_stateful import MANY
from tests.store.voting import App, open_app

if TYPE_CHECKING:
    from collections.abc import Iterator

FEW_STEPS = settings(MANY, stateful_step_count=40)
TIMEOUT = 2.0
MAX_DELIVERIES = 3
KEYS = ("task(1)", "task(2)")
KEY = st.sampled_from(KEYS)
MESSAGES = 3
PICK = st.integers(0, MESSAGES - 1)
NONCE = st.sampled_from(["n1", "n2"])


def message(key: str, pick: int, *, own_lease: bool = False) -> Message:
    """One of a few calls for each key."""
    number = KEYS.index(key) * MESSAGES + pick
    return call(f"m{number}", key=key, own_lease=own_lease)


def whose(held: Held | None) -> str:
    """A holder without what two stores can't agree on: instants and tokens."""
    if held is None:
        return "nobody"
    holder = held.holder
    return f"{holder.state} {holder.message_id} {holder.nonce} {holder.attempt}"


def told(started: Started) -> tuple[str, str, int, int]:
    """An answer to a start, likewise."""
    held = whose(started.held)
    return started.answer.value, held, started.generation, started.starts


@dataclass
class Both:
    """Masters, and a store in memory that is asked the same."""

    masters: Masters
    app: App
    reference: Rig
    seen: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def reset(self) -> None:
        """Forget all messages and misdeeds."""
        for server in self.masters.servers:
            server.resume()
            if not server.alive:
                server.start()
        self.masters.flush()
        self.app.reach()
        for voter in self.app.rig.store._server._voters:  # type: ignore[attr-defined]
            voter._rests_until = 0.0
        forget("masters")
        self.seen.clear()

    @property
    def both(self) -> tuple[Rig, Rig]:
        """The masters' store, and the one in memory."""
        return self.app.rig, self.reference


class OneMinority(RuleBasedStateMachine):
    """The same minority misbehaves in every way; all answers are right."""

    def __init__(self, both: Both) -> None:
        super().__init__()
        both.reset()
        self.both = both
        self.rigs = both.both
        self.tokens = dict.fromkeys(KEYS, 0)
        self.bad = list(range((len(both.masters.servers) - 1) // 2))

    # What happens to the minority

    @rule(pick=PICK)
    def cut(self, pick: int) -> None:
        """A master is out of reach."""
        self.both.app.lines[self.bad[pick % len(self.bad)]].cut()

    @rule(pick=PICK)
    def hang(self, pick: int) -> None:
        """A master hangs, with what it has received in its buffers."""
        server = self.both.masters.servers[self.bad[pick % len(self.bad)]]
        if server.alive:
            server.pause()

    @rule(pick=PICK)
    def forget_all(self, pick: int) -> None:
        """A master forgets its data and scripts."""
        server = self.both.masters.servers[self.bad[pick % len(self.bad)]]
        if server.answers:
            server.flush()
            server.ask("SCRIPT", "FLUSH")

    @rule(pick=PICK)
    def die(self, pick: int) -> None:
        """A master is killed."""
        self.both.masters.kill(self.bad[pick % len(self.bad)])

    @rule()
    def come_back(self) -> None:
        """All are well again, and heard."""
        for number in self.bad:
            server = self.both.masters.servers[number]
            server.resume()
            if not server.alive:
                server.start()
        self.both.app.reach()
        for voter in self.both.app.rig.store._server._voters:  # type: ignore[attr-defined]
            voter._rests_until = 0.0

    # What is asked

    @rule(key=KEY, pick=PICK)
    def claim(self, key: str, pick: int) -> None:
        """G1."""
        mine, reference = (whose(rig.claim(message(key, pick))) for rig in self.rigs)
        assert mine == reference

    @rule(key=KEY, pick=PICK)
    def unclaim(self, key: str, pick: int) -> None:
        """A publish that failed."""
        for rig in self.rigs:
            rig.store.unclaim(message(key, pick))

    @rule(key=KEY, pick=PICK, nonce=NONCE)
    def start(self, key: str, pick: int, nonce: str) -> None:
        """G2, G4, G7, G9."""
        answers = [
            rig.start(message(key, pick), nonce, max_deliveries=MAX_DELIVERIES)
            for rig in self.rigs
        ]
        mine, reference = answers
        assert told(mine) == told(reference)
        if mine.answer is Answer.ACQUIRED:
            assert mine.held is not None
            assert reference.held is not None
            where = message(key, pick).message_id, nonce
            records = mine.held.holder.record(), reference.held.holder.record()
            known = self.both.seen.setdefault(where, records)
            if known[0] != records[0] or self.tokens[key] == 0:
                assert mine.held.holder.fencing_token > self.tokens[key]
            self.tokens[key] = max(self.tokens[key], mine.held.holder.fencing_token)
            self.both.seen[where] = records

    @rule(key=KEY, pick=PICK, nonce=NONCE, knowing=st.booleans())
    def renew(self, key: str, pick: int, nonce: str, knowing: bool) -> None:
        """G6: nothing is lost that the reference has."""
        seen = self.both.seen.get((message(key, pick).message_id, nonce), ("", ""))
        answers = [
            rig.renew(message(key, pick), nonce, record if knowing else "")[0]
            for rig, record in zip(self.rigs, seen, strict=True)
        ]
        assert answers[0] is answers[1]

    @rule(key=KEY, pick=PICK, nonce=NONCE)
    def finish(self, key: str, pick: int, nonce: str) -> None:
        """Whose lease it is, and what is remembered."""
        answers = [rig.finish(message(key, pick), nonce) for rig in self.rigs]
        assert answers[0] == answers[1]

    @rule(key=KEY, pick=PICK, nonce=NONCE)
    def abandon(self, key: str, pick: int, nonce: str) -> None:
        """A dead process's lease becomes its message's claim."""
        answers = [rig.abandon(message(key, pick), nonce) for rig in self.rigs]
        assert answers[0] == answers[1]

    @rule(key=KEY, pick=PICK, nonce=NONCE)
    def shorten(self, key: str, pick: int, nonce: str) -> None:
        """A hard time limit; the lease is long all the same, for time stands still here."""
        answers = [rig.shorten(message(key, pick), nonce, lease_ttl=600.0) for rig in self.rigs]
        assert answers[0] == answers[1]

    @rule(key=KEY, pick=PICK, generation=st.integers(1, 4))
    def put_off(self, key: str, pick: int, generation: int) -> None:
        """Rule 1."""
        answers = [rig.put_off(message(key, pick), generation) for rig in self.rigs]
        assert answers[0] == answers[1]

    @rule(key=KEY, pick=PICK)
    def drop(self, key: str, pick: int) -> None:
        """Revoked or expired."""
        answers = [rig.drop(message(key, pick)) for rig in self.rigs]
        assert answers[0] == answers[1]

    @rule(key=KEY)
    def expire(self, key: str) -> None:
        """End a hold by itself, on all that are there."""
        name = self.rigs[0].lease_name(message(key, 0))
        for server in self.both.masters.servers:
            if not server.alive:
                continue
            hung = not server.answers
            server.resume()
            with server.client() as client:
                client.delete(name)
            if hung:
                server.pause()
        self.rigs[1].raw.delete(name)

    @invariant()
    def the_holder_is_known(self) -> None:
        """G10: to anyone who asks."""
        for key in KEYS:
            mine, reference = (whose(rig.store.holder(message(key, 0))) for rig in self.rigs)
            assert mine == reference

    def teardown(self) -> None:
        """Whatever was done to masters, only counters stay for ever."""
        self.come_back()
        for server in self.both.masters.servers:
            with server.client() as client:
                kept = [str(name) for name in client.scan_iter() if client.pttl(name) == -1]
            assert all(name.endswith("}:fence") for name in kept)


class AnotherMinorityEachTime(RuleBasedStateMachine):
    """No master hears of everything: what was promised is kept, if with more care."""

    def __init__(self, both: Both) -> None:
        super().__init__()
        both.reset()
        self.both = both
        self.rig = both.app.rig
        self.claims: dict[str, str] = {}
        self.leases: dict[str, tuple[str, str, str]] = {}
        self.completed: set[str] = set()
        self.starts: dict[str, int] = {}
        self.generations: dict[str, int] = {}
        self.tokens = dict.fromkeys(KEYS, 0)
        self.ends = 0

    def fresh(self, nonce: str) -> str:
        """A delivery that has ended does not ask again."""
        return f"{nonce}.{self.ends}"

    @rule(away=st.lists(st.integers(0, 4), max_size=2, unique=True))
    def reach(self, away: list[int]) -> None:
        """Another minority is out of reach, or none."""
        count = len(self.both.masters.servers)
        gone = {number % count for number in away[: (count - 1) // 2]}
        self.both.app.reach(*set(range(count)) - gone)

    @rule(key=KEY, pick=PICK)
    def claim(self, key: str, pick: int) -> None:
        """G1: nobody is granted what another has."""
        mid = message(key, pick).message_id
        if self.rig.claim(message(key, pick)) is None:
            assert self.claims.setdefault(key, mid) == mid
            assert key not in self.leases

    @rule(key=KEY)
    def unclaim(self, key: str) -> None:
        """Its publish failed."""
        mid = self.claims.pop(key, "")
        if mid:
            self.rig.store.unclaim(call(mid, key=key))

    @rule(key=KEY, pick=PICK, nonce=NONCE)
    def start(self, key: str, pick: int, nonce: str) -> None:
        """G2, G4, G7, G9."""
        mine = message(key, pick)
        mid, nonce = mine.message_id, self.fresh(nonce)
        started = self.rig.start(mine, nonce, max_deliveries=MAX_DELIVERIES)
        assert started.generation >= self.generations.get(mid, 0)
        assert started.starts >= self.starts.get(mid, 0)
        if started.answer is Answer.ACQUIRED:
            assert mid not in self.completed, "a finished message runs again"
            assert started.held is not None
            record = started.held.holder.record()
            lease = self.leases.get(key)
            if lease == (mid, nonce, record):
                return
            assert lease is None, f"{mid} runs beside {lease}"
            assert started.held.holder.fencing_token > self.tokens[key]
            self.tokens[key] = started.held.holder.fencing_token
            self.leases[key] = (mid, nonce, record)
            self.starts[mid] = self.starts.get(mid, 0) + 1
            self.claims.pop(key, None)  # a claim never refuses a start

    @precondition(lambda self: self.leases)
    @rule(knowing=st.booleans())
    def renew(self, knowing: bool) -> None:
        """G6: nobody's end took it, and nobody else has it."""
        for key, (mid, nonce, record) in self.leases.items():
            answer, _ = self.rig.renew(call(mid, key=key), nonce, record if knowing else "")
            fine = {Renewed.RENEWED, Renewed.RETAKEN}
            assert answer in (fine if knowing else {*fine, Renewed.ABSENT}), mid

    @precondition(lambda self: self.leases)
    @rule(key=KEY)
    def finish(self, key: str) -> None:
        """The run comes to its end."""
        if key in self.leases:
            mid, nonce, _ = self.leases.pop(key)
            assert self.rig.finish(call(mid, key=key), nonce)
            self.completed.add(mid)
            self.ends += 1

    @precondition(lambda self: self.leases)
    @rule(key=KEY)
    def abandon(self, key: str) -> None:
        """Its process dies; the message keeps the key if nobody else claims it."""
        if key in self.leases:
            mid, nonce, _ = self.leases.pop(key)
            assert self.rig.abandon(call(mid, key=key), nonce)
            self.claims[key] = mid
            self.ends += 1

    @rule(key=KEY, pick=PICK, nonce=NONCE)
    def end_in_vain(self, key: str, pick: int, nonce: str) -> None:
        """G6: the end of a delivery that has no lease leaves everyone's alone."""
        mid, nonce = message(key, pick).message_id, self.fresh(nonce)
        if self.leases.get(key, ("", ""))[:2] != (mid, nonce):
            assert not self.rig.abandon(message(key, pick), nonce)

    @rule(key=KEY, pick=PICK, generation=st.integers(1, 4))
    def put_off(self, key: str, pick: int, generation: int) -> None:
        """Rule 1: a generation never goes back."""
        mid = message(key, pick).message_id
        least = max(generation, self.generations.get(mid, 0))
        answer = self.rig.put_off(message(key, pick), generation)
        assert answer >= least
        self.generations[mid] = answer

    @rule(key=KEY, pick=PICK)
    def drop(self, key: str, pick: int) -> None:
        """Revoked before its start; only what does not run is."""
        mid = message(key, pick).message_id
        if self.leases.get(key, ("",))[0] != mid:
            self.rig.drop(message(key, pick))
            self.completed.add(mid)
            if self.claims.get(key) == mid:
                del self.claims[key]

    def teardown(self) -> None:
        """With all masters there, who has a key is known."""
        self.both.app.reach()
        for key in KEYS:
            held = self.rig.store.holder(message(key, 0))
            if key in self.leases:
                assert held is not None
                assert held.holder.record() == self.leases[key][2]


@pytest.fixture(scope="module", params=[3, 5], ids=["three masters", "five masters"])
def both(request: pytest.FixtureRequest, redis_binary: str) -> Iterator[Both]:
    """Some masters and a store in memory."""
    assert redis_binary
    with ExitStack() as closing:
        masters = Masters(request.param)
        closing.callback(masters.close)
        app = open_app(masters.start(), socket_timeout=TIMEOUT)
        closing.callback(app.close)
        memory = open_store("memory://masters", prefix=PREFIX, socket_timeout=1.0)
        raw = memory._server._client  # type: ignore[attr-defined]
        yield Both(masters, app, Rig(memory, raw))


@pytest.mark.timeout(600)  # a failure may be shrunk
def test_a_minority_goes_unnoticed_whatever_it_does(both: Both) -> None:
    """Among everything else that is asked. Hangs take their time, so these rounds are few."""
    machine = cast("type[OneMinority]", lambda: OneMinority(both))
    run_state_machine_as_test(machine, settings=settings(FEW_STEPS, max_examples=6))


@pytest.mark.timeout(600)
def test_promises_are_kept_though_no_master_hears_of_everything(both: Both) -> None:
    """Minorities follow one another in any order, and nothing waits for them."""
    machine = cast("type[AnotherMinorityEachTime]", lambda: AnotherMinorityEachTime(both))
    run_state_machine_as_test(machine, settings=settings(FEW_STEPS, max_examples=60))
