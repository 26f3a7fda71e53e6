"""Where one show keeps its files, and how its processes learn of it."""

from __future__ import annotations

import os
from pathlib import Path

from onceguard.admin.demo.journal import Journal

DIRECTORY = "ONCEGUARD_DEMO_DIRECTORY"
UNGUARDED = "ONCEGUARD_DEMO_UNGUARDED"

# Celery prefers these to its configuration; the demo must not meet a real broker.
_FOREIGN = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL",
            "CELERY_RESULT_BACKEND")  # fmt: skip


def settle(directory: Path, *, unguarded: bool) -> None:
    """Make *directory* the place of this process and of those that it starts."""
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ["TMPDIR"] = str(directory)  # for what a killed worker leaves behind
    os.environ[DIRECTORY] = str(directory)
    os.environ[UNGUARDED] = "1" if unguarded else "0"


def broker_socket(directory: str) -> Path:
    """Say where the show's Redis listens."""
    return Path(directory) / "redis.sock"


def ledger() -> Journal:
    """Open what the task bodies write: the witness, which knows nothing of onceguard."""
    return Journal(Path(os.environ[DIRECTORY]) / "ledger.jsonl")


def decisions() -> Journal:
    """Open what onceguard's signals tell."""
    return Journal(Path(os.environ[DIRECTORY]) / "decisions.jsonl")
