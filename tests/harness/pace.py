"""What a list of ticks says about those who sent them."""

import itertools
import statistics
from collections.abc import Sequence

from tests.harness.post import Letter


def duplicates(letters: Sequence[Letter], interval: float) -> int:
    """
    Count messages that no tick of an interval was due for.

    One that comes within half an interval of a tick is its duplicate: that is far more
    than a claim and a publish take, and far less than a beat of its own phase needs.
    Unless it was that tick which came late, on a loaded machine: then two intervals are
    over since the tick before it.
    """
    count, before, last = 0, letters[0].at - interval, letters[0].at
    for letter in letters[1:]:
        if letter.at - last < interval / 2 and letter.at - before < 1.9 * interval:
            count += 1
        else:
            before, last = last, letter.at
    return count


def worst_gap(letters: Sequence[Letter]) -> float:
    """Tell the longest time without a message between two of them, in seconds."""
    return max(gaps(letters))


def usual_gap(letters: Sequence[Letter]) -> float:
    """Tell the median time between two messages, which a loaded machine does not change."""
    return statistics.median(gaps(letters))


def gaps(letters: Sequence[Letter]) -> list[float]:
    """Tell how much time was between each message and the next."""
    return [after.at - before.at for before, after in itertools.pairwise(letters)]
