"""Independent masters, as Redlock wants them: none of them knows of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.redis_server import RedisServer

if TYPE_CHECKING:
    from typing_extensions import Self


class Masters:
    """
    Some servers that have nothing to do with one another.

    Args:
        count: How many; the calls need more than half of them.
        options: Words for the command line of each.
    """

    def __init__(self, count: int = 5, *options: str) -> None:
        self.servers = [RedisServer(*options) for _ in range(count)]

    @property
    def urls(self) -> list[str]:
        """One for each server, as an app's settings list them."""
        return [server.url for server in self.servers]

    @property
    def majority(self) -> int:
        """How many have to agree."""
        return len(self.servers) // 2 + 1

    def start(self) -> Self:
        """Start all of them."""
        for server in self.servers:
            server.start()
        return self

    def kill(self, *numbers: int) -> None:
        """End some, as a power cut would."""
        for number in numbers:
            self.servers[number].stop()

    def pause(self, *numbers: int) -> None:
        """Let some hang."""
        for number in numbers:
            self.servers[number].pause()

    def resume(self, *numbers: int) -> None:
        """Let hung ones go on."""
        for number in numbers:
            self.servers[number].resume()

    def restart_empty(self, *numbers: int) -> None:
        """Let some come back on their ports having forgotten everything."""
        for number in numbers:
            self.servers[number].restart_empty()

    def flush(self) -> None:
        """Let all of them forget everything."""
        for server in self.servers:
            server.flush()

    def close(self) -> None:
        """End all of them, hung ones too."""
        for server in self.servers:
            server.close()
