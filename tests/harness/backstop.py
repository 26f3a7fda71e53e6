"""
What ends a test that nothing else ends, so that no hang eats the time of all others.

`timeout` (pytest-timeout) raises an exception in the test: once, and not at all after a
failure, when it and pytest's `faulthandler_timeout` leave the time to whoever debugs. So
what tears a failed test down may hang for ever. Here the time goes on: a minute after the
time-out pytest's process says where all its threads are, and ends. xdist reports the test
as failed, starts another process, and goes on.

A process that ends so leaves its servers and workers behind, which are ended here.
"""

import contextlib
import faulthandler
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

GRACE: Final = 60.0
"""Seconds after the time-out, or after a failure, for what must be torn down."""

OWNERS: Final = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID")
"""Environment variables that all that an xdist worker starts inherits."""

SERVERS: Final = ("og-redis-", "og-sentinel-")
"""How the directories begin in which servers of tests live."""

STDERR: Final = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the true stderr, which is captured while a test runs."""
    config.stash[STDERR] = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close it."""
    os.close(config.stash[STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let each test have its time, with all that is set up and torn down for it."""
    if limit := time_out_of(item):
        end_after(limit + GRACE, item.config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Go on after a failure, where pytest's own plugin has just stopped the time."""
    if isinstance(node, pytest.Item) and time_out_of(node):
        end_after(GRACE, node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """End what a process of pytest left behind, if it did not end well."""
    if error is None:
        return
    owner = (node.gateway.id, node.workerinput["testrunuid"])
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if left_behind(process, owner):
                process.kill()


def left_behind(process: psutil.Process, owner: tuple[str, str]) -> bool:
    """Whether a process came from that dead one of pytest's, or is a server of any dead one."""
    environment = process.environ()
    if OWNERS[0] in environment:
        return tuple(map(environment.get, OWNERS)) == owner
    # A Redis server writes its title over its environment.
    return process.ppid() == 1 and Path(process.cwd()).name.startswith(SERVERS)


def time_out_of(item: pytest.Item) -> float:
    """Seconds after which pytest-timeout ends a test; 0 for never, and under a debugger."""
    if item.config.getoption("usepdb"):
        return 0
    if marker := item.get_closest_marker("timeout"):
        return float(marker.args[0])
    given = item.config.getoption("timeout")
    return float(item.config.getini("timeout") if given is None else given)


def end_after(seconds: float, config: pytest.Config) -> None:
    """Say where all threads are and end this process, unless cancelled before."""
    faulthandler.dump_traceback_later(seconds, file=config.stash[STDERR], exit=True)
