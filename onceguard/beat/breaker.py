"""Ask a lock server that is away only now and then."""

from __future__ import annotations


class Breaker:
    """
    Says when to ask the lock server, so that beat does not wait for it at each tick.

    Args:
        pause: Seconds after a failure in which nobody asks.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._asked_again_at: float | None = None

    def closed(self, now: float) -> bool:
        """Whether to ask at this monotonic time."""
        return self._asked_again_at is None or now >= self._asked_again_at

    def failed(self, now: float) -> bool:
        """Take note that the server did not answer; True if it did the last time."""
        first = self._asked_again_at is None
        self._asked_again_at = now + self._pause
        return first

    def answered(self) -> bool:
        """Take note that the server answered; True if it did not the last time."""
        back = self._asked_again_at is not None
        self._asked_again_at = None
        return back
