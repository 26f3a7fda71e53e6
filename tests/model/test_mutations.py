"""Every rule of DESIGN section 6 is needed: leave one out, and the search finds why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.model.protocol import Protocol
from tests.model.rules import Bounds, Rules, Setup
from tests.model.search import Search
from tests.model.state import (
    CLAIM_END,
    DEATH,
    GONE,
    LOST_REPLY,
    QUEUED,
    REDELIVERY,
    REVOKE,
    STALL,
    WIPE,
    State,
    canonical,
)

if TYPE_CHECKING:
    from tests.model.moves import Step

LOST: Final = "an accepted message is lost"
AGAIN: Final = "a finished message is started again"
FOREIGN: Final = "an end frees another's hold"
SKIPPED: Final = "a task that had begun is skipped"
LEFT: Final = "a claim is left behind for a message that is finished"
OLDER: Final = "an older fencing token takes the key back"
FINISHED: Final = "a lease is taken up again for a finished message"


@dataclass(frozen=True)
class Mutation:
    """A rule left out, the smallest world that shows it, and what then goes wrong."""

    rules: dict[str, Any]
    broken: str
    calls: int = 1
    faults: int = 1
    kinds: tuple[int, ...] = (REDELIVERY, DEATH)
    more: dict[str, Any] = field(default_factory=dict)

    def setup(self, rules: Rules) -> Setup:
        """This world, with these rules."""
        worlds = {"retries": False, **self.more}
        bounds = Bounds(
            calls=self.calls, faults=self.faults, kinds=frozenset(self.kinds), **worlds
        )
        return Setup(rules=rules, bounds=bounds)


RETRY: Final = {"retries": True}
MUTATIONS: Final = {
    "1 copies are only marked, not ordered": Mutation({"copies": "marked"}, LOST),
    "1 acked before its copy is published": Mutation({"copy_before_ack": False}, LOST, 1, 2),
    "2 a claim refuses a start": Mutation(
        {"claim_refuses": True}, "a start is refused, and nobody runs", 2, 0
    ),
    "3 a started message is skipped": Mutation({"started_waits": False}, SKIPPED, 2),
    "3 a copy is skipped": Mutation({"copy_waits": False}, SKIPPED, 2, 2, (REDELIVERY, WIPE)),
    "3 a retry is skipped": Mutation({"retry_waits": False}, SKIPPED, 2, 0, more=RETRY),
    "3 a parent is skipped for its retry": Mutation(
        {"same_task_waits": False},
        "a skip overwrites the result of its own task",
        1,
        2,
        (REDELIVERY, WIPE),
        RETRY,
    ),
    "4 a retry's id is its own": Mutation(
        {"retry_id_follows": False}, "one retry runs as two messages", more=RETRY
    ),
    "4 a retry's start leaves its parent open": Mutation(
        {"retry_start_records": False},
        "a parent is started again after its retry began",
        more=RETRY,
    ),
    "4 the end of a run that retried leaves it open": Mutation(
        {"retry_end_records": False}, AGAIN, more=RETRY
    ),
    "4 that end leaves the key free": Mutation(
        {"retry_claims": False},
        "two equal calls are queued",
        2,
        0,
        more={"retries": True, "guarded": (True, True)},
    ),
    "5 a holder that lost its lease records nothing": Mutation(
        {"loser_records": False}, AGAIN, 1, 2, (REDELIVERY, STALL)
    ),
    "6 taken up again whoever ran the message": Mutation(
        {"take_up_checks_message": False}, FINISHED, kinds=(LOST_REPLY,)
    ),
    "6 so too, under until_executing": Mutation(
        {"take_up_checks_message": False},
        FINISHED,
        1,
        2,
        (REDELIVERY, STALL),
        {"scope": "until_executing"},
    ),
    "6 taken up again whoever ran the key": Mutation(
        {"take_up_checks_key": False}, OLDER, 2, 1, (STALL,)
    ),
    "7 given up in one step": Mutation(
        {"failure_first": False}, LOST, 1, 2, more={"max_deliveries": 1}
    ),
    "8 superseded before the newer call is sent": Mutation(
        {"supersede_after_send": False},
        "a call was replaced by one that was never sent",
        2,
        more={"replace": True, "guarded": (True, True)},
    ),
    "9 a dead child's lease is left alone": Mutation(
        {"abandon": False}, "the lease of a dead child is left to end by itself"
    ),
    "9 abandon compares the message only": Mutation(
        {"abandon_compares_nonce": False}, FOREIGN, 1, 2
    ),
    "9 finish compares the message only": Mutation(
        {"finish_compares": "message"}, FOREIGN, 1, 2, (REDELIVERY, STALL)
    ),
    "9 finish compares the task id only": Mutation(
        {"finish_compares": "task"}, FOREIGN, 1, 1, (STALL,), RETRY
    ),
    "10 recorded before the result is stored": Mutation({"result_first": False}, LOST),
    "10 acked before it is recorded": Mutation(
        {"ack_last": False}, "a finished message runs again", 1, 2
    ),
    "10 a claim of its own message is left": Mutation(
        {"finish_ends_claim": False},
        LEFT,
        more={"max_deliveries": 1},
    ),
    "10 a revoked message is not recorded": Mutation(
        {"drop_records": False}, AGAIN, 1, 2, (REVOKE, REDELIVERY)
    ),
    "10 a revoked message frees any claim": Mutation(
        {"drop_compares": False},
        FOREIGN,
        2,
        2,
        (REVOKE, CLAIM_END),
        {"guarded": (True, True)},
    ),
    "a claim whose reply was lost refuses itself": Mutation(
        {"claim_idempotent": False}, "refused for its own claim", kinds=(LOST_REPLY,)
    ),
    "a start whose reply was lost refuses itself": Mutation(
        {"start_idempotent": False},
        "an attempt was counted that never began",
        kinds=(LOST_REPLY,),
    ),
}

# What the first draft of this protocol did, and the search refuted.
FINDINGS: Final = {
    "a claim of the same task refuses a start": Mutation(
        {"same_task_claim_waits": True},
        "a start is refused, and nobody runs",
        kinds=(DEATH,),
        more=RETRY,
    ),
    "a claim hides that a lease ended by itself": Mutation(
        {"claim_keeps_index": False},
        OLDER,
        2,
        1,
        (STALL,),
        {"guarded": (True, True)},
    ),
    "a claim is left for a retry that was revoked": Mutation(
        {"retry_claim_spares_done": False}, LEFT, kinds=(REVOKE,), more=RETRY
    ),
    "a finish whose reply was lost claims for a retry that has ended": Mutation(
        {"retry_claim_needs_lease": False, "retry_claim_spares_done": False},
        LEFT,
        kinds=(LOST_REPLY,),
        more=RETRY,
    ),
    "a claim is left for a message that was revoked": Mutation(
        {"abandon_spares_done": False},
        LEFT,
        1,
        3,
        (REDELIVERY, REVOKE, DEATH),
        {"generations": 1, "max_deliveries": 2},
    ),
    "a skip records a message that its redelivery runs": Mutation(
        {"skip_spares_started": False},
        "a skip records a message as completed that runs",
        2,
        1,
        (REDELIVERY,),
    ),
    "revoked: recorded before it is told": Mutation(
        {"drop_told_first": False}, LOST, 1, 2, (REVOKE, DEATH)
    ),
    "under until_executing a retry runs beside its parent": Mutation(
        {"runs_by_task": False},
        "a finished message runs again",
        kinds=(DEATH,),
        more={"retries": True, "scope": "until_executing"},
    ),
    "a completion is forgotten while its message is under way twice": Mutation(
        {"forget": "any"}, AGAIN, kinds=(LOST_REPLY,)
    ),
    "a retry's completion is forgotten, its parent publishes it again": Mutation(
        {"forget": "any"}, AGAIN, kinds=(DEATH,), more=RETRY
    ),
}


@pytest.mark.parametrize("name", [*MUTATIONS, *FINDINGS])
def test_leaving_the_rule_out_breaks_something(name: str) -> None:
    """The search finds a counterexample where it should: the model can fail."""
    mutation = {**MUTATIONS, **FINDINGS}[name]
    result = Search(mutation.setup(Rules(**mutation.rules))).run()
    assert result.finding is not None, f"{result.states} states, nothing found"
    print(result.finding)
    assert result.finding.broken == mutation.broken


@pytest.mark.parametrize("name", [*MUTATIONS, *FINDINGS])
def test_with_the_rule_the_same_world_is_safe(name: str) -> None:
    """What the search finds above is the rule's doing, not the world's."""
    mutation = {**MUTATIONS, **FINDINGS}[name]
    result = Search(mutation.setup(Rules())).run()
    assert result.finding is None, str(result.finding)


@pytest.mark.parametrize(("copies", "left"), [("generations", 1), ("unordered", 3)])
def test_copies_merge(copies: str, left: int) -> None:
    """
    While a holder runs on, the copies of its message become one (rule 1).

    Three deliveries meet it before any of them has published its copy; after that
    each copy comes back four times. Without generations all three go on for ever.
    """
    rules = Rules(copies="unordered" if copies == "unordered" else "generations")
    bounds = Bounds(calls=1, retries=False, faults=3, deliveries=9, generations=99)
    protocol = Protocol(Setup(rules=rules, bounds=bounds))
    state = protocol.initial()
    for text in ("claims the key", "published", "received", "start: acquired", "BODY BEGINS"):
        state = _take(protocol, state, text)
    for _ in range(3):
        for text in ("REDELIVERED", "received", "start: duplicate, is put off"):
            state = _take(protocol, state, text)
    for text in ("publishes its copy", "raises the generation", "acks"):
        for _ in range(3):
            state = _take(protocol, state, text)
    for _ in range(4 * 3):
        if any(entry.place == QUEUED for entry in state.entries):
            state = _served(protocol, state)
    assert sum(entry.place != GONE for entry in state.entries) == left


def _served(protocol: Protocol, state: State) -> State:
    """The oldest copy arrives, finds the holder still running, and leaves again."""
    state = _take(protocol, state, "received")
    state = _take(protocol, state, "start: duplicate")
    while moves := _moves(protocol, state):
        state = canonical(moves[0].state)
    return state


def _moves(protocol: Protocol, state: State) -> list[Step]:
    """What a delivery that is being put off can do."""
    own = ("publishes its copy", "raises the generation", "acks")
    return [step for step in protocol.steps(state) if step.text in own]


def _take(protocol: Protocol, state: State, text: str) -> State:
    """The step with this text, of the message with the lowest generation."""
    steps: list[Step] = [s for s in protocol.steps(state) if s.text.startswith(text)]
    exact = [s for s in steps if s.text == text] or steps
    return canonical(min(exact, key=lambda step: step.generation).state)
