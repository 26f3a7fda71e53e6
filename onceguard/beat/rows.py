"""What a scheduler's entry says of its database row, if it has one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onceguard.rules.lives import aware

if TYPE_CHECKING:
    from datetime import datetime


def is_one_off(entry: Any) -> bool:
    """Whether it is a row that is to run once, and is switched off then."""
    return bool(getattr(getattr(entry, "model", None), "one_off", False))


def changed_at(entry: Any) -> float:
    """
    Return when the row was last changed, by a user for example, in unix seconds.

    Minus infinity if nobody knows.
    """
    changed: datetime | None = getattr(getattr(entry, "model", None), "date_changed", None)
    if changed is None:
        return -math.inf
    if changed.tzinfo is None and hasattr(entry.model, "_meta"):  # Django's are local then
        return changed.timestamp()
    return aware(changed).timestamp()
