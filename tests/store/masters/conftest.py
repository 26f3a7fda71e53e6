"""Three masters that may be mistreated, and apps with lines of their own to them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.masters import Masters
from tests.harness.running import running
from tests.store.voting import (
    App,
    OpenApp,
    open_app,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def three(redis_binary: str) -> Iterator[Masters]:
    """Three masters for all these tests; use `masters`."""
    assert redis_binary
    yield from running(Masters(3))


@pytest.fixture
def masters(three: Masters) -> Iterator[Masters]:
    """Three masters without data, which may be mistreated."""
    for server in three.servers:
        if not server.alive:
            server.start()
        server.resume()
        server.ask("REPLICAOF", "NO", "ONE")
        server.ask("CONFIG", "SET", "maxmemory", "0")
    three.flush()
    yield three
    for server in three.servers:
        if server.alive:
            server.resume()


@pytest.fixture
def opened(masters: Masters) -> Iterator[OpenApp]:
    """Open an app with lines of its own to the masters."""
    with ExitStack() as closing:

        def make() -> App:
            app = open_app(masters)
            closing.callback(app.close)
            return app

        yield make


@pytest.fixture
def app(opened: OpenApp) -> App:
    """An app that reaches all masters."""
    return opened()


@pytest.fixture
def other(opened: OpenApp) -> App:
    """Another one."""
    return opened()
