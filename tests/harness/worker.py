"""A Celery worker as users run it."""

from typing import Any, ClassVar

from tests.harness.program import Program


class Worker(Program):
    """`celery worker`, with one pool."""

    letter: ClassVar[str] = "w"

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._options = [f"--pool={pool}", f"--concurrency={concurrency}"]
        super().__init__(settings, environment)

    @property
    def ready(self) -> bool:
        """Whether it consumes."""
        return bool(self.ledger.lines("ready", self.name))

    def command(self) -> list[str]:
        """Without talk among workers, which no test needs."""
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return ["worker", "-n", self.name, "-l", "INFO", *self._options, *quiet]
