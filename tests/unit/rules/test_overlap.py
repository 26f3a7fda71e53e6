"""Which tick survives: the whole table, row by row."""

import pytest

from onceguard.rules.choices import OverlapPolicy
from onceguard.rules.overlap import Action, Predecessor, decide, decisions

S, B, L, C, A = OverlapPolicy
NONE, QUEUED, RUNNING, BOTH = Predecessor

TABLE = {
    (S, NONE): (Action.SEND, "nothing is in its way"),
    (S, QUEUED): (Action.SKIP, "the queued call does this tick's work"),
    (S, RUNNING): (Action.SKIP, "the running call survives, this tick is gone"),
    (S, BOTH): (Action.SKIP, "both that were there survive"),
    (B, NONE): (Action.SEND, "nothing is in its way"),
    (B, QUEUED): (Action.SKIP, "folds into the queued call, which has yet to run"),
    (B, RUNNING): (Action.BUFFER, "the first tick during a run survives, to run after it"),
    (B, BOTH): (Action.DROP, "the first buffered tick survives, later ones do not"),
    (L, NONE): (Action.SEND, "nothing is in its way"),
    (L, QUEUED): (Action.REPLACE, "the newest survives, with its arguments"),
    (L, RUNNING): (Action.BUFFER, "runs after the running call, which survives"),
    (L, BOTH): (Action.REPLACE, "the newest survives in the buffer; the run goes on"),
    (C, NONE): (Action.SEND, "nothing is in its way"),
    (C, QUEUED): (Action.REPLACE, "the newest survives"),
    (C, RUNNING): (Action.CANCEL, "the newest survives, the run is told to stop"),
    (C, BOTH): (Action.CANCEL, "the newest survives, run and buffered tick do not"),
    (A, NONE): (Action.SEND, "nothing is in its way"),
    (A, QUEUED): (Action.SEND, "all survive"),
    (A, RUNNING): (Action.SEND, "all survive, beside one another"),
    (A, BOTH): (Action.SEND, "all survive"),
}


@pytest.mark.parametrize(
    ("policy", "predecessor", "action"),
    [
        pytest.param(*found, action, id=f"{found[0]}, {found[1].value}: {why}")
        for found, (action, why) in TABLE.items()
    ],
)
def test_a_tick_meets_its_predecessor(
    policy: OverlapPolicy, predecessor: Predecessor, action: Action
) -> None:
    """The policies are promises to users: each case is decided on purpose."""
    assert decide(policy, predecessor) is action


def test_the_table_above_is_complete() -> None:
    """A policy or a predecessor that is added later needs its rows here first."""
    assert set(TABLE) == {(policy, found) for policy in OverlapPolicy for found in Predecessor}


@pytest.mark.parametrize("policy", OverlapPolicy)
def test_the_store_is_given_all_four_decisions_in_the_order_that_it_counts(
    policy: OverlapPolicy,
) -> None:
    """tick.lua numbers predecessors 0 to 3 and takes that argument."""
    assert decisions(policy) == tuple(decide(policy, found) for found in Predecessor)
    assert [found.name for found in Predecessor] == [
        "NONE",
        "QUEUED",
        "RUNNING",
        "RUNNING_AND_BUFFERED",
    ]


@pytest.mark.parametrize("policy", [S, B, L, C])
def test_no_policy_but_allow_all_lets_ticks_pile_up(policy: OverlapPolicy) -> None:
    """Beside what is queued or waits already nothing more is sent, unless in its place."""
    assert decide(policy, QUEUED) in {Action.SKIP, Action.REPLACE}
    assert decide(policy, BOTH) in {Action.SKIP, Action.DROP, Action.REPLACE, Action.CANCEL}
    assert decide(policy, RUNNING) is not Action.SEND
