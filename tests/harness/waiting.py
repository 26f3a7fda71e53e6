"""Waiting for something to become true, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds a test waits for what must happen: far more than it takes, for loaded machines."""

POLL = 0.02


def eventually(
    probe: Callable[[], T], what: str, *, timeout: float = PATIENCE, poll: float = POLL
) -> T:
    """
    Ask until the answer is true, and return that answer.

    Args:
        probe: Asked again and again; its exceptions pass through.
        what: What was awaited, for the failure's sentence.
        timeout: Seconds until the test fails.
        poll: Seconds between two questions.

    Raises:
        AssertionError: It did not come true in time.
    """
    deadline = time.monotonic() + timeout
    while not (answer := probe()):
        if time.monotonic() > deadline:
            message = f"Waited {timeout:g} s in vain until {what}."
            raise AssertionError(message)
        time.sleep(poll)
    return answer


def stays(probe: Callable[[], object], what: str, *, during: float) -> None:
    """
    Watch that something holds for a while: the only honest proof of "never".

    Args:
        probe: Must be true each time it is asked.
        what: The claim, for the failure's sentence.
        during: Seconds to watch.

    Raises:
        AssertionError: It was false once.
    """
    deadline = time.monotonic() + during
    while time.monotonic() < deadline:
        if not probe():
            message = f"Should have stayed true for {during:g} s: {what}."
            raise AssertionError(message)
        time.sleep(POLL)
