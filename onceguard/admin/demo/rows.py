"""What happened, as rows for people: a journal's line becomes four short texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onceguard.rules.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onceguard.admin.demo.journal import Line
    from onceguard.admin.demo.verdict import Summary

HEAD = ("time", "call", "what happened", "why, and who")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One thing that happened.

    Attributes:
        at: Monotonic seconds.
        call: Task and arguments; "" if it is about no call.
        word: What happened: an outcome of onceguard's, or a word of the show's.
        why: The rest of the sentence.
        style: Colour of the word, on a terminal.
    """

    at: float
    call: str
    word: str
    why: str
    style: str = ""


def act(at: float, title: str) -> Row:
    """Announce what is done next."""
    return Row(at=at, call="", word="", why=title, style="bold")


def from_ledger(line: Line) -> Row | None:
    """Tell what a task's body did."""
    worker = str(line.facts.get("worker", "")).partition("@")[0]
    if line.event == "begin":
        token = line.facts.get("token")
        guard = f", attempt {line.facts['attempt']}, fencing token {token}" if token else ""
        why = f"worker {worker}, pid {line.pid}{guard}"
        return Row(at=line.at, call=line.call, word="runs", why=why, style="cyan")
    if line.event == "end":
        why = f"worker {worker}, pid {line.pid}"
        return Row(at=line.at, call=line.call, word="completed", why=why, style="green")
    if line.event == "dead" and line.task_id:
        why = f"pid {line.pid} was killed by what it ran"
        return Row(at=line.at, call=line.call, word="died", why=why, style="red")
    return None


def from_decision(line: Line) -> Row:
    """Tell what onceguard decided."""
    parts = [_holder(line.facts), str(line.facts.get("detail", ""))]
    why = "; ".join(part for part in parts if part) or _PLAIN.get(line.event, "")
    style = "magenta" if line.event in _SERIOUS else "yellow"
    return Row(at=line.at, call=line.call, word=line.event, why=why, style=style)


_PLAIN = {Outcome.ALREADY_COMPLETED.value: "the same message came again after its run"}
_SERIOUS = {
    Outcome.ABANDONED.value,
    Outcome.REJECTED.value,
    Outcome.LEASE_LOST.value,
    Outcome.STORE_UNAVAILABLE.value,
}


def _holder(facts: Mapping[str, Any]) -> str:
    if "state" not in facts:
        return ""
    pid = str(facts["where"]).rpartition(":")[2]
    if facts["state"] == "claim":
        return f"an equal call is queued for {facts['age']:.1f} s"
    return f"running in pid {pid} for {facts['age']:.1f} s, attempt {facts['attempt']}"


def counted(summary: Summary) -> tuple[str, str, str, str]:
    """Put a call's summary into columns: call, started, completed, refused."""
    refused = ", ".join(f"{times} {word}" for word, times in sorted(summary.refused.items()))
    return summary.call, str(summary.started), str(summary.completed), refused or "-"
