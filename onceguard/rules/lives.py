"""How long the claim of a call may live, by instants as Celery takes them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAST = 1.0


def claim_life(
    unique_for: float, options: Mapping[str, Any], expires: object, now: datetime
) -> float:
    """
    Seconds that a claim may live: from now to *unique_for* after the call is due.

    A call that expires is thrown away then, by the broker perhaps, with nobody
    to free its claim; so the claim ends with it.

    Args:
        unique_for: The option.
        options: Those of ``apply_async``: countdown, eta and expires count.
        expires: What the task says, where the call says nothing.
        now: An aware datetime.
    """
    life = unique_for + delay(options, now)
    if options.get("expires") is not None:
        expires = options["expires"]
    if expires is None:
        return life
    return min(life, max(_LEAST, seconds_until(expires, now)))


def delay(options: Mapping[str, Any], now: datetime) -> float:
    """Seconds from now to when a call with these options is due."""
    return max(0.0, options.get("countdown") or seconds_until(options.get("eta"), now))


def seconds_until(instant: object, now: datetime) -> float:
    """Seconds to an instant as Celery takes it: seconds, a datetime or ISO text."""
    if instant is None:
        return 0.0
    if isinstance(instant, str):
        instant = datetime.fromisoformat(instant.replace("Z", "+00:00"))
    if isinstance(instant, datetime):
        return (aware(instant) - now).total_seconds()
    return float(instant)  # type: ignore[arg-type]


def aware(instant: datetime) -> datetime:
    """Read a naive instant as UTC, as Celery does."""
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)
