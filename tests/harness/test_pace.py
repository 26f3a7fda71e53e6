"""How ticks are judged by when their messages came."""

import pytest

from tests.harness.pace import duplicates
from tests.harness.post import Letter


@pytest.mark.parametrize(
    ("times", "count"),
    [
        ([0, 1, 2, 3], 0),
        ([0, 1, 1.1, 2], 1),
        ([0, 0.1, 1, 2], 1),
        ([0, 1, 1.1, 1.2, 2], 2),
        ([0, 1.6, 1.7, 2.6], 1),
        ([0, 1.6, 2, 3], 0),
        ([0, 0.3, 1, 1.3, 2, 2.3], 3),
    ],
    ids=[
        "each-tick-once",
        "a-tick-twice",
        "the-first-tick-twice",
        "a-tick-three-times",
        "a-tick-twice-after-a-long-gap",
        "a-tick-late",
        "two-beats-of-their-own-phase",
    ],
)
def test_only_what_no_tick_was_due_for_is_a_duplicate(times: list[float], count: int) -> None:
    """A loaded machine makes ticks late, and no duplicates."""
    letters = [Letter(at=at, sender=1, task_id="t", args=[], headers={}) for at in times]
    assert duplicates(letters, 1.0) == count
