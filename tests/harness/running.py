"""Servers for as long as a fixture needs them."""

from collections.abc import Iterator
from typing import Protocol, TypeVar


class Startable(Protocol):
    """Servers of the harness."""

    def start(self) -> object:
        """Start."""

    def close(self) -> None:
        """End."""


S = TypeVar("S", bound=Startable)


def running(servers: S) -> Iterator[S]:
    """Servers, started, until nobody asks for more."""
    try:
        servers.start()
        yield servers
    finally:
        servers.close()
