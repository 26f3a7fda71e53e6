"""Stores behind sentinels, and how long they take."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from onceguard.rules.address import read_address
from onceguard.rules.errors import StoreUnavailable
from onceguard.store.opening import open_store
from tests.harness.redis_server import RedisServer
from tests.harness.sentinels import AT_ONCE, NAME, follow
from tests.store.naming import NamingSentinel
from tests.store.rig import PREFIX, Rig

TIMEOUT = 0.4
"""Short, so that the bounds of calls can be told apart."""

Pair = tuple[RedisServer, RedisServer, NamingSentinel]
"""A master, its replica, and a sentinel that says what it is told to."""


@contextmanager
def a_pair(binary: str) -> Iterator[Pair]:
    """Two servers of that program, the second following the first, and who names the first."""
    one, other = RedisServer(*AT_ONCE), RedisServer(*AT_ONCE)
    one.binary = other.binary = binary
    follow(other.start(), one.start())
    sentinel = NamingSentinel(one)
    try:
        yield one, other, sentinel
    finally:
        for each in (one, other):
            each.close()
        sentinel.close()


def open_rig_behind(url: str, options: dict[str, Any], raw: RedisServer) -> Rig:
    """A rig whose store asks sentinels; its own connection goes straight to a server."""
    address = read_address(url, options)
    store = open_store(address, prefix=PREFIX, socket_timeout=TIMEOUT)
    return Rig(store, raw.client())


def rig_of(pair: Pair) -> Rig:
    return open_rig_behind(pair[2].url, {"master_name": NAME}, pair[1])


def refusal(ask: Callable[[], object]) -> tuple[StoreUnavailable, float]:
    """The StoreUnavailable that *ask* must raise, and the seconds that it took."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        ask()
    return caught.value, time.monotonic() - began


def seconds_of(ask: Callable[[], object]) -> float:
    """How long something takes that must succeed."""
    began = time.monotonic()
    ask()
    return time.monotonic() - began
