"""A Celery beat as users run it: a process of its own, or embedded in a worker."""

import re
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.harness.ledger import Line
from tests.harness.program import Program
from tests.harness.schedulers import SCHEDULERS, Scheduler
from tests.harness.waiting import eventually

LOG_TIME: Final = "%Y-%m-%d %H:%M:%S,%f"

QUIET: Final = 0.05
"""Seconds without a line in the log after which beat is taken to be between two ticks."""


class Beat(Program):
    """
    `celery beat`, or `celery worker -B`.

    What it sent stands in the ledger, written by Celery's `after_task_publish`:
    independent of the library, and whether or not a worker runs. A line has the name
    of the run (the first argument) and the task id; `sent` reads them.
    """

    letter: ClassVar[str] = "b"

    def __init__(  # noqa: PLR0913  as `celery beat` has options
        self,
        settings: dict[str, Any],
        *,
        scheduler: str = "persistent",
        store: Path | None = None,
        max_interval: int | None = None,
        embedded: bool = False,
        consumes: bool = True,
        pool: str = "prefork",
        concurrency: int = 2,
        environment: dict[str, str] | None = None,
    ) -> None:
        """
        Start it.

        Args:
            settings: Of its app.
            scheduler: A name in SCHEDULERS.
            store: Schedule file of the persistent scheduler; its own if not given.
            max_interval: As `--max-interval`, whole seconds. Sites set
                `beat_max_loop_interval`, which `worker -B` knows too.
            embedded: `worker -B`.
            consumes: An embedded beat's worker reads the default queue, or none.
            pool: Of an embedded beat's worker.
            concurrency: Of an embedded beat's worker.
            environment: More variables, those of libfaketime for example.
        """
        directory = Path(settings["ledger"]).parent
        self.scheduler: Scheduler = SCHEDULERS[scheduler](directory)
        self.embedded = embedded
        self._given_store = store
        self._max_interval = max_interval
        self._worker = [f"--pool={pool}", f"--concurrency={concurrency}"]
        self._worker += [] if consumes else ["-Q", "nowhere"]
        conf = {**self.scheduler.conf(settings["conf"]), **settings["conf"]}
        given = {**self.scheduler.environment(), **(environment or {})}
        super().__init__(settings | {"conf": conf}, given)

    @property
    def ready(self) -> bool:
        """Whether its loop begins, and its worker's consumes."""
        consuming = not self.embedded or self.ledger.lines("ready", self.name)
        return bool(consuming and self.ledger.lines("ticking", self.name))

    @property
    def store(self) -> Path:
        """The schedule file of the persistent scheduler."""
        return self._given_store or self.ledger.path.with_name(f"{self.name}.schedule")

    def command(self) -> list[str]:
        """As users type it."""
        scheduler = self.scheduler.path
        if self.embedded:
            words = ["worker", "-B", "-n", self.name, *self._worker, "--without-gossip"]
            words += ["--without-mingle", "--without-heartbeat", "--scheduler", scheduler]
        else:
            words = ["beat", "--pidfile=", "--scheduler", scheduler]
            words += [f"--max-interval={self._max_interval}"] if self._max_interval else []
        return [*words, "-l", "INFO", "--schedule", str(self.store)]

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """
        Shut down between two ticks, and wait for it.

        Told in mid-tick, beat does not always exit with 0, and a message may have been
        sent that nobody knows of: what a crash does, and not what tests of ends mean.
        """
        self._await_pause()
        return super().stop(how, timeout)

    def _await_pause(self) -> None:
        deadline, size = time.monotonic() + 2, -1
        while (now := self.log_path.stat().st_size) != size and time.monotonic() < deadline:
            size = now
            time.sleep(QUIET)

    def sent(self, name: str | None = None) -> list[Line]:
        """Messages that this beat sent, in their order."""
        return [x for x in self.ledger.lines("sent", name) if x.fact("beat") == self.name]

    def await_sent(self, nth: int = 1, name: str | None = None) -> Line:
        """Wait until it sent its nth message."""
        what = f"{self.name} sent {nth} messages"
        return eventually(lambda: self.sent(name)[nth - 1 :], what)[0]

    def due(self, entry: str) -> int:
        """How many ticks of an entry became due here, sent or not, as Celery's log says."""
        return len(self.due_at(entry))

    def due_at(self, entry: str) -> list[float]:
        """When they became due, by this beat's own wall clock."""
        line = rf"^\[([^]]*?): INFO/[^]]*\] Scheduler: Sending due task {re.escape(entry)} "
        found = re.findall(line, self.log(), re.MULTILINE)
        return [datetime.strptime(at, LOG_TIME).timestamp() for at in found]  # noqa: DTZ007

    def await_due(self, entry: str, nth: int) -> None:
        """Wait until an entry became due here for the nth time."""
        eventually(lambda: self.due(entry) >= nth, f"{entry} was due {nth} times")
