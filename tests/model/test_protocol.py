"""
The protocol of DESIGN section 6, searched exhaustively.

`ONCE_MODEL_DEPTH=1` adds the searches that take minutes: two faults with two calls,
three with one, three deliveries at a time, and the rarer faults.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.model.rules import USUAL, Bounds, Rules, Setup, Transport
from tests.model.search import Search
from tests.model.state import (
    CLAIM_END,
    DEATH,
    LOST_REPLY,
    REDELIVERY,
    REVOKE,
    STALL,
    STORE_DOWN,
    WIPE,
)

DEEP: Final = pytest.mark.skipif(
    os.environ.get("ONCE_MODEL_DEPTH", "0") == "0", reason="ONCE_MODEL_DEPTH is not set"
)

# Where the protocol is at least once: everything that may run, or be told, twice.
# docs/explanation/guarantees.md lists the same windows.
DIED: Final = {
    "the body ended, its result was not stored",
    "the result was stored, its completion not recorded",
}
RETRIED: Final = {
    "the body asked for a retry, which was not published",
    "the retry was published, the end of its parent not recorded",
}
STALLED: Final = {
    "a start stalled past its lease before its body began",
    "a holder stalled past its lease, and another delivery took over",
}
SKIPPED: Final = {
    "a skip was told, but not yet recorded when its redelivery started",
    "the skip was told, but not recorded",
}
REVOKED: Final = {
    "one delivery was revoked while another was starting",
    "the revocation was told, but not recorded",
}
EMPTIED: Final = {"the store was emptied"}
SKIPPED_EMPTIED: Final = {"the store was emptied, a task that had begun was skipped"}
QUEUED: Final = {"a parent ran again after it had published its retry, and succeeded"}

SETTLED: Final = frozenset({REDELIVERY, DEATH, STALL})
BOTH: Final = (True, True)


def _holds(bounds: Bounds, windows: set[str]) -> None:
    """Every invariant holds in every state, and these are all windows there are."""
    result = Search(Setup(bounds=bounds)).run()
    print(f"{result.states} states in {result.seconds:.1f} s")
    assert result.finding is None, str(result.finding)
    assert {window[1:] for window in result.windows} == windows


@pytest.mark.parametrize(
    ("bounds", "windows"),
    [
        pytest.param(Bounds(faults=1), DIED | RETRIED | SKIPPED, id="until_executed"),
        pytest.param(
            Bounds(faults=1, transport="rabbitmq", retries=False), DIED | SKIPPED, id="rabbitmq"
        ),
        pytest.param(
            Bounds(faults=1, scope="while_executing", retries=False),
            DIED | SKIPPED,
            id="while_executing",
        ),
        pytest.param(
            Bounds(faults=1, scope="until_executing", guarded=BOTH),
            DIED | RETRIED,
            id="until_executing",
        ),
    ],
)
def test_two_equal_calls_with_any_fault(bounds: Bounds, windows: set[str]) -> None:
    """
    Whatever one thing goes wrong, at whatever step: nothing lost, nothing beside.

    One call is guarded, the other a canvas member; either may hold the key when the
    other arrives, and the first may be retried.
    """
    _holds(bounds, windows)


def test_two_guarded_calls_with_any_fault() -> None:
    """Of two calls published like everybody's, one is queued, or a hold had ended."""
    bounds = Bounds(faults=1, guarded=BOTH, kinds=USUAL | {STORE_DOWN, REVOKE})
    _holds(bounds, DIED | RETRIED | QUEUED)


def test_one_call_with_any_two_faults() -> None:
    """Redelivered, killed or stalled twice over, a call ends well."""
    _holds(Bounds(calls=1, retries=False, kinds=SETTLED), DIED | STALLED)


@DEEP
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("bounds", "windows"),
    [
        pytest.param(
            Bounds(guarded=BOTH),
            DIED | RETRIED | STALLED | SKIPPED | QUEUED,
            id="two calls, two faults",
        ),
        pytest.param(
            Bounds(retries=False), DIED | STALLED | SKIPPED, id="a member, two faults"
        ),
        pytest.param(
            Bounds(retries=False, transport="rabbitmq"),
            DIED | STALLED | SKIPPED,
            id="rabbitmq, two faults",
        ),
        pytest.param(
            Bounds(retries=False, kinds=frozenset({REDELIVERY, DEATH, WIPE})),
            DIED | SKIPPED | EMPTIED | SKIPPED_EMPTIED,
            id="an emptied store",
        ),
        pytest.param(
            Bounds(retries=False, replace=True, guarded=BOTH),
            DIED | STALLED | SKIPPED,
            id="replace",
        ),
        pytest.param(
            Bounds(faults=1, deliveries=3), DIED | RETRIED | SKIPPED, id="three deliveries"
        ),
        pytest.param(Bounds(faults=1, reschedule=True), DIED | RETRIED, id="reschedule"),
        pytest.param(
            Bounds(faults=1, scope="while_executing"),
            DIED | RETRIED | SKIPPED,
            id="while_executing with retries",
        ),
    ],
)
def test_two_equal_calls_deep(bounds: Bounds, windows: set[str]) -> None:
    """As above, with more faults, and with rarer ones."""
    _holds(bounds, windows)


@DEEP
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("bounds", "windows"),
    [
        pytest.param(Bounds(), set(), id="usual faults"),
        pytest.param(Bounds(deliveries=3), set(), id="three deliveries"),
        pytest.param(Bounds(transport="rabbitmq"), set(), id="rabbitmq"),
        pytest.param(Bounds(kinds=USUAL | {STORE_DOWN}), set(), id="store down"),
        pytest.param(Bounds(kinds=USUAL | {REVOKE}), REVOKED, id="revoked"),
        pytest.param(Bounds(kinds=USUAL | {WIPE}), EMPTIED, id="an emptied store"),
        pytest.param(Bounds(orphans=True), set(), id="orphans"),
        pytest.param(Bounds(scope="while_executing"), set(), id="while_executing"),
        pytest.param(Bounds(scope="until_executing"), set(), id="until_executing"),
        pytest.param(Bounds(faults=3, kinds=SETTLED | {CLAIM_END}), set(), id="three faults"),
    ],
)
def test_one_call_deep(bounds: Bounds, windows: set[str]) -> None:
    """One call and its retry, each kind of fault, in every scope."""
    alone = Bounds(**{**vars(bounds), "calls": 1})
    _holds(alone, DIED | RETRIED | STALLED | windows)


@pytest.mark.parametrize("transport", ["redis", "rabbitmq"])
def test_forgetting_originals_is_safe_without_a_second_send(transport: Transport) -> None:
    """
    A completed original, never redelivered, sent once, can be forgotten.

    Sent once is an assumption: a publisher whose reply was lost sends twice
    (FINDINGS in test_mutations), which is why the implementation must keep the record for as
    long as that may take.
    """
    bounds = Bounds(calls=1, faults=1, kinds=USUAL - {LOST_REPLY}, transport=transport)
    result = Search(Setup(rules=Rules(forget="originals"), bounds=bounds)).run()
    assert result.finding is None, str(result.finding)
