"""`make demo` shows what it says, can fail, and leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from onceguard.admin.demo.journal import Line
from onceguard.admin.demo.verdict import faults
from tests.harness.program import ROOT
from tests.harness.waiting import PATIENCE, eventually

MARK = "DEMO_TEST"
"""Environment variable by which every process that a demo started is found."""

WITHIN = 90.0
"""Seconds for a demo, on a loaded machine."""


class Demo:
    """A demo in a process of its own, with a directory for temporary files of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.mark = uuid.uuid4().hex
        given = {MARK: self.mark, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onceguard.admin.demo", *options],
            env={**os.environ, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def output(self) -> str:
        """All that it writes, once it ended."""
        return self.process.communicate(timeout=WITHIN)[0]

    def processes(self) -> list[psutil.Process]:
        """Every process that carries its mark and runs."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def assert_left_nothing(self) -> None:
        """No process, no file."""
        eventually(lambda: not self.processes(), "its processes were gone", timeout=5)
        assert not list(self.directory.iterdir())

    def close(self) -> None:
        """Clean up after a demo that did not."""
        self.process.kill()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture
def place(redis_binary: str, tmp_path: Path) -> Path:
    """A directory for temporary files, with a path that is short enough for a socket."""
    assert redis_binary
    return tmp_path


@contextlib.contextmanager
def demo(place: Path, *options: str) -> Iterator[Demo]:
    """Start a demo, and end what it may leave behind."""
    pytest.importorskip("rich")
    shown = Demo(place, *options)
    try:
        yield shown
    finally:
        shown.close()


def begin(at: float, **facts: object) -> Line:
    """The first line of a run."""
    run = {"run": f"run{at}", **facts}
    return Line(at=at, pid=1, event="begin", call="f(x=1)", task_id="t", facts=run)


def end(at: float, of: float) -> Line:
    """The last line of the run that began at *of*."""
    facts = {"run": f"run{of}"}
    return Line(at=at, pid=1, event="end", call="f(x=1)", task_id="t", facts=facts)


@pytest.mark.parametrize(
    ("ledger", "accepted", "most_starts", "sentence"),
    [
        ([begin(1), begin(2), end(3, of=1), end(3, of=2)], {}, {}, "at the same time"),
        ([begin(1), end(2, of=1), begin(3), end(4, of=3)], {}, {}, "completed 2 times"),
        ([begin(1, token=7), end(2, of=1), begin(3, token=7)], {}, {}, "token used before"),
        ([begin(1)], {"t": "f(x=1)"}, {}, "never completed"),
        ([begin(1), begin(2)], {"t": "f(x=1)"}, {"f(x=1)": 1}, "not given up after 1"),
    ],
)
def test_the_verdict_finds_each_fault(
    ledger: list[Line],
    accepted: dict[str, str],
    most_starts: dict[str, int],
    sentence: str,
) -> None:
    """Plain Celery commits only some of them; the others must be seen to be found, too."""
    assert any(sentence in fault for fault in faults(ledger, accepted, most_starts))


def test_the_verdict_passes_a_run_that_follows_a_death() -> None:
    """A killed run ends with its process; the next attempt of its message is no overlap."""
    died = Line(at=2, pid=1, event="dead", call="", task_id="", facts={})
    ledger = [begin(1, token=7), died, begin(3, token=8), end(4, of=3)]
    assert not faults(ledger, {"t": "f(x=1)"}, {})


def happened(output: str) -> set[str]:
    """The column that says what happened."""
    rows = (line.split() for line in output.splitlines())
    return {words[2] for words in rows if len(words) > 2 and "=" in words[1]}


def test_the_demo_shows_every_refusal_and_ends_well(place: Path) -> None:
    """The first thing a new user sees: nothing ran twice, although everything broke."""
    with demo(place) as shown:
        output = shown.output()
        assert shown.process.returncode == 0, output
        wanted = "published runs completed killed AlreadyQueued DuplicateResult duplicate"
        wanted += " overlap_skipped duplicate_delivery already_completed abandoned rejected"
        assert not set(wanted.split()) - happened(output), output
        assert "attempt 2, fencing token" in output
        assert "Nothing ran twice, and nothing was lost." in output
        assert "\x1b" not in output
        shown.assert_left_nothing()


def test_the_demo_fails_when_things_run_twice(place: Path) -> None:
    """A check that never fails proves nothing: without onceguard the same show ends with 1."""
    with demo(place, "--unguarded") as shown:
        output = shown.output()
        assert shown.process.returncode == 1, output
        assert "at the same time" in output
        assert "completed 2 times by one message" in output
        assert "Nothing ran twice" not in output
        shown.assert_left_nothing()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_an_interrupted_demo_leaves_nothing_behind(place: Path, how: signal.Signals) -> None:
    """Whoever has seen enough presses Ctrl-C, in mid-run."""
    with demo(place) as shown:
        lines = iter(shown.process.stdout or [])
        assert any(" runs " in line for line in lines)
        shown.process.send_signal(how)
        output = shown.output()
        assert shown.process.returncode == 128 + how, output
        assert "Traceback" not in output
        shown.assert_left_nothing()
