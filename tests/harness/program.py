"""A Celery program as users run it: a process of its own, with all its children."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil

from tests.harness.ledger import Ledger
from tests.harness.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parents[2]
MARK = "HARNESS_PROGRAM"
"""Environment variable that all processes of one program inherit: how to find them again."""


class Program(ABC):
    """One program; `close` ends every process that came from it, however it was killed."""

    letter: ClassVar[str]

    def __init__(
        self, settings: dict[str, Any], environment: dict[str, str] | None = None
    ) -> None:
        self.name = f"{self.letter}{uuid.uuid4().hex[:8]}@harness"
        self.ledger = Ledger(settings["ledger"])
        self.log_path = self.ledger.path.with_name(f"{self.name}.log")
        self._environment = {"HARNESS_SETTINGS": json.dumps(settings), **(environment or {})}
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """Of the main process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the main process runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the main process, once it ended."""
        return self._process.poll()

    def await_ready(self) -> "Self":
        """Wait until it does its work."""
        eventually(lambda: not self.alive or self.ready, f"{self.name} was ready", timeout=60)
        assert self.alive, f"The program ended at once:\n{self.log()[-2000:]}"
        return self

    @abstractmethod
    def command(self) -> list[str]:
        """Words after `celery`."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether it said that it does its work."""

    def log(self) -> str:
        """All that the program wrote."""
        return self.log_path.read_text()

    def processes(self) -> list[psutil.Process]:
        """
        Main and children, orphans too, found by the mark in their environment.

        A process that has just been started has no environment yet for others to read, on
        a loaded machine for a while: main is known without.
        """
        main = self.pid if self.alive else None
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == main or process.environ().get(MARK) == self.name:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid != self.pid)

    def children(self) -> list[int]:
        """Process ids of all but the main process."""
        return [process.pid for process in self.processes() if process.pid != self.pid]

    def owns(self, pid: int) -> bool:
        """Whether that process is one of this program's."""
        return any(process.pid == pid for process in self.processes())

    def freeze(self) -> None:
        """Stall the whole program, as a suspended virtual machine does."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen program go on, children first."""
        for process in reversed(self.processes()):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all its processes at once, as a host that loses power does."""
        doomed: set[int] = set()

        def over() -> bool:
            killed = {process.pid for process in self._signal_all(signal.SIGKILL)}
            doomed.update(killed)
            return not killed

        eventually(over, f"all processes of {self.name} were gone")
        for pid in doomed:
            self.ledger.note("dead", self.name, pid=pid)

    def kill_main(self) -> None:
        """End the main process only; its children may run on as orphans."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self.ledger.note("dead", self.name, pid=self.pid)

    def kill_child(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End one child process."""
        assert pid != self.pid, (
            "That is the main process; pools without children have no other."
        )
        psutil.Process(pid).send_signal(how)
        self.await_death(pid)

    def await_death(self, pid: int) -> None:
        """Wait until a process is gone, and write that into the ledger."""
        eventually(lambda: gone(pid), f"process {pid} was gone")
        self.ledger.note("dead", self.name, pid=pid)

    def send(self, how: signal.Signals) -> None:
        """Send a signal to the main process: TERM warm, QUIT cold or soft shutdown."""
        self._process.send_signal(how)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """Shut down and wait for it; returns the exit code."""
        self.send(how)
        return self.await_exit(timeout)

    def await_exit(self, timeout: float = 60) -> int:
        """Wait until the main process ended."""
        return self._process.wait(timeout)

    def close(self) -> None:
        """Leave nothing running."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        self.kill()

    def _signal_all(self, how: signal.Signals) -> list[psutil.Process]:
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(how)
        return processes

    def _spawn(self) -> "subprocess.Popen[bytes]":
        """
        Start it, in this session.

        Linux shares the processor among sessions (autogroup), and may starve one for many
        seconds while another's processes wake each other up, as a test and its Redis do.
        """
        command = [sys.executable, "-m", "celery", "-A", "tests.harness.app", *self.command()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), MARK: self.name}
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.ledger.path.parent,
                env=environment | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def gone(pid: int) -> bool:
    """Whether a process runs no more; a zombie does not run."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True
