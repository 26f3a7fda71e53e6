"""
The witness: a file to which task bodies append what they do, and nobody else's record.

One line is one `write` to a file opened with O_APPEND, so processes never mix theirs:

    monotonic_ns pid task_id event name run detail...
"""

import contextlib
import itertools
import math
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.harness.clock import monotonic_ns
from tests.harness.waiting import PATIENCE, eventually


@dataclass(frozen=True)
class Line:
    """One event."""

    at: int
    pid: int
    task_id: str
    event: str
    name: str
    run: str
    detail: str

    def fact(self, key: str) -> str:
        """The value of `key=value` in the detail, or the empty string."""
        pairs = (word.partition("=") for word in self.detail.split())
        return next((value for name, _, value in pairs if name == key), "")


@dataclass(frozen=True)
class Run:
    """One execution of a task's body, from its first line to its last."""

    start: Line
    end: float
    """Monotonic nanoseconds; infinity while it runs (or if it died unseen)."""

    how: str
    """The detail of the end, `dead` for a killed process, empty while it runs."""

    @property
    def task_id(self) -> str:
        """Of the task whose body ran."""
        return self.start.task_id

    @property
    def pid(self) -> int:
        """Of the process in which it ran."""
        return self.start.pid

    @property
    def fencing_token(self) -> int:
        """As the run itself saw it."""
        return int(self.start.fact("fence"))

    @property
    def attempt(self) -> int:
        """As the run itself saw it."""
        return int(self.start.fact("attempt"))

    @property
    def finished(self) -> bool:
        """The body came to its own end."""
        return self.how not in {"", "dead"}

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return (self.end - self.start.at) / 1e9


class Ledger:
    """Written by tasks in any process, read by the test."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.touch()

    def note(  # noqa: PLR0913  the columns of a line
        self,
        event: str,
        name: str = "-",
        *,
        task_id: str = "-",
        run: str = "-",
        detail: str = "",
        pid: int | None = None,
    ) -> None:
        """Append one line, in one write."""
        words = (monotonic_ns(), pid or os.getpid(), task_id, event, name, run, detail)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, (" ".join(map(str, words)).replace("\n", " ") + "\n").encode())
        finally:
            os.close(file)

    @contextlib.contextmanager
    def run(self, task: Any, name: str) -> Iterator[None]:
        """Write the begin and the end of a task's body."""
        request, run = task.request, uuid.uuid4().hex[:8]
        note = partial(self.note, name=name, task_id=request.id, run=run)
        note("begin", detail=facts_of(request))
        try:
            yield
        except BaseException as error:
            note("end", detail=type(error).__name__)
            raise
        note("end", detail="ok")

    def lines(self, event: str | None = None, name: str | None = None) -> list[Line]:
        """Events in the order in which they were written, all of them or those asked for."""
        text = self.path.read_text()
        whole = text[: text.rfind("\n") + 1].splitlines()
        lines = [parse(line) for line in whole]
        return [x for x in lines if event in (None, x.event) and name in (None, x.name)]

    def runs(self, name: str | None = None) -> list[Run]:
        """Executions of bodies, in the order in which they began."""
        lines = self.lines()
        ends = {line.run: line for line in lines if line.event == "end"}
        dead = {line.pid: line for line in lines if line.event == "dead"}
        starts = [x for x in lines if x.event == "begin" and name in (None, x.name)]
        return [finish(start, ends.get(start.run), dead.get(start.pid)) for start in starts]

    def overlaps(self, name: str | None = None) -> list[tuple[Run, Run]]:
        """Pairs of runs of one name that were in their bodies at the same time."""
        return [
            (one, other)
            for one, other in itertools.combinations(self.runs(name), 2)
            if one.start.name == other.start.name
            and one.start.at < other.end
            and other.start.at < one.end
        ]

    def await_begin(self, name: str, nth: int = 1, timeout: float = PATIENCE) -> Run:
        """Wait until a body of that name began for the nth time."""
        what = f"{name} began {nth} times"
        return eventually(lambda: self.runs(name)[nth - 1 :], what, timeout=timeout)[0]

    def await_end(self, name: str, nth: int = 1, timeout: float = PATIENCE) -> Run:
        """Wait until a body of that name came to its end for the nth time."""
        what = f"{name} ended {nth} times"
        return eventually(lambda: self.ended(name)[nth - 1 :], what, timeout=timeout)[0]

    def ended(self, name: str) -> list[Run]:
        """Runs of that name that came to their own end."""
        return sorted((run for run in self.runs(name) if run.finished), key=lambda run: run.end)


def facts_of(request: Any) -> str:
    """What the run itself knows; a row's header makes `once` True in plain Celery."""
    once = getattr(request, "once", None)
    if once is None or isinstance(once, bool | dict):
        return f"retries={request.retries}"
    due = once.scheduled_time.timestamp() if once.scheduled_time else ""
    return f"attempt={once.attempt} fence={once.fencing_token} key={once.key} due={due}"


def parse(text: str) -> Line:
    """Read one line back."""
    at, pid, task_id, event, name, run, *detail = text.split(" ", 6)
    return Line(int(at), int(pid), task_id, event, name, run, "".join(detail))


def finish(start: Line, end: Line | None, dead: Line | None) -> Run:
    """Join a begin with the end that belongs to it, or with its process's death."""
    if end is not None:
        return Run(start, end.at, end.detail)
    if dead is not None and dead.at > start.at:
        return Run(start, dead.at, "dead")
    return Run(start, math.inf, "")
