"""Celery tasks that run once: not twice at a time, not piled up, not lost."""

from __future__ import annotations

from onceguard.install import setup
from onceguard.observe import signals
from onceguard.publish.claim import DuplicateResult, current
from onceguard.rules.errors import (
    AlreadyQueued,
    InvalidOptions,
    InvalidSettings,
    KeyNotComputable,
    LeaseLost,
    OnceError,
    StoreUnavailable,
    Superseded,
    TooManyDeliveries,
)
from onceguard.rules.options import Once
from onceguard.task import QueueOnce

__all__ = [
    "AlreadyQueued",
    "DuplicateResult",
    "InvalidOptions",
    "InvalidSettings",
    "KeyNotComputable",
    "LeaseLost",
    "Once",
    "OnceError",
    "QueueOnce",
    "StoreUnavailable",
    "Superseded",
    "TooManyDeliveries",
    "current",
    "setup",
    "signals",
]
