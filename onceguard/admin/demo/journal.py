"""Files of JSON lines that any process appends to: the ledger, and the decisions."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    One event.

    Attributes:
        at: Monotonic seconds, the same clock in all processes of the machine.
        pid: The process that it happened in.
        event: What happened, one word.
        call: Task and arguments, as in ``invoice(order=1001)``; "" for none.
        task_id: Celery's id of the call; "" for none.
        facts: Whatever else the writer knew.
    """

    at: float
    pid: int
    event: str
    call: str
    task_id: str
    facts: Mapping[str, Any]


class Journal:
    """
    A file of `Line`s.

    One line is one write to a file opened for appending, so the lines of
    several processes never mix.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(
        self, event: str, *, call: str = "", task_id: str = "", pid: int = 0, **facts: Any
    ) -> None:
        """Append a line, in one write; *pid* if it is about another process."""
        line = {
            "at": time.monotonic(),
            "pid": pid or os.getpid(),
            "event": event,
            "call": call,
            "task_id": task_id,
            "facts": facts,
        }
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)

    def lines(self) -> list[Line]:
        """Return what was written so far, in that order."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [Line(**json.loads(line)) for line in whole]
