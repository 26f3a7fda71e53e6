"""A Celery worker as users run it: a process of its own, with all its children."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil

from tests.harness.ledger import Ledger
from tests.harness.waiting import eventually

ROOT = Path(__file__).parents[2]
MARK = "HARNESS_WORKER"
"""Environment variable that all processes of one worker inherit: how to find them again."""


class Worker:
    """One worker; `close` ends every process that came from it, however it was killed."""

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = f"w{uuid.uuid4().hex[:8]}@harness"
        self.ledger = Ledger(settings["ledger"])
        self.log_path = self.ledger.path.with_name(f"{self.name}.log")
        self._environment = (environment or {}) | {"HARNESS_SETTINGS": json.dumps(settings)}
        self._options = [f"--pool={pool}", f"--concurrency={concurrency}"]
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

    def await_ready(self) -> "Worker":
        """Wait until it consumes."""
        eventually(self._ready_or_dead, f"{self.name} was ready", timeout=60)
        assert self.alive, f"The worker ended at once:\n{self.log()}"
        return self

    def log(self) -> str:
        """All that the worker wrote."""
        return self.log_path.read_text()

    def processes(self) -> list[psutil.Process]:
        """Main and children, orphans too, found by the mark in their environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.name:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid != self.pid)

    def children(self) -> list[int]:
        """Process ids of all but the main process."""
        return [process.pid for process in self.processes() if process.pid != self.pid]

    def owns(self, pid: int) -> bool:
        """Whether that process is one of this worker's."""
        return any(process.pid == pid for process in self.processes())

    def freeze(self) -> None:
        """Stall the whole worker, as a suspended virtual machine does."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen worker go on, children first."""
        for process in reversed(self.processes()):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all its processes at once, as a host that loses power does."""
        doomed = self._signal_all(signal.SIGKILL)
        self._process.wait()
        eventually(lambda: not self.processes(), "all processes of the worker were gone")
        self._note_dead(doomed)

    def kill_main(self) -> None:
        """End the main process only; its children may run on as orphans."""
        self._process.kill()
        self._process.wait()
        self.ledger.note("dead", self.name, pid=self.pid)

    def kill_child(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End one pool process."""
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

    def _ready_or_dead(self) -> bool:
        return not self.alive or bool(self.ledger.lines("ready", self.name))

    def _signal_all(self, how: signal.Signals) -> list[psutil.Process]:
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(how)
        return processes

    def _note_dead(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            self.ledger.note("dead", self.name, pid=process.pid)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "celery", "-A", "tests.harness.app", "worker"]
        command += ["-n", self.name, "-l", "INFO", *self._options]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), MARK: self.name}
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.ledger.path.parent,
                env=environment | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def gone(pid: int) -> bool:
    """Whether a process runs no more; a zombie does not run."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True
