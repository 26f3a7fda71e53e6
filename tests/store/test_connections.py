"""Connections between processes and threads, and the ways to write where the server is."""

import multiprocessing
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from onceguard.store.opening import open_store
from onceguard.store.server import OneServer
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import PATIENCE
from tests.store.rig import Rig, call, open_rig

FORKS = 50
_fork = multiprocessing.get_context("fork")


def tour_of(rig: Rig, name: str) -> None:
    """Claim, start, hold and finish a key of one's own; every answer must be one's own."""
    message = call(name, key=f"task({name})")
    assert rig.claim(message) is None
    held = rig.claim(call(f"{name}-other", key=message.key))
    assert held is not None
    assert held.holder.message_id == name
    assert rig.start(message, "n").starts == 1
    holder = rig.store.holder(message)
    assert holder is not None
    assert holder.holder.message_id == name
    assert rig.finish(message, "n")


@pytest.fixture
def busy(rig: Rig) -> Iterator[list[BaseException]]:
    """Threads that use the store all the while; the list has what went wrong in them."""
    faults: list[BaseException] = []
    over = threading.Event()

    def work(thread: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                tour_of(rig, f"t{thread}-{number}")
            except BaseException as fault:  # noqa: BLE001 - the test must hear of it
                faults.append(fault)
                return

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    yield faults
    over.set()
    for thread in threads:
        thread.join(PATIENCE)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_and_its_parent_do_not_share_connections(
    rig: Rig, busy: list[BaseException]
) -> None:
    """
    Prefork workers fork while the renewal thread talks; gunicorn forks after the import.

    On a shared connection one reads the other's reply: a wrong holder, or a hang.
    """
    tour_of(rig, "before")
    for number in range(FORKS):
        child = _fork.Process(target=tour_of, args=(rig, f"child-{number}"))
        child.start()
        tour_of(rig, f"parent-{number}")
        child.join(10)
        assert child.exitcode == 0, f"child {number}: {child.exitcode}"
    assert busy == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_leaves_its_parents_idle_connection_alone(rig: Rig) -> None:
    """Talking on it, or closing it politely, would end it for the parent."""
    tour_of(rig, "before")
    made = rig.raw.info("stats")["total_connections_received"]
    child = _fork.Process(target=tour_of, args=(rig, "child"))
    child.start()
    child.join(10)
    assert child.exitcode == 0
    tour_of(rig, "after")
    assert rig.raw.info("stats")["total_connections_received"] == made + 1


def test_of_many_threads_that_claim_a_key_one_gets_it(rig: Rig) -> None:
    """G1 with one store for all threads, as a web server has it."""
    with ThreadPoolExecutor(8) as threads:
        for round_ in range(30):
            messages = [call(f"m{round_}-{n}", key=f"task({round_})") for n in range(8)]
            answers = list(threads.map(rig.claim, messages))
            (winner,) = [m for m, held in zip(messages, answers, strict=True) if held is None]
            holders = {held.holder.message_id for held in answers if held is not None}
            assert holders == {winner.message_id}


def test_many_callers_at_once_are_all_served(redis_server: RedisServer, rig: Rig) -> None:
    """A gevent worker has hundreds; redis-py's pool gives out a hundred, by default."""
    callers = 150
    ready = threading.Barrier(callers + 1)

    def ask(number: int) -> bool:
        ready.wait(PATIENCE)
        return rig.claim(call(f"m{number}", key=f"task({number})")) is None

    with ThreadPoolExecutor(callers) as threads, redis_server.client() as admin:
        asked = [threads.submit(ask, number) for number in range(callers)]
        admin.client_pause(300)  # all are under way together
        ready.wait(PATIENCE)
        assert all(each.result(PATIENCE) for each in asked)


def test_dead_pooled_connections_are_replaced_unnoticed(own_redis_server: RedisServer) -> None:
    """After a restart every idle connection is dead; a call has one second chance only."""
    rig = open_rig(own_redis_server, url=own_redis_server.url)
    with ThreadPoolExecutor(6) as threads:
        together(threads, rig, own_redis_server)
        own_redis_server.restart_empty()
        together(threads, rig, own_redis_server)
    tour_of(rig, "after")


def together(threads: ThreadPoolExecutor, rig: Rig, server: RedisServer) -> None:
    """Claim on six connections at once."""
    with server.client() as admin:
        admin.client_pause(100)
        asked = [threads.submit(rig.claim, call(f"m{n}", key=f"task({n})")) for n in range(6)]
        assert [each.result(PATIENCE) for each in asked] == [None] * 6
        rig.raw.flushall()


def test_threads_that_find_dead_connections_together_do_not_trip_over_each_other(
    own_redis_server: RedisServer,
) -> None:
    """Each of them throws the idle connections away, of which another takes one meanwhile."""
    rig = open_rig(own_redis_server, url=own_redis_server.url)
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    until = time.monotonic() + 0.5
    try:
        with ThreadPoolExecutor(8) as threads:
            while time.monotonic() < until:
                rig.command("CLIENT KILL TYPE normal SKIPME yes")
                asked = [threads.submit(rig.store.holder, call("m1")) for _ in range(16)]
                assert [each.result(PATIENCE) for each in asked] == [None] * 16
    finally:
        sys.setswitchinterval(switching)


def test_an_idle_connection_may_be_taken_while_the_others_are_closed(rig: Rig) -> None:
    """The same, certain: somebody takes the last connection right after one has looked."""

    class Contended(deque[Any]):
        def __len__(self) -> int:
            there = super().__len__()
            self.clear()
            return there

    server = rig.store._server
    assert isinstance(server, OneServer)
    connections = server._connections
    connections._idle = Contended([connections._make()])
    connections.close()


def user_url(server: RedisServer) -> str:
    return f"redis://app:p%40ss%2Fw@127.0.0.1:{server.port}/0"


def password_url(server: RedisServer) -> str:
    return f"redis://:p%40ss%2Fw@127.0.0.1:{server.port}/0"


def socket_user_url(server: RedisServer) -> str:
    return f"redis+socket://app:p%40ss%2Fw@{server.socket}"


def socket_query_url(server: RedisServer) -> str:
    return f"unix://{server.socket}?password=p%40ss%2Fw"


@pytest.mark.parametrize(
    "url", [user_url, password_url, socket_user_url, socket_query_url],
    ids=["user and password", "password", "unix socket, user", "unix socket, query"],
)  # fmt: skip
def test_credentials_in_the_url_are_used(
    own_redis_server: RedisServer, url: Callable[[RedisServer], str]
) -> None:
    """As Celery's users and redis-py write them, percent-encoded."""
    with own_redis_server.client() as admin:
        admin.execute_command("ACL SETUSER app on >p@ss/w ~* &* +@all")
        admin.config_set("requirepass", "p@ss/w")
    store = open_store(url(own_redis_server), prefix="once", socket_timeout=5.0)
    assert store.claim(call("m1"), unique_for=5.0) is None


@pytest.mark.parametrize(
    "database", ["{tcp}/3", "unix://{path}?db=3", "redis+socket://{path}?virtual_host=3"]
)
def test_the_database_in_the_url_is_used(redis_server: RedisServer, database: str) -> None:
    """redis-py and Celery spell it differently for a unix socket."""
    url = database.format(
        tcp=f"redis://127.0.0.1:{redis_server.port}", path=redis_server.socket
    )
    open_store(url, prefix="once", socket_timeout=5.0).claim(call("m1"), unique_for=5.0)
    with redis_server.client(db=3) as third:
        assert third.dbsize() == 2
