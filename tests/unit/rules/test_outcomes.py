"""Outcomes are one closed list of words."""

from __future__ import annotations

import json

from onceguard.rules.outcomes import Outcome

DESIGNED = (
    "acquired renewed released duplicate duplicate_delivery already_completed "
    "overlap_skipped buffered buffer_dropped replaced rescheduled rejected missed limited "
    "lease_lost abandoned force_released paused store_unavailable"
)


def test_the_list_is_closed() -> None:
    """Dashboards and alerts are written against these words."""
    assert [outcome.value for outcome in Outcome] == DESIGNED.split()


def test_a_word_is_the_same_everywhere() -> None:
    """Python 3.10 to 3.12 disagree on the text of mixed-in enums."""
    outcome = Outcome.LEASE_LOST
    assert {str(outcome), f"{outcome}", outcome.value, json.loads(json.dumps(outcome))} == {
        "lease_lost"
    }
