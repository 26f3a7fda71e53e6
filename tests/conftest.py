"""
Servers for all tests: real ones, of our own.

Each xdist worker has its own `redis_server`. Where a server is missing, tests skip on a
laptop and fail in CI.
"""

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.harness.brokers import VirtualHost, rabbitmq_answers
from tests.harness.redis_server import RedisServer, find_binary


def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: two for each core, for most of these tests wait for processes."""
    return 2 * (os.cpu_count() or 1)


def missing(what: str) -> NoReturn:
    """Skip on a laptop, fail in CI: a check that can't run must not look green there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing, and CI must have it.")
    pytest.skip(f"{what} is missing.")


@pytest.fixture(scope="session")
def redis_binary() -> str:
    """Path of a redis-server."""
    return find_binary() or missing("redis-server")


@pytest.fixture(scope="session")
def session_redis_server(redis_binary: str) -> Iterator[RedisServer]:
    """One server for all tests of this xdist worker; use `redis_server`."""
    assert redis_binary
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture
def redis_server(session_redis_server: RedisServer) -> RedisServer:
    """A Redis server without data: shared and flushed, so don't stop or stall it."""
    session_redis_server.flush()
    return session_redis_server


@pytest.fixture
def own_redis_server(redis_binary: str) -> Iterator[RedisServer]:
    """A Redis server of the test's own, to be stopped, hung and restarted."""
    assert redis_binary
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A vhost of this xdist worker's own on the machine's RabbitMQ."""
    if not rabbitmq_answers():
        missing("RabbitMQ")
    host = VirtualHost()
    yield host.url
    host.close()
