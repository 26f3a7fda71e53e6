"""What the ledger proves: pure functions of its lines."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from onceguard.rules.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from onceguard.admin.demo.journal import Line

_REFUSALS = {
    Outcome.DUPLICATE.value,
    Outcome.DUPLICATE_DELIVERY.value,
    Outcome.ALREADY_COMPLETED.value,
    Outcome.OVERLAP_SKIPPED.value,
    Outcome.RESCHEDULED.value,
    Outcome.REJECTED.value,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    One execution of a task's body.

    Attributes:
        begin: Its first line.
        end: Monotonic seconds of its last sign of life; infinity while it runs.
        completed: Whether it came to its own end.
    """

    begin: Line
    end: float
    completed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What became of all calls with one task and arguments."""

    call: str
    started: int
    completed: int
    refused: Mapping[str, int]


def runs(ledger: Iterable[Line]) -> list[Run]:
    """Join the begin of each run with its end, or with the death of its process."""
    lines = list(ledger)
    ends = {line.facts["run"]: line.at for line in lines if line.event == "end"}
    deaths = {line.pid: line.at for line in lines if line.event == "dead"}
    found = []
    for line in lines:
        if line.event == "begin":
            completed = line.facts["run"] in ends
            died = deaths.get(line.pid, math.inf)
            end = ends.get(line.facts["run"], died if died > line.at else math.inf)
            found.append(Run(begin=line, end=end, completed=completed))
    return found


def summaries(ledger: Iterable[Line], decisions: Iterable[Line]) -> list[Summary]:
    """Count for each call what began, what was completed and what was refused."""
    all_runs = runs(ledger)
    refusals = [line for line in decisions if line.event in _REFUSALS]
    calls = dict.fromkeys(run.begin.call for run in all_runs)
    return [
        Summary(
            call=call,
            started=sum(run.begin.call == call for run in all_runs),
            completed=sum(run.begin.call == call and run.completed for run in all_runs),
            refused=Counter(line.event for line in refusals if line.call == call),
        )
        for call in calls
    ]


def faults(
    ledger: Iterable[Line], accepted: Mapping[str, str], most_starts: Mapping[str, int]
) -> list[str]:
    """
    Find what must never happen, each as a sentence.

    Args:
        ledger: What the task bodies wrote.
        accepted: Calls that were published and not refused, by task id.
        most_starts: Calls that never come to an end, and how often each may
            be tried.
    """
    all_runs = runs(ledger)
    return [
        *_overlaps(all_runs),
        *_stale_tokens(all_runs),
        *_repetitions(all_runs),
        *_losses(all_runs, accepted, most_starts),
        *_endless(all_runs, most_starts),
    ]


def _overlaps(all_runs: Sequence[Run]) -> Iterator[str]:
    found: dict[str, list[tuple[Run, Run]]] = {}
    for one, other in combinations(all_runs, 2):
        together = min(one.end, other.end) > max(one.begin.at, other.begin.at)
        if one.begin.call == other.begin.call and together:
            found.setdefault(one.begin.call, []).append((one, other))
    for call, pairs in found.items():
        one, other = pairs[0]
        pids = f"pid {one.begin.pid} and pid {other.begin.pid}"
        more = f", and {len(pairs) - 1} more pairs of its runs" if pairs[1:] else ""
        yield f"{call} ran in {pids} at the same time{more}"


def _stale_tokens(all_runs: Iterable[Run]) -> Iterator[str]:
    newest: dict[str, int] = {}
    for run in all_runs:
        call, token = run.begin.call, run.begin.facts.get("token")
        if token is not None:
            if token <= newest.get(call, 0):
                yield f"{call} ran in pid {run.begin.pid} with a fencing token used before"
            newest[call] = token


def _repetitions(all_runs: Iterable[Run]) -> Iterator[str]:
    completed = Counter(
        (run.begin.call, run.begin.task_id) for run in all_runs if run.completed
    )
    for (call, task_id), times in completed.items():
        if times > 1:
            yield f"{call} was completed {times} times by one message, task {task_id[:8]}"


def _losses(
    all_runs: Iterable[Run], accepted: Mapping[str, str], most_starts: Mapping[str, int]
) -> Iterator[str]:
    completed = {run.begin.task_id for run in all_runs if run.completed}
    for task_id, call in accepted.items():
        if task_id not in completed and call not in most_starts:
            yield f"{call} was published as task {task_id[:8]} and never completed"


def _endless(all_runs: Iterable[Run], most_starts: Mapping[str, int]) -> Iterator[str]:
    starts = Counter(run.begin.call for run in all_runs)
    for call, most in most_starts.items():
        if starts[call] > most:
            yield f"{call} was started {starts[call]} times and not given up after {most}"
