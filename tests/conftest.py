"""
Servers for all tests: real ones, of our own.

Each xdist worker has its own `redis_server`. Where a server is missing, tests skip on a
laptop and fail in CI.
"""

import os
from collections.abc import Iterator
from typing import Final, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.harness.brokers import VirtualHost, rabbitmq_answers
from tests.harness.redis_server import RedisServer, find_binary

# How long an example takes says how loaded this machine is.
settings.register_profile(
    "tests", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

pytest_plugins = ["tests.harness.backstop"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: three for each core, for most of these tests wait for processes."""
    return 3 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Let each process of xdist begin with its share of the slow tests and end with fast ones.

    xdist gives each an equal part of the list to begin with, and those who have done theirs
    take from the ends of the others': of fast tests, which can be shared out evenly.
    """
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if SLOW & set(item.path.parts)]
    fast = [item for item in items if not SLOW & set(item.path.parts)]
    items[:] = [
        item
        for part in range(parts)
        for each in (slow, fast)
        for item in each[len(each) * part // parts : len(each) * (part + 1) // parts]
    ]


SLOW: Final = {"acceptance", "harness", "model"}
"""Directories of tests that wait for programs, or look at many states."""


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
