"""A site: one broker, one store, one ledger, and the workers and publishers around them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import celery
import pytest

from tests.harness.app import make_app
from tests.harness.beat import Beat
from tests.harness.brokers import Broker, RabbitBroker, RedisBroker
from tests.harness.ledger import Ledger
from tests.harness.program import ROOT, Program
from tests.harness.redis_server import RedisServer
from tests.harness.schedule import Entry
from tests.harness.schedulers import STORES, Rows
from tests.harness.waiting import PATIENCE, eventually
from tests.harness.worker import Worker

LEASE = 2.0
"""Lease of all guarded tasks here, in seconds: short, so that its end can be awaited."""

SLACK = 6.0
"""Seconds that a loaded machine may add to what the protocol takes."""


class Site:
    """What one test, or one file of tests, needs to publish, run, break and witness."""

    def __init__(  # noqa: PLR0913  what differs between sites
        self,
        server: RedisServer,
        broker: Broker,
        *,
        conf: dict[str, Any] | None = None,
        once: dict[str, Any] | None = None,
        tasks: dict[str, Any] | None = None,
        schedule: dict[str, Entry] | None = None,
        base: str = "QueueOnce",
        install: str | None = None,
    ) -> None:
        self.server, self.broker = server, broker
        self.directory = Path(tempfile.mkdtemp(prefix="og-site-"))
        self.ledger = Ledger(self.directory / "ledger")
        self.workers: list[Worker] = []
        self.beats: list[Beat] = []
        common = {
            "result_backend": f"{server.celery_socket_url}?virtual_host=1",
            "worker_prefetch_multiplier": 1,
            "broker_connection_retry_on_startup": True,
            "once_socket_timeout": 1.0,
            "beat_max_loop_interval": 1,
        }
        self.settings: dict[str, Any] = {
            "conf": common | broker.conf() | (conf or {}),
            "once": {"lease_ttl": LEASE} | (once or {}),
            "tasks": tasks or {},
            "guarded": os.environ.get("HARNESS_UNGUARDED") != "1",
            "ledger": str(self.ledger.path),
            "base": base,
            "install": install,
        }
        self.schedule: dict[str, Entry] = schedule or {}

    @cached_property
    def app(self) -> Any:
        """A publisher's app in this process, with all tasks."""
        return make_app(self.settings)

    @cached_property
    def stranger(self) -> Any:
        """A publisher's app that knows no task and has no library."""
        return make_app(self.settings, tasks=False)

    def publish(self, task: str, *args: Any, **options: Any) -> Any:
        """Publish a call through its task; options are those of `apply_async`."""
        return self.app.tasks[task].apply_async(args, **options)

    def refusal(self, task: str, *args: Any, **options: Any) -> Any:
        """Publish a call and return the AlreadyQueued that it met, or None if it was taken."""
        from onceguard import AlreadyQueued  # noqa: PLC0415  the harness works without

        try:
            self.publish(task, *args, **options)
        except AlreadyQueued as refusal:
            return refusal
        return None

    def await_accepted(self, task: str, *args: Any, timeout: float = PATIENCE) -> Any:
        """Publish a call again and again until its key is free; returns its result."""
        from onceguard import AlreadyQueued  # noqa: PLC0415  as above

        def attempt() -> Any:
            with contextlib.suppress(AlreadyQueued):
                return self.publish(task, *args)

        return eventually(attempt, f"{task}{args} was taken", timeout=timeout, poll=0.1)

    def await_drained(self, timeout: float = PATIENCE) -> None:
        """
        Wait until no message lies in the queue, nor with a worker.

        A message that kombu has just taken off the list of a Redis broker lies nowhere
        for a moment, so it is looked for three times.
        """
        eventually(self._drained, "all messages were gone", timeout=timeout)

    def _drained(self) -> bool:
        for _ in range(3):
            if self.broker.load():
                return False
            time.sleep(0.05)
        return True

    def start(self, **options: Any) -> Worker:
        """Start a worker and wait until it consumes; options as `spawn`."""
        return self.spawn(**options).await_ready()

    def start_two(self, **options: Any) -> tuple[Worker, Worker]:
        """Start two workers side by side."""
        one, other = self.spawn(**options), self.spawn(**options)
        return one.await_ready(), other.await_ready()

    def spawn(self, *, conf: dict[str, Any] | None = None, **options: Any) -> Worker:
        """Start a worker without waiting; `conf` overrides settings for this one only."""
        settings = self.settings | {"conf": self.settings["conf"] | (conf or {})}
        worker = Worker(settings, **options)
        self.workers.append(worker)
        return worker

    def beat(self, **options: Any) -> Beat:
        """Start a beat and wait until its loop begins; options as `spawn_beat`."""
        return self.spawn_beat(**options).await_ready()

    def spawn_beat(  # noqa: PLR0913  what differs between beats
        self,
        *,
        schedule: dict[str, Entry] | None = None,
        conf: dict[str, Any] | None = None,
        declares: bool = True,
        install: str | None = None,
        guarded: bool | None = None,
        main: str = "harness",
        **options: Any,
    ) -> Beat:
        """
        Start a beat without waiting.

        Args:
            schedule: Entries (`tests.harness.schedule`), instead of the site's.
            conf: Overrides settings for this one only.
            declares: False starts it without tasks; say how to `install` then.
            install: "setup" or "auto", instead of the site's way.
            guarded: False starts it without the library.
            main: Name of its app.
            options: As `Beat`.
        """
        settings = self.settings | {
            "conf": self.settings["conf"] | (conf or {}),
            "schedule": self.schedule if schedule is None else schedule,
            "declares": declares,
            "install": install or self.settings["install"],
            "guarded": self.settings["guarded"] and guarded is not False,
            "main": main,
        }
        beat = Beat(settings, **options)
        self.beats.append(beat)
        return beat

    def add_row(self, scheduler: str, name: str, entry: Entry) -> Rows:
        """Add an entry to a scheduler's own store, as its users do; returns that store."""
        store = self.rows(scheduler)
        store.add(self.settings["conf"], name, entry)
        return store

    def rows(self, scheduler: str) -> Rows:
        """The store of a scheduler that has one, on this site."""
        return STORES[scheduler](self.directory)

    def open_gate(self, name: str) -> None:
        """Let the runs of `held` and `checked` with that name end."""
        (self.directory / f"{name}.go").touch()

    def shut_gate(self, name: str) -> None:
        """Let later runs with that name wait again."""
        (self.directory / f"{name}.go").unlink(missing_ok=True)

    def worker_of(self, pid: int) -> Worker:
        """The worker to which a process belongs."""
        return next(worker for worker in self.workers if worker.owns(pid))

    def await_state(self, result: Any, *states: str, timeout: float = PATIENCE) -> Any:
        """Wait until the task's state is one of those."""
        what = f"{result.id} was {' or '.join(states)}"
        eventually(lambda: result.state in states, what, timeout=timeout)
        return result

    def program(self, module: str, *words: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a Python program of the harness with this site's settings."""
        given = {"HARNESS_SETTINGS": json.dumps(self.settings), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env={**os.environ, **given, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def story(self) -> str:
        """The ledger and the ends of the workers' logs, to be read after a failure."""
        programs: list[Program] = [*self.workers, *self.beats]
        logs = [f"--- {each.name}\n{each.log()[-6000:]}" for each in programs]
        return "\n".join(["--- ledger", self.ledger.path.read_text(), *logs])

    def close(self) -> None:
        """End every process and remove every file."""
        for program in (*self.workers, *self.beats):
            program.close()
        for app in (self.__dict__.get("app"), self.__dict__.get("stranger")):
            if app is not None:
                # Results unsubscribe when collected, and retry for 20 s without a server.
                app.backend.result_consumer.subscribed_to.clear()
                app.backend.result_consumer._pubsub = None  # Celery 5.4 asks it all the same
                app.close()
        with contextlib.suppress(Exception):
            self.broker.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def redis_site(
    *, server_options: tuple[str, ...] = (), visibility_timeout: float = 3600, **options: Any
) -> Iterator[Site]:
    """A site whose one Redis server is broker, result backend and store."""
    server = RedisServer(*server_options).start()
    site = Site(server, RedisBroker(server, visibility_timeout), **options)
    try:
        yield site
    finally:
        print(site.story())
        site.close()
        server.close()


@contextlib.contextmanager
def rabbit_site(url: str, queue_type: str = "classic", **options: Any) -> Iterator[Site]:
    """A site with a queue on RabbitMQ; a Redis server is result backend and store."""
    if queue_type == "quorum" and celery.VERSION[:2] < (5, 5):
        pytest.skip("Celery reads quorum queues from 5.5 on.")
    server = RedisServer().start()
    site = Site(server, RabbitBroker(url, queue_type), **options)
    try:
        yield site
    finally:
        print(site.story())
        site.close()
        server.close()
